"""The profile that was accepted last, kept for a start that finds the edited one broken: an upgrade, or a boot.

One file of root's for each profile, in the state folder, with the texts of all that a profile is read from. Whoever
reads it has the texts checked like those of a profile. It counts only for the endpoint that it was accepted for, so a
profile that is made anew under an old name never starts with the rules of the old one.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mep import __version__
from mep.profile import places, whole_file
from mep.profile.errors import ConfigError
from mep.profile.profile import CONFIG, SCHEMA, Profile
from mep.reader.config_reader import read_config
from mep.reader.files import checked_templates, parse_mapping, parse_schema
from mep.reader.trusted import read_trusted

FOLDER = "accepted"
_FORMAT = 1


@dataclass(frozen=True)
class Accepted:
    """An accepted profile as it is kept. version: of the program that accepted it. at: when, as people write it."""

    endpoint_id: str
    version: str
    at: str
    texts: Mapping[str, Any]

    def is_of(self, profile: Profile) -> bool:
        """Whether the profile is this one, word for word."""
        return self.texts == _texts(profile)


def save(state: Path, profile: Profile, endpoint_id: str) -> None:
    """Keeps the profile in the state folder, whole or not at all, where nobody but root can read it.

    Raises:
        ConfigError: others than root may change the folder.
        OSError: it cannot be written.
    """
    folder = state / FOLDER
    places.check(folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    facts = {"format": _FORMAT, **dataclasses.asdict(Accepted(endpoint_id, __version__, now, _texts(profile)))}
    whole_file.replace(_file(state, profile.name), json.dumps(facts), durable=True)


def find(state: Path, name: str, endpoint_id: str | None) -> Accepted | None:
    """What was kept for profile `name` of that endpoint; None when there is nothing.

    Raises:
        ConfigError: it cannot be read, or is not root's.
    """
    found = _read(_file(state, name))
    return found if found is not None and found.endpoint_id == endpoint_id else None


def other_endpoint(state: Path, name: str, endpoint_id: str | None) -> str | None:
    """The endpoint that profile `name` was accepted for, if it has another id now.

    Raises:
        ConfigError: as `find`.
    """
    found = _read(_file(state, name))
    return None if found is None or endpoint_id in (None, found.endpoint_id) else found.endpoint_id


def _read(path: Path) -> Accepted | None:
    if not os.path.lexists(path):
        return None
    try:
        facts = json.loads(read_trusted(path))
        return Accepted(**facts) if facts.pop("format") == _FORMAT else None  # else another version's
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


def _texts(profile: Profile) -> dict[str, Any]:
    template = profile.config.user_config_template_path or profile.directory / profile.template_name
    return {
        "config": profile.config_text,
        "template": str(template),
        "templates": dict(profile.templates),
        "schema": None if profile.schema is None else json.dumps(profile.schema),
        "environment": dict(profile.environment),
        "mapping": str(profile.mapping.path),
        "mapping_text": profile.mapping.text,
    }


def _file(state: Path, name: str) -> Path:
    return state / FOLDER / f"{name}.json"
