"""Makes the endpoint known to the service: two REST calls, through `globus_sdk`, as any client.

`daemon.registering` calls it in a process of its own. `answer` reads what comes back.
"""

from __future__ import annotations

import platform
import socket
from typing import Any

import globus_sdk

from mep.profile import functions
from mep.profile.config import ManagerConfig
from mep.profile.profile import Profile
from mep.registration.errors import told
from mep.registration.login import check_service, remedy, service_url
from mep.registration.version import COMPATIBLE_VERSION, ask_version

_AUTH = globus_sdk.AuthClient.scopes.resource_server


def register(
    profile: Profile, app: globus_sdk.GlobusApp, known: str | None, local_user: str, *, multi_user: bool
) -> Any:
    """Registers the endpoint of `profile` and returns the service's answer, as it came.

    known: the endpoint's earlier id, if it has one. local_user: the account of the manager. multi_user: whether others
    than its owner may use it.

    Raises:
        RegistrationError: no login, or the service cannot be reached, or refuses, or serves newer endpoints only.
    """
    config = profile.config
    check_service(config)
    ask_version(config, app)  # one that wants newer endpoints says so here only
    with (
        told(remedy(app, config), known, service_url(config)),
        globus_sdk.ComputeClientV3(app=app, base_url=service_url(config)) as client,
    ):
        return _ask(client, known, _document(profile, local_user, multi_user=multi_user))


def own_identities(app: globus_sdk.GlobusApp, config: ManagerConfig) -> dict[str, str]:
    """The identities of whoever the login is of: the one, and those that are linked to it; their names by their ids,
    as far as the login lets us see them. Raises RegistrationError."""
    with told(remedy(app, config)):
        # With what the login allows: a client for the app would want more than the public package asks for.
        said = globus_sdk.AuthClient(authorizer=app.get_authorizer(_AUTH)).userinfo()
        shown = ({"sub": said["sub"], "username": said.get("preferred_username")}, *said.get("identity_set", []))
        return {str(each["sub"]): str(each.get("username") or "") for each in shown}


def _ask(client: globus_sdk.ComputeClientV3, known: str | None, document: dict[str, Any]) -> Any:
    return (client.update_endpoint(known, document) if known else client.register_endpoint(document)).data


def _document(profile: Profile, local_user: str, *, multi_user: bool) -> dict[str, Any]:
    """What the service is told: the keys that the public package sends, and no others."""
    config = profile.config
    optional: dict[str, Any] = {
        "display_name": config.display_name,
        "multi_user": multi_user,
        "allowed_functions": functions.ids(config.allowed_functions or ()),
        "authentication_policy": config.authentication_policy,
        "subscription_uuid": config.subscription_id,
        "admins": list(config.admins or ()),
    }
    return {
        "endpoint_name": profile.name,
        "public": config.public,
        "high_assurance": config.high_assurance,
        "metadata": {
            "endpoint_version": COMPATIBLE_VERSION,
            "python_version": platform.python_version(),
            "hostname": socket.getfqdn(),
            "local_user": local_user,
            "endpoint_config": profile.config_text,
            "user_config_template": profile.templates[profile.template_name],
            "user_config_schema": profile.schema,
        },
        **{key: value for key, value in optional.items() if value},
    }
