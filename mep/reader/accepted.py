"""Reads the profile that was accepted last, for a start that finds the edited one broken: an upgrade, or a boot.

`profile.accepted` writes it. Its texts are checked like those of a profile.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from mep.profile.accepted import FORMAT, Accepted, file
from mep.profile.errors import ConfigError
from mep.profile.profile import CONFIG, SCHEMA, Profile
from mep.reader.config_reader import read_config
from mep.reader.files import checked_templates, parse_mapping, parse_schema
from mep.reader.trusted import read_trusted


def find(state: Path, name: str, endpoint_id: str | None) -> Accepted | None:
    """What was kept for profile `name` of that endpoint; None when there is nothing.

    Raises:
        ConfigError: it cannot be read, or is not root's.
    """
    found = _read(file(state, name))
    return found if found is not None and found.endpoint_id == endpoint_id else None


def other_endpoint(state: Path, name: str, endpoint_id: str | None) -> str | None:
    """The endpoint that profile `name` was accepted for, if it has another id now.

    Raises:
        ConfigError: as `find`.
    """
    found = _read(file(state, name))
    return None if found is None or endpoint_id in (None, found.endpoint_id) else found.endpoint_id


def _read(path: Path) -> Accepted | None:
    if not os.path.lexists(path):
        return None
    try:
        facts = json.loads(read_trusted(path))
        return Accepted(**facts) if facts.pop("format") == FORMAT else None  # else another version's
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ConfigError(path, ["is not what was written there; delete it"]) from None


def load(accepted: Accepted, directory: Path) -> Profile:
    """The profile of the folder `directory` as it was accepted.

    Raises:
        ConfigError: this version does not take it, or something that it names is not in order any more.
    """
    texts = accepted.texts
    try:
        config = read_config(directory / CONFIG, texts["config"])
        template, mapping = Path(texts["template"]), Path(texts["mapping"])
        schema = config.user_config_schema_path or directory / SCHEMA
        return Profile(
            name=directory.name,
            directory=directory,
            config=config,
            config_text=texts["config"],
            templates=checked_templates(template, dict(texts["templates"])),
            template_name=template.name,
            schema=None if texts["schema"] is None else parse_schema(schema, texts["schema"]),
            environment=dict(texts["environment"]),
            mapping=parse_mapping(mapping, texts["mapping_text"]),
        )
    except (KeyError, TypeError, AttributeError):
        raise ConfigError(directory, ["the accepted profile is not what was written there"]) from None
