"""The file `environment` in the configuration folder: variables for every `mep` command, by hand or as a service.

    HTTPS_PROXY=http://proxy.example.org:3128

It exists so that `mep check` sees what the service will see. User endpoints do not get these variables.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from mep.profile.errors import ConfigError
from mep.reader.trusted import read_trusted

_LINE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)")


def load(path: Path) -> None:
    """Sets the variables that are not set already. Raises ConfigError."""
    for name, value in read(path).items():
        os.environ.setdefault(name, value)


def read(path: Path) -> dict[str, str]:
    """The variables in the file; none when it is not there for us. Raises ConfigError."""
    if not os.access(path, os.R_OK) and not os.path.islink(path):  # noqa: PTH114 - in a folder that we may not enter
        return {}
    found: dict[str, str] = {}
    for number, line in enumerate(read_trusted(path, "restore it, or remove the link").splitlines(), start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        match = _LINE.fullmatch(text)
        if match is None or "\0" in text:
            raise ConfigError(path, [f"line {number}: expected NAME=value"])
        found.setdefault(match[1], _without_quotes(match[2].strip()))
    return found


def _without_quotes(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value
