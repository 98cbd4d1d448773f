"""The profile that was accepted last, as it is kept for a start that finds the edited one broken.

One file of root's for each profile, in the state folder, with the texts of all that a profile is read from.
`reader.accepted` reads it. It counts only for the endpoint that it was accepted for, so a profile that is made anew
under an old name never starts with the rules of the old one.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mep import __version__
from mep.profile import places, whole_file
from mep.profile.profile import Profile

FOLDER = "accepted"
FORMAT = 1


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
    facts = {"format": FORMAT, **dataclasses.asdict(Accepted(endpoint_id, __version__, now, _texts(profile)))}
    whole_file.replace(file(state, profile.name), json.dumps(facts), durable=True)


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


def file(state: Path, name: str) -> Path:
    """Where the one of profile `name` is."""
    return state / FOLDER / f"{name}.json"
