"""Client credentials: from the file that `client_credentials_path` names, or from the environment."""

from __future__ import annotations

import logging
import os
import stat
import uuid
from pathlib import Path

from mep.profile.client_credentials import ClientCredentials
from mep.profile.errors import ConfigError
from mep.reader.trusted import read_trusted
from mep.reader.yaml_text import load_yaml

log = logging.getLogger(__name__)

ID_VARIABLE, SECRET_VARIABLE = "GLOBUS_COMPUTE_CLIENT_ID", "GLOBUS_COMPUTE_CLIENT_SECRET"


def find(path: Path | None) -> ClientCredentials | None:
    """Those of the file `path`; without one, those of the environment, which loses the secret; None without any.

    Raises ConfigError: the file cannot be used.
    """
    return _from_environment() if path is None else _from_file(path)


def _from_environment() -> ClientCredentials | None:
    client_id, secret = os.environ.get(ID_VARIABLE), os.environ.pop(SECRET_VARIABLE, None)
    if not (client_id and secret):
        return None
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
        client_id, secret = str(uuid.UUID(data["client_id"])), data["client_secret"]
    except (ConfigError, ValueError, KeyError, TypeError, AttributeError):  # whose own texts might show the secret
        raise ConfigError(path, [f"expected {expected}"]) from None
    if not isinstance(secret, str) or not secret:
        raise ConfigError(path, ["client_secret: expected text, in quotes if it looks like a number"])
    return ClientCredentials(client_id, secret)
