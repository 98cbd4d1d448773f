"""Names what brings the Python of its tasks along in an image; imported before Parsl is."""

IMAGE_PROVIDERS = frozenset({"AWSProvider", "AzureProvider", "GoogleCloudProvider", "KubernetesProvider"})
