"""How a key of config.yaml is declared: once, with the field of the frozen dataclass that holds its value.

    heartbeat_period: float = key(30.0, Takes.PERIOD, "seconds between ...", reload=True)

`reader.config_reader` reads a file by these declarations, `config.reloaded` takes over an edited file by them, and the
reference in docs/configuration.md is printed from them.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

T = TypeVar("T")


class Takes(enum.Enum):
    """What a key takes. `reader.values` reads each."""

    TEXT = enum.auto()
    DISPLAY_NAME = enum.auto()
    FLAG = enum.auto()
    UUID = enum.auto()
    UUIDS = enum.auto()
    FUNCTIONS = enum.auto()
    PERIOD = enum.auto()
    GRACE_PERIOD = enum.auto()
    PORT = enum.auto()
    PATH = enum.auto()
    COMMAND = enum.auto()
    UID = enum.auto()
    ACCOUNT = enum.auto()
    ALLOWED_USERS = enum.auto()
    DENIED_USERS = enum.auto()
    ALLOWED_GROUPS = enum.auto()
    DENIED_GROUPS = enum.auto()
    LIMIT = enum.auto()
    MEMORY = enum.auto()
    TASKS = enum.auto()
    CPU_QUOTA = enum.auto()
    PAM_SERVICE = enum.auto()
    ON_STOP = enum.auto()
    UNKNOWN_OPTIONS = enum.auto()
    LOG_FORMAT = enum.auto()
    LOG_SIZE = enum.auto()
    LOG_KEEP = enum.auto()
    UMASK = enum.auto()


@dataclass(frozen=True)
class Key:
    """A key with one value.

    meaning: its sentence in the reference, in Markdown.
    reload: whether a running manager takes over a change. Otherwise a change needs a restart: the service was told the
        value at the registration, or something was opened or started with it.
    default: the default in words, where the value itself does not say it.
    """

    takes: Takes
    meaning: str
    reload: bool
    default: str | None


@dataclass(frozen=True)
class Section:
    """A key that has keys of its own. All sections are taken over by a reload.

    holds: the dataclass of its keys. written: values that hold once the section is written, whatever is in it.
    """

    holds: type
    written: Mapping[str, Any]
    reload: bool = True


def key(default: T, takes: Takes, meaning: str, *, reload: bool = False, shown: str | None = None) -> T:
    """A field for a key with one value. shown: the default in words."""
    return field(default=default, metadata={_DECLARED: Key(takes, meaning, reload, shown)})


def section(holds: type[T], **written: Any) -> T:
    """A field for a key with keys of its own, those of the dataclass `holds`."""
    return field(default_factory=holds, metadata={_DECLARED: Section(holds, written)})


def declared(settings: type) -> dict[str, Key | Section]:
    """The keys of a dataclass by their names, in their order."""
    return {each.name: each.metadata[_DECLARED] for each in fields(settings)}


_DECLARED = "declared"
