"""Client credentials: from the file that `client_credentials_path` names, or from the environment."""

from __future__ import annotations

import logging
import os
import stat
import uuid
from pathlib import Path

from mep.profile.client_credentials import ClientCredentials
from mep.profile.errors import ConfigError, ConfigErrors
from mep.reader.trusted import read_trusted
from mep.reader.yaml_text import load_yaml

log = logging.getLogger(__name__)

ID_VARIABLE, SECRET_VARIABLE = "GLOBUS_COMPUTE_CLIENT_ID", "GLOBUS_COMPUTE_CLIENT_SECRET"
_OLD = {"FUNCX_SDK_CLIENT_ID": ID_VARIABLE, "FUNCX_SDK_CLIENT_SECRET": SECRET_VARIABLE}
"""Names that the public package has given up, and those that it has now."""


def find(path: Path | None) -> ClientCredentials | None:
    """Those of the file `path`; without one, those of the environment, which loses them; None without any.

    Raises ConfigError: the file cannot be used, or one of the two variables is missing.
    """
    return _from_environment() if path is None else _from_file(path)


def _from_environment() -> ClientCredentials | None:
    client_id, secret = os.environ.pop(ID_VARIABLE, None), os.environ.pop(SECRET_VARIABLE, None)
    if not (client_id or secret):
        if old := [name for name in _OLD if os.environ.get(name)]:
            log.warning("%s: not used; say %s", " and ".join(old), " and ".join(_OLD[name] for name in old))
        return None
    if not (client_id and secret):
        there, missing = (ID_VARIABLE, SECRET_VARIABLE) if client_id else (SECRET_VARIABLE, ID_VARIABLE)
        remedy = "set both, to be that client; or neither, to use the login of `mep login`"
        raise ConfigErrors([f"{there} is set, and {missing} is not: {remedy}"])
    log.warning(
        "client credentials come from the environment, where /proc shows them; put them into a file of mode 0600 and"
        " set client_credentials_path in config.yaml"
    )
    return ClientCredentials(client_id, secret)


def _from_file(path: Path) -> ClientCredentials:
    expected = "two lines of text: `client_id: UUID` and `client_secret: SECRET`"
    text = read_trusted(path, f"make it, with mode 0600 and {expected}")
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise ConfigError(path, [f"others may read this secret (mode {mode:04o}); mend it: chmod 600 {path}"])
    try:
        data = load_yaml(path, text)
        missing = [name for name in ("client_id", "client_secret") if data.get(name) in (None, "")]
        client_id = "" if missing else str(uuid.UUID(data["client_id"]))
    except (ConfigError, ValueError, TypeError, AttributeError):  # whose own texts might show the secret
        raise ConfigError(path, [f"expected {expected}"]) from None
    if missing:
        raise ConfigError(path, [f"no {' and no '.join(missing)}; expected {expected}"])
    secret = data["client_secret"]
    if not isinstance(secret, str):
        raise ConfigError(path, ["client_secret: expected text, in quotes if it looks like a number"])
    return ClientCredentials(client_id, secret)
