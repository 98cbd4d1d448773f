"""Reads the block `python` of the configuration, and says which environment tasks need, if any.

The texts of `ConfigError` reach the user through the service. What users ask for is data: the requirements are the text
of a file for uv, and meet neither a shell nor a command line.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from typing import Any

from uep.config import ConfigError, unknown

CLIENT, ENDPOINT = "client", "endpoint"
SDK, PARSL = "globus-compute-sdk", "parsl"
OLDEST = 10
"""The oldest minor version of Python 3 that workers run in."""
OLDEST_SDK = 3
"""The oldest major version of the SDK whose functions and arguments a later one reads."""
MOST_CHARACTERS = 64 * 1024
"""Of requirements."""
TIMEOUT = 900.0
"""Seconds of `timeout`, unless it is set."""
_VERSION = re.compile(r"3\.([0-9]{1,3})(\.[0-9A-Za-z.+]{1,30})?")
_SDK = re.compile(r"[0-9]{1,6}(\.[0-9A-Za-z.+]{1,40})?")


@dataclass(frozen=True, slots=True)
class Wanted:
    """The block `python`.

    version, sdk: a version, `client` or `endpoint`. search: folders with Pythons, besides PATH, as patterns. index: the
    address of a package index. wheels: a folder or address with packages; without an index, nothing else is asked.
    folder: where environments are kept. timeout: in seconds, until an environment is there.
    """

    version: str = CLIENT
    sdk: str = CLIENT
    requirements: str = field(repr=False, default="")
    search: tuple[str, ...] = ()
    index: str | None = field(repr=False, default=None)
    wheels: str | None = field(repr=False, default=None)
    folder: str | None = None
    timeout: float = TIMEOUT


@dataclass(frozen=True, slots=True)
class Needed:
    """An environment that tasks need. `python` is its major and minor version, `packages` a requirements file."""

    python: str
    sdk: str
    packages: str = field(repr=False)
    has_requirements: bool

    def __str__(self) -> str:
        more = " and the requirements" if self.has_requirements else ""
        return f"Python {self.python} with {SDK} {self.sdk}{more}"


def read(block: Mapping[str, Any]) -> Wanted:
    """Reads the block.

    Raises:
        ConfigError: an unknown key, or a wrong value.
    """
    for key in block:
        if key not in _READERS:
            raise ConfigError(unknown("key in python", key, _READERS))
    return Wanted(**{key: _READERS[key](f"python.{key}", each) for key, each in block.items() if each is not None})


def needed(wanted: Wanted) -> Needed | None:
    """Says which environment tasks need; None when the endpoint's own Python suits.

    It suits when major and minor version are the client's, its SDK reads what the client's writes, and nothing else is
    asked for. What is not known of the client is the endpoint's.

    Raises:
        ConfigError: a Python that workers do not run in.
    """
    ours = ".".join(platform.python_version_tuple()[:2])
    our_sdk = metadata.version(SDK)
    python = _named(wanted.version, "GC_USER_PYTHON_VERSION", ours, _VERSION)
    python = ".".join(python.split(".")[:2])
    sdk = _named(wanted.sdk, "GC_USER_SDK_VERSION", our_sdk, _SDK)
    is_read = OLDEST_SDK <= int(sdk.split(".")[0]) <= int(our_sdk.split(".")[0])
    if python == ours and is_read and not wanted.requirements:
        return None
    if int(python.split(".")[1]) < OLDEST:
        raise ConfigError(
            f"Your tasks are to have Python {python}, and workers need 3.{OLDEST} or a later one. {remedy(wanted)}"
        )
    return Needed(python, sdk, _packages(wanted, sdk), bool(wanted.requirements))


def remedy(wanted: Wanted) -> str:
    """Says what a user can do whose Python there is not."""
    if wanted.version == ENDPOINT:
        return ""
    ours = platform.python_version()
    return (
        "Use another Python on your side; or have the tasks run by the endpoint's own, Python"
        f" {ours} (python.version: {ENDPOINT}; in the default profile the option python_version), which understands"
        " functions that travel as text (PureSourceTextInspect), and shell functions."
    )


def _named(value: str, variable: str, ours: str, form: re.Pattern[str]) -> str:
    if value == ENDPOINT:
        return ours
    if value == CLIENT:
        theirs = os.environ.get(variable, "")
        return theirs if form.fullmatch(theirs) else ours
    return value


def _packages(wanted: Wanted, sdk: str) -> str:
    """Writes the requirements file: where packages come from, what workers need, what the user asks for."""
    lines = []
    if wanted.index is not None:
        lines.append(f"--index-url {wanted.index}")
    elif wanted.wheels is not None:
        lines.append("--no-index")
    if wanted.wheels is not None:
        lines.append(f"--find-links {wanted.wheels}")
    # Workers and endpoint must have the same Parsl: what they send each other changes between versions.
    lines += [f"{SDK}=={sdk}", f"{PARSL}=={metadata.version(PARSL)}", wanted.requirements]
    return "\n".join(lines).rstrip() + "\n"


def _version(form: re.Pattern[str], example: str, where: str, value: object) -> str:
    if not isinstance(value, str) or (value not in (CLIENT, ENDPOINT) and not form.fullmatch(value)):
        text = f"expected {CLIENT}, {ENDPOINT}, or a version in quotes, as '{example}', got {value!r}"
        raise ConfigError(f"{where}: {text}")
    return value


def _requirements(where: str, value: object) -> str:
    """Reads the text of a requirements file, or a list of its lines."""
    lines = value.splitlines() if isinstance(value, str) else value
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise ConfigError(f"{where}: expected the text of a requirements file, or a list of its lines")
    if sum(map(len, lines)) > MOST_CHARACTERS:
        raise ConfigError(f"{where}: more than {MOST_CHARACTERS} characters")
    for number, line in enumerate(lines, 1):
        if not line.replace("\t", " ").isprintable():
            raise ConfigError(f"{where}: line {number} has a character that cannot be printed")
    return "\n".join(lines).strip()


def _word(where: str, value: object) -> str:
    """Reads an address or a path: one word, as it becomes part of a line."""
    if not isinstance(value, str) or not value or not value.isprintable() or " " in value:
        raise ConfigError(f"{where}: expected an address or a path without spaces, in one line")  # may have a password
    return value


def _search(where: str, value: object) -> tuple[str, ...]:
    folders = [value] if isinstance(value, str) else value
    if not isinstance(folders, list) or not all(isinstance(each, str) and each.startswith("/") for each in folders):
        raise ConfigError(f"{where}: expected an absolute path, or a list of such, got {value!r}")
    return tuple(folders)


def _path(where: str, value: object) -> str:
    if not isinstance(value, str) or not value.startswith(("/", "~", "$")):
        raise ConfigError(f"{where}: expected an absolute path, which may begin with ~ or a variable, got {value!r}")
    return value


def _seconds(where: str, value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 1 <= value <= 86400:
        raise ConfigError(f"{where}: expected seconds, 1 to 86400, got {value!r}")
    return float(value)


_READERS: Mapping[str, Callable[[str, object], Any]] = {
    "version": partial(_version, _VERSION, "3.12"),
    "sdk": partial(_version, _SDK, "4.19.0"),
    "requirements": _requirements,
    "search": _search,
    "index": _word,
    "wheels": _word,
    "folder": _path,
    "timeout": _seconds,
}
