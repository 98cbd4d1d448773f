"""`Profile`: the folder of one endpoint (`/etc/mep/NAME`) once it is read, as plain values. `reader.loader` reads it.

    config.yaml                        the manager's configuration
    user_config_template.yaml.j2       Jinja template of user endpoints' configuration (or without `.j2`)
    user_config_schema.json            JSON schema of user options; optional
    user_environment.yaml              environment of user endpoints; optional
    identity mapping documents         where `identity_mapping_config_path` says
    endpoint.json                      the endpoint's id, written at its first registration
    owner_identity_mapping.json        without root: the owner's identities, written at each registration

A folder made by the public package's `configure` is a profile.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mep.profile.config import ManagerConfig
from mep.profile.mapping_documents import MappingDocuments

TEMPLATE = "user_config_template.yaml.j2"
SCHEMA = "user_config_schema.json"
ENVIRONMENT = "user_environment.yaml"
CONFIG = "config.yaml"
MAPPING = "example_identity_mapping_config.json"
OWNER = "owner_identity_mapping.json"
REGISTERED = "endpoint.json"

_TAKEN = frozenset({"environment", "accepted", "admin-orders", "user-endpoints", "storage.db"})
"""What may lie beside the profiles: variables for all commands, and without root the state of all endpoints."""
OWN_VARIABLES = ("HOME", "USER", "LOGNAME", "SHELL", "PWD", "GLOBUS_COMPUTE_ENDPOINT_NAME")
"""Variables of a user endpoint that come from its account, or its name; a site's values for them do not count."""

_FORBIDDEN = re.compile(r"[\\/\s'\"]")
_ESCAPED = re.compile(r"\\x([0-9a-f]{2})")
"""How systemd-escape(1) writes what the name of a unit cannot have."""
_LONGEST, _MOST_BYTES = 128, 200


@dataclass(frozen=True)
class Profile:
    """All that the manager reads from its folder.

    config_text: config.yaml as it is, reported to the service.
    templates: file name -> text of the template and of the `*.j2` files beside it, for `include` and `extends`.
    template_name: the template itself, a key of `templates`.
    schema: JSON schema of user options, or None.
    environment: variables of user_environment.yaml.
    mapping: as it is in the file; requests are decided by `documents`.
    """

    name: str
    directory: Path
    config: ManagerConfig
    config_text: str = field(repr=False)
    templates: Mapping[str, str] = field(repr=False)
    template_name: str
    schema: Mapping[str, Any] | None = field(repr=False)
    environment: Mapping[str, str] = field(repr=False)
    mapping: MappingDocuments = field(repr=False)

    @property
    def documents(self) -> MappingDocuments:
        """The mapping, with what config.yaml has to say about it. The one account of an ordinary user may have any
        name that there is."""
        allowed = self.config.accounts.directory_names or os.geteuid() != 0
        return dataclasses.replace(self.mapping, directory_names=allowed)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256, in hexadecimal digits, of all that decides what is started and as whom; audit lines tell it.

        The settings count beside their text: after a reload some of the text may wait for a restart.
        """
        settings = dataclasses.asdict(self.config)
        files = [self.config_text, self.template_name, self.templates, self.schema, self.environment]
        parts = json.dumps([settings, *files, self.mapping.digest], sort_keys=True, default=_in_order)
        return hashlib.sha256(parts.encode()).hexdigest()


def _in_order(value: object) -> object:
    """What JSON has no form for: paths, and sets, whose order differs from process to process."""
    return sorted(value, key=str) if isinstance(value, (set, frozenset)) else str(value)


def check_name(typed: str) -> str:
    """The name of a profile that is meant; `typed` may be as systemd-escape(1) writes it, for `mep@NAME`.

    Raises:
        ValueError: it cannot name a profile.
    """
    name = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), typed)
    with contextlib.suppress(UnicodeError):
        name = name.encode("latin-1").decode() if name != typed else name
    if name in _TAKEN:
        raise ValueError(f"{name!r} cannot name an endpoint: something else has that name in the folder of profiles")
    if (
        not name.isprintable()
        or not 0 < len(name) <= _LONGEST
        or len(name.encode()) > _MOST_BYTES
        or name.startswith((".", "-"))
        or _FORBIDDEN.search(name)
    ):
        raise ValueError(
            f"{name!r} cannot name an endpoint: use letters, digits, '_', '-', '.', '+' and the like, at most"
            f" {_LONGEST}; no spaces, slashes or quotes, and no '.' or '-' in front"
        )
    return name
