"""Profiles of old versions of the public package, whose config.yaml has the engine: makes them ones with a template.

What the manager needs stays in config.yaml, the rest becomes the template, as the public package's own command has it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from mep.cli.common import trusted_run_directory
from mep.daemon.failed import Failed, exit_codes
from mep.profile.config import ManagerConfig
from mep.profile.keys import declared
from mep.profile.profile import CONFIG, TEMPLATE

_BOTH = (
    "amqp_port",
    "debug",
    "environment",
    "heartbeat_period",
    "high_assurance",
    "local_compute_services",
    "log_keep",
    "log_size",
)
"""Keys that manager and user endpoint have, each for itself."""
MANAGERS = tuple(key for key in declared(ManagerConfig) if key not in _BOTH)
"""Keys that are the manager's alone, or that say something of the endpoint as a whole."""
_JINJA = ("{{", "{%", "{#")


def migrate(directory: Path) -> Iterable[str]:
    """Moves what is the template's out of config.yaml, which is kept as config.yaml.backup. What was done, as lines.

    Raises:
        Failed: it has a template already, runs, or cannot be read or written.
    """
    from mep.monitor import run_lock
    from mep.profile import whole_file

    config, template, backup = directory / CONFIG, directory / TEMPLATE, directory / f"{CONFIG}.backup"
    keys = _keys(config)
    try:
        if run_lock.holder(trusted_run_directory(directory.name)) is not None:
            raise Failed(os.EX_TEMPFAIL, f"endpoint {directory.name} is running; stop it first")
        for file in (backup, template):
            if os.path.lexists(file):
                raise Failed(os.EX_CANTCREAT, f"{file} exists already; move it away")
        text = _text(keys, [key for key in keys if key not in MANAGERS])
        whole_file.replace(template, as_template(text))  # with the mode of secrets, as config.yaml may have had some
        os.link(config, backup)
        whole_file.replace(config, _text(keys, [*MANAGERS, *_BOTH]))
    except PermissionError as e:
        raise Failed(os.EX_NOPERM, f"{e.filename}: {e.strerror}; only who owns the profile may") from None
    except OSError as e:
        raise Failed(os.EX_CANTCREAT, f"{e.filename}: cannot be written: {e.strerror}") from None
    lines = [f"{config} has what is the manager's, {template} the rest; as it was: {backup}"]
    if "identity_mapping_config_path" not in keys:
        lines.append(f"Say next who becomes whom: identity_mapping_config_path in {config}; then mep check")
    return lines


def as_template(text: str) -> str:
    """Plain text as a template that renders to it."""
    return f"{{% raw %}}\n{text}{{% endraw %}}\n" if any(mark in text for mark in _JINJA) else text


def _keys(config: Path) -> dict[str, Any]:
    """All that the file says. Raises Failed."""
    from mep.reader.trusted import read_trusted
    from mep.reader.yaml_text import load_yaml

    with exit_codes():
        keys = load_yaml(config, read_trusted(config))
    if not isinstance(keys, dict) or "engine" not in keys:
        raise Failed(os.EX_DATAERR, f"{config} has no `engine`: the profile has a template, or is to get one by hand")
    return keys


def _text(keys: dict[str, Any], which: Iterable[str]) -> str:
    left = {key: keys[key] for key in which if key in keys}
    return yaml.safe_dump(left, sort_keys=False) if left else "# Nothing was set here.\n"
