"""Makes a profile: a folder of commented files, from the templates of the package or from files that are given."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path

import yaml

from mep.cli import boot, old_profile
from mep.profile import profile

USES = {
    profile.CONFIG: "the manager's configuration",
    profile.MAPPING: "who becomes which local account; edit this first",
    profile.TEMPLATE: "template of the user endpoints' configuration",
    profile.SCHEMA: "what users may pass into the template",
    profile.ENVIRONMENT: "environment of the user endpoints",
}
"""The files of a profile, in the order in which people meet them."""


class NotMade(Exception):
    """No profile was made, and nothing was changed. `exit_code` is one of os.EX_*."""

    def __init__(self, exit_code: int, text: str) -> None:
        super().__init__(text)
        self.exit_code = exit_code


def check(directory: Path, given: Mapping[str, Path | None]) -> None:
    """Raises NotMade when `make` could not: the folder exists, its name will not do, or a given file cannot be read."""
    _check_free(directory)
    for path in filter(None, given.values()):
        _given_text(path)


def uses() -> dict[str, str]:
    """Those that a profile of ours has: an ordinary user's endpoint maps nobody."""
    return {file: use for file, use in USES.items() if file != profile.MAPPING or os.geteuid() == 0}


def make(
    directory: Path,
    given: Mapping[str, Path | None],
    display_name: str | None,
    email: str | None,
    keys: Mapping[str, object] | None = None,
) -> None:
    """Makes the profile `directory`. `given` names files to use instead of the package's, by their name in a profile.

    What is asked for besides is put into a config.yaml that is given, as the public package does.

    keys: what config.yaml is to say besides; None leaves a key out.

    Raises:
        NotMade: the folder exists, cannot be written, or a given file cannot be read.
    """
    if "" in (display_name, email):
        raise NotMade(os.EX_USAGE, "an empty name or address: leave the option out, or give it a value")
    own = os.geteuid() != 0
    texts_given = {file: _given_text(path) for file, path in given.items() if path is not None}
    found, keys = _engine_apart(texts_given, keys or {})
    texts = {file: _default_text(file, own) if (text := found.get(file)) is None else text for file in uses()}
    if profile.CONFIG not in found:
        values = {"MAPPING": str(directory / profile.MAPPING), "DISPLAY_NAME": display_name, "EMAIL": email}
        texts[profile.CONFIG] = re.sub("@([A-Z_]+)@", lambda mark: _quoted(values[mark[1]]), texts[profile.CONFIG])
    else:
        texts[profile.CONFIG] = _with_keys(texts[profile.CONFIG], {"display_name": display_name, "email": email})
        usual = {} if own else {"identity_mapping_config_path": str(directory / profile.MAPPING), "public": True}
        missing = {key: value for key, value in usual.items() if not _has(texts[profile.CONFIG], key)}
        if profile.MAPPING in found and not own:
            missing["identity_mapping_config_path"] = usual["identity_mapping_config_path"]
        texts[profile.CONFIG] = _with_keys(texts[profile.CONFIG], missing)
    texts[profile.CONFIG] = _with_keys(texts[profile.CONFIG], keys)
    _write(directory, texts)


def _engine_apart(
    texts: Mapping[str, str], keys: Mapping[str, object]
) -> tuple[Mapping[str, str], Mapping[str, object]]:
    """A file with an engine that is given as config.yaml is the configuration of user endpoints, as the public package
    had it before there were templates: it becomes the template, and what it says of the manager, keys of config.yaml.
    """
    config = texts.get(profile.CONFIG)
    if config is None or profile.TEMPLATE in texts or not _ENGINE.search(config):
        return texts, keys
    others = {file: text for file, text in texts.items() if file != profile.CONFIG}
    try:
        said = yaml.safe_load(config)
    except yaml.YAMLError:  # with Jinja in it, it is a template already
        return {**others, profile.TEMPLATE: config}, keys
    managers = {key: said[key] for key in old_profile.MANAGERS if key in said}
    template = old_profile.as_template(_without_keys(config, managers))
    return {**others, profile.TEMPLATE: template}, {**managers, **{k: v for k, v in keys.items() if v is not None}}


_ENGINE = re.compile(r"^engine[ \t]*:", re.MULTILINE)


def _without_keys(text: str, keys: Iterable[str]) -> str:
    """The text of a YAML file without these keys. Its comments stay."""
    for key in keys:
        text = _key(key).sub("", text)
    return text


def _with_keys(text: str, keys: Mapping[str, object]) -> str:
    """The text of config.yaml with these keys, in place of what it says of them, or at its end. Its comments stay."""
    for key, value in keys.items():
        if value is not None:
            line = f"{key}: {_written(value)}\n"
            found = _key(key).search(text)
            before, after = (text[: found.start()], text[found.end() :]) if found else (f"{text.rstrip()}\n\n", "")
            text = f"{before}{line}{_without_keys(after, [key])}"
    return text


def _key(key: str) -> re.Pattern[str]:
    """The lines of a key and its value, in a YAML file."""
    return re.compile(rf"^{key}[ \t]*:.*\n?(?:(?:[ \t]*(?:#.*)?\n)*(?:[ \t]+\S|[-\]}}]).*\n?)*", re.MULTILINE)


def _has(text: str, key: str) -> bool:
    return re.search(rf"^{key}[ \t]*:", text, re.MULTILINE) is not None


def _written(value: object) -> str:
    """A value as YAML in one line."""
    if isinstance(value, str):
        return _quoted(value)
    return yaml.safe_dump(value, default_flow_style=True, width=1 << 30).removesuffix("...\n").strip()


def _quoted(value: str | None) -> str:
    """As YAML: JSON is, but for characters that JSON writes as two."""
    return json.dumps(value, ensure_ascii=value is not None and not value.isprintable())


def _default_text(file: str, own: bool) -> str:
    """That of the package; of an ordinary user's endpoint, where it is another one than root's."""
    templates = resources.files("mep.templates")
    other = templates.joinpath("own").joinpath(file)
    return (other if own and other.is_file() else templates.joinpath("default").joinpath(file)).read_text("utf-8")


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
            (building / file).chmod(0o600)
        building.rename(directory)
    except OSError as e:
        shutil.rmtree(building, ignore_errors=True)
        raise NotMade(os.EX_CANTCREAT, f"{directory}: cannot be made: {e.strerror}") from None


def _check_free(directory: Path) -> None:
    if problem := boot.name_problem(directory.name):
        raise NotMade(os.EX_USAGE, problem)
    if directory.exists():
        raise NotMade(os.EX_CANTCREAT, f"{directory} exists already; nothing was changed")
