"""`config.yaml` of a profile -> `ManagerConfig`. Every key of the public package's manager is known, and ours.

The file is checked as a whole: `ConfigError` lists every problem with its line. `KEYS` is the whole reference; add a
key there and a field of the same name to `ManagerConfig`.
"""

from __future__ import annotations

import difflib
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from identity import account_name
from identity.printable import shown
from mep.profile.account_policy import AccountPolicy
from mep.profile.config import ManagerConfig, PamConfig
from mep.profile.errors import ConfigError
from mep.profile.limits import Limits
from mep.profile.resources import Resources

LEAST_MEMORY = 64 * 2**20
LEAST_TASKS = 8
LEAST_CPU = 0.1
"""With less, no user endpoint would come as far as its first heartbeat."""


class _Wrong(Exception):
    """A value is not what its key takes; the text says what it takes. Several texts: of a key with keys of its own."""


def read_config(path: Path, text: str) -> ManagerConfig:
    """The configuration in `text`, which was read from `path`.

    Raises:
        ConfigError: not YAML, an unknown key, or a value that its key does not take.
    """
    data = load_yaml(path, text)
    if data is None:
        return ManagerConfig()
    if not isinstance(data, dict):
        raise ConfigError(path, ["expected keys and values (`display_name: My endpoint`)"])
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(node, yaml.MappingNode)
    written = [(str(key.value), key.start_mark.line + 1) for key, _ in node.value]
    problems = _twice(node, len(data))
    if not problems:
        values, problems = _read_keys(written, list(data.items()))
        problems += _contradictions(values, dict(written))
    if problems:
        raise ConfigError(path, problems)
    return ManagerConfig(**values)


def load_yaml(path: Path, text: str) -> Any:
    """The value of YAML text, which was read from `path`. Raises ConfigError."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as e:
        raise ConfigError(path, [f"not valid YAML: {' '.join(str(e).split())}"]) from None
    except RecursionError:
        raise ConfigError(path, ["not valid YAML: nested too deeply"]) from None
    except (ValueError, TypeError, KeyError, AttributeError) as e:
        # What its constructors do with a date that is none, digits without end, and the like.
        raise ConfigError(path, [f"not valid YAML: a value cannot be read ({type(e).__name__}: {e})"]) from None


def _twice(top: yaml.MappingNode, number: int) -> list[str]:
    """Keys that are there twice, of which YAML would silently drop one. `number`: how many there are without those."""
    sections = [(f"{key.value}.", node) for key, node in top.value if isinstance(node, yaml.MappingNode)]
    problems = []
    for prefix, node in [("", top), *sections]:
        seen = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                problems.append(f"line {key.start_mark.line + 1}: {prefix}{key.value}: {_TWICE}")
            seen.add(str(key.value))
    if not problems and len(top.value) != number:  # the same key in two ways of writing it
        problems.append(f"line {top.start_mark.line + 1}: a key {_TWICE}")
    return problems


_TWICE = "is there twice; leave one of them out"


def _read_keys(written: list[tuple[str, int]], items: list[tuple[Any, Any]]) -> tuple[dict[str, Any], list[str]]:
    values: dict[str, Any] = {}
    problems = []
    for (name, line), (_, value) in zip(written, items, strict=True):
        if name not in KEYS:
            problems.append(f"line {line}: {name}: unknown key{_nearest(name, KEYS)}")
        elif value is not None:  # `key:` with no value means the default, as in the public package
            try:
                values[name] = KEYS[name](value)
            except _Wrong as e:
                problems += [f"line {line}: {name}: {text}" for text in e.args]
    return values, problems


def _contradictions(values: Mapping[str, Any], lines: Mapping[str, int]) -> list[str]:
    if values.get("high_assurance") and "audit_log_path" not in values:
        line = lines["high_assurance"]
        return [f"line {line}: high_assurance: true needs audit_log_path, the file that has every decision on record"]
    return []


def _nearest(name: str, known: Iterable[str]) -> str:
    if name == "engine":
        return "; the engine of user endpoints belongs in user_config_template.yaml.j2"
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known keys: {', '.join(sorted(known))}"


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value or "\0" in value or not _is_unicode(value):
        raise _Wrong("expected text")
    return value


def _is_unicode(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def _display_name(value: Any) -> str | None:
    # The public package wrote the word None into its profiles for a while.
    return None if value == "None" else _text(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _Wrong("expected true or false")
    return value


def _uuid(value: Any) -> str:
    try:
        return str(uuid.UUID(value))
    except (ValueError, AttributeError, TypeError):
        raise _Wrong(f"expected a UUID, got {value!r:.80}") from None


def _uuids(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise _Wrong("expected a list of UUIDs")
    return tuple(map(_uuid, value))


def _number(least: float) -> Callable[[Any], float]:
    def read(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value < 1e9:
            raise _Wrong(f"expected a number of seconds, at least {least:g}")
        return float(value)

    return read


def _port(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 65536:
        raise _Wrong("expected a port number, 1 to 65535")
    return value


def _path(value: Any) -> Path:
    path = Path(_text(value))
    if not path.is_absolute():
        raise _Wrong("expected an absolute path")
    return path


def _command(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
        raise _Wrong("expected a list: the program's absolute path, then its arguments")
    for item in value:
        _text(item or "-")  # an argument may be empty
    if not value[0].startswith("/"):
        raise _Wrong(f"the program must be an absolute path, got {value[0]!r}")
    return tuple(value)


def _section(make: Callable[..., Any], keys: Mapping[str, Callable[[Any], Any]]) -> Callable[[Any], Any]:
    """Reads a key that has keys of its own; `make` is called with their values."""

    def read(value: Any) -> Any:
        if not isinstance(value, dict):
            raise _Wrong(f"expected keys and values; known keys: {', '.join(sorted(keys))}")
        values, problems = {}, []
        for key, item in value.items():
            if key not in keys:
                problems.append(f"{key}: unknown key{_nearest(str(key), keys)}")
                continue
            try:
                values[key] = keys[key](item)
            except _Wrong as e:
                problems += [f"{key}: {text}" for text in e.args]
        if problems:
            raise _Wrong(*problems)
        return make(**values)

    return read


def _or_none(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else read(value)


def _whole(least: int, why: str = "") -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**32:
            raise _Wrong(f"expected a whole number, at least {least}{why}")
        return value

    return read


def _names(problem: Callable[[str], str | None], least: int = 0) -> Callable[[Any], tuple[str, ...]]:
    """Reads a list of names; `problem` says what is wrong with one. A name that could never match is an error."""

    def read(value: Any) -> tuple[str, ...]:
        if not isinstance(value, list):
            raise _Wrong("expected a list of names; leave the key out if there are none")
        if len(value) < least:
            raise _Wrong("an empty list would keep out everybody; name somebody, or leave the key out")
        for name in value:
            if (isinstance(name, (int, float)) and not isinstance(name, bool)) or str(name).isdecimal():
                raise _Wrong(f"names are meant, not numbers: got {name!r:.80}")
            if not isinstance(name, str):
                raise _Wrong(f"expected names, in quotes where YAML sees something else: got {name!r:.80}")
            if wrong := problem(name):
                raise _Wrong(f"no name, or more than one: {wrong}")
        return tuple(value)

    return read


def _user_problem(name: str) -> str | None:
    """An account of another name is never mapped to, so it need not be denied, and cannot be allowed."""
    return None if name == "root" else account_name.problem(name)


def _group_problem(name: str) -> str | None:
    """Directories have groups with spaces and capital letters in their names; patterns and marks there are none."""
    if _GROUP.fullmatch(name) and name == name.strip() and _is_unicode(name):
        return None
    return f"{shown(name)} is not a group's plain name"


_GROUP = re.compile(r"[^!%+@#-][^\0-\x1f\x7f*?:,/]*")


def _memory(value: Any) -> int:
    number = re.fullmatch(r"([0-9]{1,18})([KMGT]?)", value) if isinstance(value, str) else None
    if number is not None:
        value = int(number[1]) * 1024 ** " KMGT".index(number[2] or " ")
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise _Wrong("expected a size such as 8G (whole numbers with K, M, G, T; powers of 1024), or bytes")
    if value < LEAST_MEMORY:
        raise _Wrong(f"{value} bytes are too little: a user endpoint alone, without tasks, needs more than 64M")
    return value


def _cpu_quota(value: Any) -> float:
    percent = re.fullmatch(r"([0-9]{1,9})%", value) if isinstance(value, str) else None
    if percent is not None:
        value = int(percent[1]) / 100
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value < 1e6:
        raise _Wrong("expected a percentage of one processor, such as 150%, or a number of processors")
    if value < LEAST_CPU:
        raise _Wrong("a tenth of a processor (10%) is the least with which a user endpoint starts in time")
    return float(value)


def _service_name(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_.-]+", value) or not value.strip("."):
        raise _Wrong("expected the name of a file in /etc/pam.d: letters, digits, `_`, `.` and `-`")
    return value


def _pam(**values: Any) -> PamConfig:
    return PamConfig(**{"enable": True, **values})  # who writes the key wants it, as in the public package


_ACCOUNTS: dict[str, Callable[[Any], Any]] = {
    "min_uid": _whole(1),
    "allow_nologin": _flag,
    "allow_users": _names(_user_problem, least=1),
    "deny_users": _names(_user_problem),
    "allow_groups": _names(_group_problem, least=1),
    "deny_groups": _names(_group_problem),
}
_LIMITS: dict[str, Callable[[Any], Any]] = {
    "max_ueps": _or_none(_whole(1)),
    "max_ueps_per_user": _or_none(_whole(1)),
    "starts_per_minute_per_user": _or_none(_whole(1)),
}
_RESOURCES: dict[str, Callable[[Any], Any]] = {
    "memory_max": _or_none(_memory),
    "tasks_max": _or_none(_whole(LEAST_TASKS, ": with fewer processes and threads no user endpoint can start")),
    "cpu_quota": _or_none(_cpu_quota),
}


def _on_stop(value: Any) -> str:
    if value not in ("end", "keep"):
        raise _Wrong("expected `end` or `keep`: what becomes of user endpoints when the manager is stopped")
    return str(value)


KEYS: dict[str, Callable[[Any], Any]] = {
    "display_name": _display_name,
    "email": _text,
    "public": _flag,
    "high_assurance": _flag,
    "allowed_functions": _uuids,
    "authentication_policy": _uuid,
    "subscription_id": _uuid,
    "admins": _uuids,
    "amqp_port": _port,
    "heartbeat_period": _number(1),
    "environment": _text,
    "local_compute_services": _flag,
    "debug": _flag,
    "user_config_template_path": _path,
    "user_config_schema_path": _path,
    "identity_mapping_config_path": _path,
    "audit_log_path": _path,
    "pam": _section(_pam, {"enable": _flag, "service_name": _service_name}),
    "mu_child_ep_grace_period_s": _number(0),
    "accounts": _section(AccountPolicy, _ACCOUNTS),
    "limits": _section(Limits, _LIMITS),
    "resources": _section(Resources, _RESOURCES),
    "uep_command": _command,
    "client_credentials_path": _path,
    "render_account": _text,
    "start_timeout": _number(1),
    "on_stop": _on_stop,
}

RELOADABLE = frozenset(
    {
        "accounts",
        "heartbeat_period",
        "identity_mapping_config_path",
        "limits",
        "mu_child_ep_grace_period_s",
        "on_stop",
        "pam",
        "resources",
        "start_timeout",
        "uep_command",
        "user_config_schema_path",
        "user_config_template_path",
    }
)
"""Keys that a running manager takes over when it reloads its profile. The others need a restart: the service was told
them at the registration, or something was opened or started with them."""


def reloaded(old: ManagerConfig, new: ManagerConfig) -> tuple[ManagerConfig, tuple[str, ...]]:
    """`old` with the reloadable keys of `new`, and the names of the keys whose change waits for a restart."""
    fresh = {key: getattr(new, key) for key in RELOADABLE}
    waiting = tuple(key for key in KEYS if key not in RELOADABLE and getattr(new, key) != getattr(old, key))
    return replace(old, **fresh), waiting
