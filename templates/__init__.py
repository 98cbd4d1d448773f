"""What `mep configure` copies (`default/`). Installed as the package `mep.templates`."""
