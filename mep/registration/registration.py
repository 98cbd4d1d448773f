"""Makes the endpoint known to the service: login or client credentials, then one REST call. Before the event loop.

Through `globus_sdk`, as any client of the service. Tokens of client credentials live in memory only; those of a login
(`mep login`) in `storage.db` of the configuration folder.
"""

from __future__ import annotations

import logging
import os
import platform
import pwd
import socket
import sqlite3
import stat
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import globus_sdk
from globus_sdk.token_storage import MemoryTokenStorage, SQLiteTokenStorage

from mep import __version__
from mep.profile.config import ManagerConfig
from mep.profile.errors import ConfigError
from mep.profile.profile import Profile
from mep.reader import registered
from mep.reader.trusted import read_trusted
from mep.reader.yaml_text import load_yaml
from wire.queues import QueueInfoError, Source, Target, read_source, read_target
from wire.redaction import redact

log = logging.getLogger(__name__)

PUBLIC_CLIENT_ID = "4cf29807-cf21-49ec-9443-ff9a3fb9f81c"
"""The native client of Globus Compute, under which people log in."""
COMPATIBLE_VERSION = "4.19.0"
"""The version of the public package that we are like: the service compares it with its `min_ep_version`."""
_LOCAL_SERVICE = "http://localhost:5000"
_ID_VARIABLE, _SECRET_VARIABLE = "GLOBUS_COMPUTE_CLIENT_ID", "GLOBUS_COMPUTE_CLIENT_SECRET"


class RegistrationError(Exception):
    """The service does not take the registration. `exit_code` is one of os.EX_*; the text has the remedy."""

    def __init__(self, exit_code: int, text: str) -> None:
        super().__init__(redact(text))
        self.exit_code = exit_code


@dataclass(frozen=True)
class Registration:
    """The endpoint as the service knows it: its id, where commands come from, where heartbeats go."""

    endpoint_id: str
    commands: Source
    heartbeats: Target


@dataclass(frozen=True)
class ServiceAnswer:
    """version: of the service's API. date: its clock, as an HTTP header."""

    version: str
    date: str | None


def login_app(storage: Path, config: ManagerConfig) -> globus_sdk.GlobusApp:
    """The Globus app that holds our tokens: client credentials when there are any, else the stored login.

    Raises:
        ConfigError: the credentials file cannot be used.
        RegistrationError: the stored login cannot be used.
    """
    requirements = {
        globus_sdk.ComputeClientV3.scopes.resource_server: globus_sdk.ComputeClientV3.default_scope_requirements,
        globus_sdk.AuthClient.scopes.resource_server: [globus_sdk.AuthClient.scopes.openid],
    }
    credentials = _client_credentials(config)
    if credentials is not None:
        app_config = globus_sdk.GlobusAppConfig(token_storage=MemoryTokenStorage())
        client_id, secret = credentials
        return globus_sdk.ClientApp(
            "mep", client_id=client_id, client_secret=secret, config=app_config, scope_requirements=requirements
        )
    try:
        storage.mkdir(mode=0o700, parents=True, exist_ok=True)
        tokens = SQLiteTokenStorage(storage / "storage.db", namespace=f"user/{_environment(config)}")
    except (OSError, sqlite3.Error) as e:
        text = f"the stored login {storage / 'storage.db'} cannot be used: {e}; delete it, and log in again"
        raise RegistrationError(os.EX_CONFIG, text) from None
    return globus_sdk.UserApp(
        "mep",
        client_id=PUBLIC_CLIENT_ID,
        config=globus_sdk.GlobusAppConfig(token_storage=tokens, request_refresh_tokens=True),
        scope_requirements=requirements,
    )


def register(profile: Profile, app: globus_sdk.GlobusApp) -> Registration:
    """Registers the endpoint of profile `site`, under its earlier id if it has one, and remembers the id.

    Raises:
        RegistrationError: no login, the service cannot be reached, or refuses.
        ConfigError: `endpoint.json` cannot be used.
    """
    known = registered.endpoint_id(profile.directory)
    _check_login(app)
    with globus_sdk.ComputeClientV3(app=app, base_url=_service_url(profile.config)) as client:
        answer = _ask(client, known, _document(profile))
    registration = _read(answer, profile.config.amqp_port)
    if known is not None and registration.endpoint_id != known:
        raise RegistrationError(os.EX_SOFTWARE, f"the service answers for {registration.endpoint_id}, not for {known}")
    registered.remember(profile.directory, registration.endpoint_id, _address(registration.commands.connection_url))
    return registration


def ask_version(config: ManagerConfig, app: globus_sdk.GlobusApp) -> ServiceAnswer:
    """Asks the service for its version, with our login; registers nothing.

    Raises:
        RegistrationError: no login, or the service cannot be reached, or refuses.
    """
    _check_login(app)
    with globus_sdk.ComputeClientV2(app=app, base_url=_service_url(config)) as client:
        try:
            answer = client.get_version()
        except globus_sdk.GlobusAPIError as e:
            raise _refused(e, None) from None
        except globus_sdk.NetworkError as e:
            raise _unreachable(e) from None
    version = answer.data.get("api") if isinstance(answer.data, dict) else answer.data
    return ServiceAnswer(str(version), answer.headers.get("Date"))


def _check_login(app: globus_sdk.GlobusApp) -> None:
    if isinstance(app, globus_sdk.UserApp) and app.login_required():
        raise RegistrationError(os.EX_NOPERM, "not logged in; run `mep login`, or set client_credentials_path")


def _unreachable(error: globus_sdk.NetworkError) -> RegistrationError:
    text = f"cannot reach the service: {error}; is it up, and may this host reach it?"
    return RegistrationError(os.EX_TEMPFAIL, text)


def _address(connection_url: str) -> str:
    """Of a broker's URL what is no secret."""
    parts = urlsplit(connection_url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _ask(client: globus_sdk.ComputeClientV3, known: str | None, document: dict[str, Any]) -> Any:
    try:
        answer = client.update_endpoint(known, document) if known else client.register_endpoint(document)
    except globus_sdk.GlobusAPIError as e:
        raise _refused(e, known) from None
    except globus_sdk.NetworkError as e:
        raise _unreachable(e) from None
    return answer.data


def _refused(error: globus_sdk.GlobusAPIError, known: str | None) -> RegistrationError:
    code = os.EX_DATAERR if error.http_status in (400, 422) else os.EX_UNAVAILABLE
    if error.http_status in (401, 403):
        code = os.EX_NOPERM
    remedies = {
        401: "check the client credentials, or run `mep login`",
        403: "the endpoint belongs to another identity, or this one may not register endpoints",
        404: f"the service does not know endpoint {known}; delete endpoint.json to register a new one",
        409: "another instance of this endpoint is running; stop that one first",
        423: "the endpoint is locked, or another instance of it is running; stop that one, or wait",
    }
    remedy = remedies.get(error.http_status, "see the text of the service")
    message = error.message or error.text
    return RegistrationError(
        code, f"the service refuses the registration (HTTP {error.http_status}): {message}; {remedy}"
    )


def _read(answer: Any, port: int | None) -> Registration:
    try:
        return Registration(
            endpoint_id=str(answer["endpoint_id"]),
            commands=read_source(answer["command_queue_info"], "command_queue_info", port),
            heartbeats=read_target(answer["heartbeat_queue_info"], "heartbeat_queue_info", port),
        )
    except (KeyError, TypeError) as e:
        text = f"the service's answer to the registration lacks {e}; is it a Globus Compute service?"
        raise RegistrationError(os.EX_PROTOCOL, text) from None
    except QueueInfoError as e:
        raise RegistrationError(os.EX_PROTOCOL, f"the service's answer to the registration: {e}") from None


def _document(profile: Profile) -> dict[str, Any]:
    config = profile.config
    document: dict[str, Any] = {
        "endpoint_name": profile.name,
        "display_name": config.display_name,
        "multi_user": True,
        "public": config.public,
        "high_assurance": config.high_assurance,
        "allowed_functions": None if config.allowed_functions is None else list(config.allowed_functions),
        "authentication_policy": config.authentication_policy,
        "subscription_uuid": config.subscription_id,
        "admins": None if config.admins is None else list(config.admins),
        "metadata": {
            "endpoint_version": COMPATIBLE_VERSION,
            "python_version": platform.python_version(),
            "hostname": socket.getfqdn(),
            "local_user": pwd.getpwuid(os.getuid()).pw_name,
            "endpoint_config": profile.config_text,
            "user_config_template": profile.templates[profile.template_name],
            "user_config_schema": profile.schema,
            "mep_version": __version__,
        },
    }
    return {key: value for key, value in document.items() if value is not None}


def _environment(config: ManagerConfig) -> str:
    return config.environment or os.environ.get("GLOBUS_SDK_ENVIRONMENT", "production")


def _service_url(config: ManagerConfig) -> str | None:
    """Where the service is: None lets globus_sdk decide by the environment."""
    if config.local_compute_services or _environment(config) == "local":
        return _LOCAL_SERVICE
    return None


def _client_credentials(config: ManagerConfig) -> tuple[str, str] | None:
    if config.client_credentials_path is not None:
        return _read_credentials(config.client_credentials_path)
    client_id, secret = os.environ.get(_ID_VARIABLE), os.environ.pop(_SECRET_VARIABLE, None)
    if not (client_id and secret):
        return None
    log.warning(
        "client credentials come from the environment, where /proc shows them; put them into a file of mode 0600 and"
        " set client_credentials_path in config.yaml"
    )
    return client_id, secret


def _read_credentials(path: Path) -> tuple[str, str]:
    expected = "two lines of text: `client_id: UUID` and `client_secret: SECRET`"
    text = read_trusted(path, f"make it, with mode 0600 and {expected}")
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise ConfigError(path, [f"others may read this secret (mode {mode:04o}); mend it: chmod 600 {path}"])
    try:
        data = load_yaml(path, text)
        client_id, secret = str(uuid.UUID(data["client_id"])), data["client_secret"]
    except (ConfigError, ValueError, KeyError, TypeError, AttributeError):  # whose own texts might show the secret
        raise ConfigError(path, [f"expected {expected}"]) from None
    if not isinstance(secret, str) or not secret:
        raise ConfigError(path, ["client_secret: expected text, in quotes if it looks like a number"])
    return client_id, secret


def shown_id(directory: Path) -> str:
    """The id of a profile for people to read: a dash before the first registration, `?` when it cannot be read."""
    try:
        return registered.endpoint_id(directory) or "-"
    except ConfigError:
        return "?"
