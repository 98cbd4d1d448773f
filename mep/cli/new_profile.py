"""Makes a profile: a folder of commented files, from the templates of the package or from files that are given."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from mep.profile import profile

USES = {
    profile.CONFIG: "the manager's configuration",
    profile.MAPPING: "who becomes which local account; edit this first",
    profile.TEMPLATE: "template of the user endpoints' configuration",
    profile.SCHEMA: "what users may pass into the template",
    profile.ENVIRONMENT: "environment of the user endpoints",
}
"""The files of a profile, in the order in which people meet them."""

_FOR_EVERYBODY = frozenset({profile.TEMPLATE, profile.SCHEMA})
"""What users may read, to see which options there are. Who may do what is root's to know."""


class NotMade(Exception):
    """No profile was made, and nothing was changed. `exit_code` is one of os.EX_*."""

    def __init__(self, exit_code: int, text: str) -> None:
        super().__init__(text)
        self.exit_code = exit_code


def check(directory: Path, given: Mapping[str, Path | None]) -> None:
    """Raises NotMade when `make` could not: the folder exists, or a given file cannot be read."""
    _check_free(directory)
    for path in filter(None, given.values()):
        _given_text(path)


def make(
    directory: Path,
    given: Mapping[str, Path | None],
    display_name: str | None,
    email: str | None,
    keys: Mapping[str, object] | None = None,
) -> None:
    """Makes the profile `directory`. `given` names files to use instead of the package's, by their name in a profile.

    keys: what config.yaml is to say besides; None leaves a key out.

    Raises:
        NotMade: the folder exists, cannot be written, or a given file cannot be read.
    """
    if "" in (display_name, email):
        raise NotMade(os.EX_USAGE, "an empty name or address: leave the option out, or give it a value")
    texts = {file: _default_text(file) if (path := given.get(file)) is None else _given_text(path) for file in USES}
    if given.get(profile.CONFIG) is None:
        values = {"MAPPING": str(directory / profile.MAPPING), "DISPLAY_NAME": display_name, "EMAIL": email}
        texts[profile.CONFIG] = re.sub("@([A-Z_]+)@", lambda mark: _quoted(values[mark[1]]), texts[profile.CONFIG])
    texts[profile.CONFIG] = _with_keys(texts[profile.CONFIG], keys or {})
    _write(directory, texts)


def _with_keys(text: str, keys: Mapping[str, object]) -> str:
    """The text of config.yaml with these keys, in place of what it says of them. Its comments stay."""
    for key, value in keys.items():
        if value is not None:
            text = re.sub(rf"^{key}[ \t]*:.*\n?(?:[ \t]+\S.*\n?|-.*\n?)*", "", text, flags=re.MULTILINE)
            text = f"{text.rstrip()}\n\n{key}: {json.dumps(value)}\n"
    return text


def _quoted(value: str | None) -> str:
    """As YAML: JSON is, but for characters that JSON writes as two."""
    return json.dumps(value, ensure_ascii=value is not None and not value.isprintable())


def _default_text(file: str) -> str:
    return resources.files("mep.templates").joinpath("default").joinpath(file).read_text(encoding="utf-8")


def _given_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        reason = e.strerror if isinstance(e, OSError) else "not UTF-8 text"
        raise NotMade(os.EX_NOINPUT, f"{path}: cannot be read: {reason}") from None


def _write(directory: Path, texts: Mapping[str, str]) -> None:
    """All files or none: they are written into a new folder, which then gets its name."""
    _check_free(directory)
    building = directory.with_name(f".{directory.name}.new-{os.getpid()}")
    try:
        for folder in [*reversed([parent for parent in building.parents if not parent.exists()]), building]:
            folder.mkdir()
            folder.chmod(0o755)  # whatever the umask: others may not write to what decides who becomes whom
        for file, text in texts.items():
            (building / file).write_text(text, encoding="utf-8")
            (building / file).chmod(0o644 if file in _FOR_EVERYBODY else 0o600)
        building.rename(directory)
    except OSError as e:
        shutil.rmtree(building, ignore_errors=True)
        raise NotMade(os.EX_CANTCREAT, f"{directory}: cannot be made: {e.strerror}") from None


def _check_free(directory: Path) -> None:
    if directory.exists():
        raise NotMade(os.EX_CANTCREAT, f"{directory} exists already; nothing was changed")
