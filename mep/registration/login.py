"""With which login we speak to the service, and where the service is.

Tokens of client credentials live in memory only; those of a login (`mep login`) in `storage.db` of the state folder.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import globus_sdk
from globus_sdk.token_storage import MemoryTokenStorage, SQLiteTokenStorage

from mep.profile.client_credentials import ClientCredentials
from mep.profile.config import ManagerConfig
from mep.registration.errors import RegistrationError, not_logged_in, told
from wire.listeners import StrangerListens, check_url

PUBLIC_CLIENT_ID = "4cf29807-cf21-49ec-9443-ff9a3fb9f81c"
"""The native client of Globus Compute, under which people log in."""
_LOCAL_SERVICE = "http://localhost:5000"


def login_app(storage: Path, config: ManagerConfig, credentials: ClientCredentials | None) -> globus_sdk.GlobusApp:
    """The Globus app that holds our tokens: of the client credentials, or without any of the login stored in `storage`.

    Raises:
        RegistrationError: the stored login cannot be used, or a stranger listens where the service is to be.
    """
    check_service(config)
    requirements = {
        globus_sdk.ComputeClientV3.scopes.resource_server: globus_sdk.ComputeClientV3.default_scope_requirements,
        globus_sdk.AuthClient.scopes.resource_server: [globus_sdk.AuthClient.scopes.openid],
    }
    if credentials is not None:
        return globus_sdk.ClientApp(
            "mep",
            client_id=credentials.client_id,
            client_secret=credentials.secret,
            config=globus_sdk.GlobusAppConfig(token_storage=MemoryTokenStorage(), token_validation_error_handler=None),
            scope_requirements=requirements,
        )
    try:
        storage.mkdir(mode=0o700, parents=True, exist_ok=True)
        tokens = SQLiteTokenStorage(storage / "storage.db", namespace=f"user/{_environment(config)}")
        return globus_sdk.UserApp(
            "mep",
            client_id=PUBLIC_CLIENT_ID,
            config=globus_sdk.GlobusAppConfig(
                token_storage=tokens,
                request_refresh_tokens=True,
                token_validation_error_handler=None,  # only `mep login` begins a login
            ),
            scope_requirements=requirements,
        )
    except (OSError, sqlite3.Error) as e:
        text = f"the stored login {storage / 'storage.db'} cannot be used: {e}; delete it, and log in again"
        raise RegistrationError(os.EX_CONFIG, text) from None


def check_login(app: globus_sdk.GlobusApp, config: ManagerConfig) -> None:
    """Raises RegistrationError when somebody has to log in first, or the service of logins cannot be asked."""
    if isinstance(app, globus_sdk.UserApp):
        with told(remedy(app, config)):
            if app.login_required():
                raise not_logged_in("not logged in", f"{remedy(app, config)}, or set client_credentials_path")


def try_login(app: globus_sdk.GlobusApp, config: ManagerConfig) -> None:
    """Raises RegistrationError when the stored login is not good any more, which only its renewal shows."""
    check_login(app, config)
    with told(remedy(app, config)):
        for server in app.scope_requirements:
            authorizer = app.get_authorizer(server)
            authorizer.handle_missing_authorization()  # the token that it has counts as expired
            authorizer.get_authorization_header()


def is_good(app: globus_sdk.GlobusApp, config: ManagerConfig) -> bool:
    """Whether nobody has to log in. Raises RegistrationError when that cannot be said now."""
    try:
        try_login(app, config)
    except RegistrationError as e:
        if e.exit_code != os.EX_NOPERM:
            raise
        return False
    return True


def remedy(app: globus_sdk.GlobusApp, config: ManagerConfig) -> str:
    """What to do about a login that is not good any more: run `mep login`, or which client credentials to correct."""
    if isinstance(app, globus_sdk.UserApp):
        return "run `mep login`"
    if (path := config.client_credentials_path) is not None:
        return f"check the client's id and secret in {path}"
    return "check the client's id and secret, which come from the environment"


def check_service(config: ManagerConfig) -> None:
    """Raises RegistrationError when a service on this host is not that of root or a system account."""
    places = [url for name, url in os.environ.items() if name.startswith("GLOBUS_SDK_SERVICE_URL_")]
    try:
        for url in filter(None, (service_url(config), *places)):
            check_url(url)
            _past_proxies(url)
    except StrangerListens as e:
        raise RegistrationError(os.EX_TEMPFAIL, f"the service: {e}") from None


def _past_proxies(url: str) -> None:
    """A service on this host is asked without a proxy, whatever HTTP_PROXY says: without TLS, a proxy would read our
    secrets, and another host's has nothing to do with it."""
    host = urlsplit(url).hostname or ""
    with contextlib.suppress(OSError):  # a name that is not known; who connects will say so
        if all(ip_address(found[4][0]).is_loopback for found in socket.getaddrinfo(host, None)):
            named = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
            if named != "*" and host not in named.split(","):
                os.environ["no_proxy"] = ",".join(filter(None, (named, host)))


def service_url(config: ManagerConfig) -> str | None:
    """Where the service is: None lets globus_sdk decide by the environment."""
    if config.local_compute_services or _environment(config) == "local":
        return _LOCAL_SERVICE
    return None


def _environment(config: ManagerConfig) -> str:
    return config.environment or os.environ.get("GLOBUS_SDK_ENVIRONMENT", "production")


def ask_for_linked(app: globus_sdk.GlobusApp) -> None:
    """From now on a login of this app must allow us to see whose it is, and linked identities."""
    scopes = [*globus_sdk.AuthClient.default_scope_requirements, globus_sdk.AuthClient.scopes.view_identity_set]
    app.add_scope_requirements({globus_sdk.AuthClient.scopes.resource_server: scopes})
