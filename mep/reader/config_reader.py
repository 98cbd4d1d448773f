"""`config.yaml` of a profile -> `ManagerConfig`. Every key of the public package's manager is known, and ours.

The file is checked as a whole: `ConfigError` lists every problem with its line. The keys are those that
`profile.config` declares.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from identity import account_name
from mep.profile import functions
from mep.profile.config import ManagerConfig
from mep.profile.errors import ConfigError
from mep.profile.keys import Key, Section, Takes, declared
from mep.profile.programs import is_our_user_endpoint
from mep.profile.sections.accounts import AccountPolicy
from mep.reader.values import READERS, Wrong
from mep.reader.yaml_text import Entry, load_entries

_UEP = ManagerConfig.uep_command


def read_config(path: Path, text: str) -> ManagerConfig:
    """The configuration in `text`, which was read from `path`. Its paths begin at the folder of the profile.

    Raises:
        ConfigError: not YAML, an unknown key, or a value that its key does not take.
    """
    entries = load_entries(path, text)
    values, problems = _read_entries(entries)
    problems += _contradictions(values, {entry.key: entry.line for entry in entries})
    if problems:
        raise ConfigError(path, problems)
    below: dict[str, Any] = {key: path.parent / value for key, value in values.items() if isinstance(value, Path)}
    return ManagerConfig(**(values | below))


def _read_entries(entries: list[Entry]) -> tuple[dict[str, Any], list[str]]:
    """The values, by their keys, and what is wrong."""
    keys = declared(ManagerConfig)
    values: dict[str, Any] = {}
    problems = []
    for entry in entries:
        if entry.key not in keys:
            problems.append(f"line {entry.line}: {entry.key}: unknown key{_nearest(entry.key, keys)}")
        elif not _means_the_default(keys[entry.key], entry.value):
            try:
                values[entry.key] = _read_value(keys[entry.key], entry.value)
            except Wrong as e:
                problems += [f"line {entry.line}: {entry.key}: {text}" for text in e.args]
    return values, problems


def _means_the_default(key: Key | Section, value: Any) -> bool:
    """No value, and an empty text but where a list belongs: as in the public package, `allowed_functions: ""` must not
    let all of them run."""
    lists_ids = isinstance(key, Key) and key.takes in (Takes.UUIDS, Takes.FUNCTIONS)
    return value is None or (value == "" and not lists_ids)


def _read_value(key: Key | Section, value: Any) -> Any:
    """Raises Wrong."""
    return READERS[key.takes](value) if isinstance(key, Key) else _read_section(key, value)


def _read_section(section: Section, value: Any) -> Any:
    """Raises Wrong, with a text for each problem."""
    keys = declared(section.holds)
    if not isinstance(value, dict):
        raise Wrong(f"expected keys and values; known keys: {', '.join(sorted(keys))}")
    values, problems = dict(section.written), []
    for name, item in value.items():
        if name not in keys:
            problems.append(f"{name}: unknown key{_nearest(str(name), keys)}")
            continue
        try:
            values[name] = _read_value(keys[name], item)
        except Wrong as e:
            problems += [f"{name}: {text}" for text in e.args]
    if problems:
        raise Wrong(*problems)
    return section.holds(**values)


def _contradictions(values: Mapping[str, Any], lines: Mapping[str, int]) -> list[str]:
    problems = []
    if values.get("high_assurance") and "audit_log_path" not in values:
        line = lines["high_assurance"]
        problems.append(
            f"line {line}: high_assurance: true needs audit_log_path, the file that has every decision on record"
        )
    if "public_audit_log_path" in values:
        if not values.get("high_assurance"):
            problems.append(
                f"line {lines['public_audit_log_path']}: public_audit_log_path needs high_assurance: true, or user"
                " endpoints say nothing of their tasks"
            )
        if values["public_audit_log_path"] == values.get("audit_log_path"):
            problems.append(
                f"line {lines['public_audit_log_path']}: public_audit_log_path: a file of its own, not audit_log_path"
            )
    if functions.pins(values.get("allowed_functions")) and not is_our_user_endpoint(values.get("uep_command", _UEP)):
        problems.append(
            f"line {lines['uep_command']}: uep_command: only our user endpoint, mep-uep, holds tasks to the hashes of"
            " allowed_functions; leave out this key, or the hashes"
        )
    policy = values.get("accounts")
    if isinstance(policy, AccountPolicy) and not policy.directory_names:
        lists = {"allow_users": policy.allow_users or (), "deny_users": policy.deny_users}
        problems += [
            f"line {lines['accounts']}: accounts: {key}: nobody can have this name: {wrong}"
            for key, names in lists.items()
            for name in names
            if name != "root" and (wrong := account_name.problem(name))
        ]
    return problems


def _nearest(name: str, known: Iterable[str]) -> str:
    if name == "engine":
        return "; the engine of user endpoints belongs in user_config_template.yaml.j2"
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known keys: {', '.join(sorted(known))}"
