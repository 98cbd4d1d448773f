"""`config.yaml` of a profile -> `ManagerConfig`. Every key of the public package's manager is known, and ours.

The file is checked as a whole: `ConfigError` lists every problem with its line. `KEYS` is the whole reference; add a
key there and a field of the same name to `ManagerConfig`.
"""

from __future__ import annotations

import difflib
import sys
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from mep.admission import AccountPolicy


class ConfigError(Exception):
    """A file of the profile cannot be used. The text names the file, every problem in it, and the remedy."""

    def __init__(self, path: Path, problems: list[str]) -> None:
        super().__init__("\n".join(f"{path}: {problem}" for problem in problems))


class ConfigErrors(ConfigError):
    """Several files are wrong; `texts` are those of their errors."""

    def __init__(self, texts: list[str]) -> None:
        Exception.__init__(self, "\n".join(texts))


@dataclass(frozen=True)
class ManagerConfig:
    """The keys of config.yaml, with the public package's names, meanings and defaults where it has them.

    heartbeat_period, mu_child_ep_grace_period_s, start_timeout: seconds.
    uep_command: program and first arguments of a user endpoint; its name is added as the last argument.
    client_credentials_path: a file with `client_id` and `client_secret`, for registering without a login.
    start_timeout: how long a user endpoint may take from its start to its first heartbeat.
    on_stop: whether a manager that is stopped ends its user endpoints ("end"), or leaves them to the next one ("keep").
    """

    display_name: str | None = None
    email: str | None = None
    public: bool = False
    high_assurance: bool = False
    allowed_functions: tuple[str, ...] | None = None
    authentication_policy: str | None = None
    subscription_id: str | None = None
    admins: tuple[str, ...] | None = None
    amqp_port: int | None = None
    heartbeat_period: float = 30.0
    environment: str | None = None
    local_compute_services: bool = False
    debug: bool = False
    user_config_template_path: Path | None = None
    user_config_schema_path: Path | None = None
    identity_mapping_config_path: Path | None = None
    audit_log_path: Path | None = None
    pam: Mapping[str, Any] = field(default_factory=dict)
    mu_child_ep_grace_period_s: float = 30.0
    accounts: AccountPolicy = field(default_factory=AccountPolicy)
    uep_command: tuple[str, ...] = (str(Path(sys.executable).parent / "mep-uep"),)
    client_credentials_path: Path | None = None
    render_account: str = "nobody"
    start_timeout: float = 60.0
    on_stop: str = "end"


class _Wrong(Exception):
    """A value is not what its key takes; the text says what it takes."""


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
    values, problems = _read_keys(_key_lines(text), list(data.items()))
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


def _key_lines(text: str) -> list[tuple[str, int]]:
    """The keys of a mapping as they are written, each with its line."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(node, yaml.MappingNode)
    return [(str(key.value), key.start_mark.line + 1) for key, _ in node.value]


def _read_keys(written: list[tuple[str, int]], items: list[tuple[Any, Any]]) -> tuple[dict[str, Any], list[str]]:
    values: dict[str, Any] = {}
    twice = [(key, line) for place, (key, line) in enumerate(written) if key in dict(written[:place])]
    if twice or len(written) != len(items):
        return {}, [f"line {line}: {key}: is there twice; leave one of them out" for key, line in twice or written[:1]]
    problems = []
    for (name, line), (_, value) in zip(written, items, strict=True):
        if name not in KEYS:
            problems.append(f"line {line}: {name}: unknown key{_nearest(name)}")
        elif value is not None:  # `key:` with no value means the default, as in the public package
            try:
                values[name] = KEYS[name](value)
            except _Wrong as e:
                problems.append(f"line {line}: {name}: {e}")
    return values, problems


def _nearest(name: str) -> str:
    if name == "engine":
        return "; the engine of user endpoints belongs in user_config_template.yaml.j2"
    near = difflib.get_close_matches(name, KEYS, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known keys: {', '.join(sorted(KEYS))}"


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


def _high_assurance(value: Any) -> bool:
    if _flag(value):
        raise _Wrong("high-assurance endpoints are not supported by this version")
    return False


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


def _pam(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) - {"enable", "service_name"}:
        raise _Wrong("expected `enable` and `service_name`")
    if value.get("enable", True) is not False:
        raise _Wrong("PAM sessions are not supported by this version; set `enable: false`")
    return value


def _accounts(value: Any) -> AccountPolicy:
    known = {f.name for f in fields(AccountPolicy)}
    if not isinstance(value, dict) or set(value) - known:
        raise _Wrong(f"expected the keys {', '.join(sorted(known))}")
    min_uid = value.get("min_uid", AccountPolicy.min_uid)
    if isinstance(min_uid, bool) or not isinstance(min_uid, int) or min_uid < 1:
        raise _Wrong("min_uid: expected a whole number, at least 1")
    return AccountPolicy(min_uid, _flag(value.get("allow_nologin", AccountPolicy.allow_nologin)))


def _on_stop(value: Any) -> str:
    if value not in ("end", "keep"):
        raise _Wrong("expected `end` or `keep`: what becomes of user endpoints when the manager is stopped")
    return str(value)


KEYS: dict[str, Callable[[Any], Any]] = {
    "display_name": _display_name,
    "email": _text,
    "public": _flag,
    "high_assurance": _high_assurance,
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
    "pam": _pam,
    "mu_child_ep_grace_period_s": _number(0),
    "accounts": _accounts,
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
        "mu_child_ep_grace_period_s",
        "on_stop",
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
