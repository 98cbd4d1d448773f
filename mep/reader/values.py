"""What the keys of config.yaml take: a value as YAML has it -> the value of the field, or `Wrong`.

`READERS` has a function for each kind of value. `config_reader` calls them.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from identity import account_name
from mep.processes.printable import quoted
from mep.profile import functions
from mep.profile.keys import Takes

LEAST_MEMORY = 64 * 2**20
LEAST_LOG = 2**20
MOST_LOGS = 100
LEAST_TASKS = 8
LEAST_CPU = 0.1
"""With less, no user endpoint would come as far as its first heartbeat."""


class Wrong(Exception):
    """A value is not what its key takes; the text says what it takes. Several texts: of a key with keys of its own."""


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value or "\0" in value or not _is_unicode(value):
        raise Wrong("expected text")
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
    near = _FLAGS.get(str(value).lower()) if isinstance(value, (bool, int, str)) else None
    if near is None:
        raise Wrong("expected true or false")
    return near


_FLAGS = {
    **dict.fromkeys(("true", "yes", "y", "on", "t", "1"), True),
    **dict.fromkeys(("false", "no", "n", "off", "f", "0"), False),
}
"""What the public package takes for a flag, in quotes or not."""


def _number(value: Any) -> Any:
    """A number that is written as text, as the public package takes it; anything else as it is."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value) if "." in value else int(value)
    return value


_NUMBER = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18})?")


def _integer(value: Any) -> int | None:
    """A whole number, also as text or as `443.0`; None for anything else."""
    value = _number(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _uuid(value: Any) -> str:
    try:
        return str(uuid.UUID(value))
    except (ValueError, AttributeError, TypeError):
        raise Wrong(f"expected a UUID, got {value!r:.80}") from None


def _uuids(value: Any) -> tuple[str, ...]:
    if value == "":
        return ()
    if not isinstance(value, list):
        raise Wrong("expected a list of UUIDs")
    return tuple(map(_uuid, value))


def _functions(value: Any) -> tuple[str, ...]:
    if value == "":
        return ()
    if not isinstance(value, list):
        raise Wrong("expected a list of UUIDs, each perhaps with the hash of its code: UUID@sha256:HEX")
    entries = tuple(map(_function, value))
    plain = [entry for entry in entries if functions.MARK not in entry]
    if 0 < len(plain) < len(entries):
        raise Wrong(
            f"some functions are pinned (UUID@sha256:HEX), and these are not: {', '.join(plain)}; the service can have"
            " any code run under their ids, so pin them, too: mep functions pin"
        )
    if not plain and len(functions.pins(entries)) < len(entries):
        raise Wrong("a function is there twice; leave one of them out")
    return entries


def _function(value: Any) -> str:
    """As `mep.profile.functions` has it."""
    name, mark, digest = str(value).partition(functions.MARK)
    if mark and not functions.SHA256.fullmatch(digest.lower()):
        raise Wrong(f"expected UUID@sha256: and 64 hexadecimal digits, got {value!r:.120}")
    return f"{_uuid(name)}{mark}{digest.lower()}" if isinstance(value, str) else _uuid(value)


def _seconds(least: float, as_it_is: bool = False) -> Callable[[Any], float]:
    """as_it_is: 30 stays 30, as the public package has it in templates and heartbeats; else it is 30.0."""

    def read(value: Any) -> float:
        number = _number(value)
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not least <= number < 1e9:
            raise Wrong(f"expected a number of seconds, at least {least:g}")
        return number if as_it_is and not isinstance(value, str) else float(number)

    return read


def _port(value: Any) -> int:
    port = _integer(value)
    if port is None or not 0 < port < 65536:
        raise Wrong("expected a port number, 1 to 65535")
    return port


def _path(value: Any) -> Path:
    text = _text(value)
    if text.startswith("~"):
        raise Wrong("nothing expands ~; write the path from / on, or from the profile's folder on")
    return Path(text)


def _command(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
        raise Wrong("expected a list: the program's absolute path, then its arguments")
    for item in value:
        _text(item or "-")  # an argument may be empty
    if not value[0].startswith("/"):
        raise Wrong(f"the program must be an absolute path, got {value[0]!r}")
    return tuple(value)


def _or_none(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else read(value)


def _whole(least: int, why: str = "") -> Callable[[Any], int]:
    def read(value: Any) -> int:
        number = _integer(value)
        if number is None or not least <= number < 2**32:
            raise Wrong(f"expected a whole number, at least {least}{why}")
        return number

    return read


def _names(problem: Callable[[str], str | None], least: int = 0) -> Callable[[Any], tuple[str, ...]]:
    """Reads a list of names; `problem` says what is wrong with one. A name that could never match is an error."""

    def read(value: Any) -> tuple[str, ...]:
        if not isinstance(value, list):
            raise Wrong("expected a list of names; leave the key out if there are none")
        if len(value) < least:
            raise Wrong("an empty list would keep out everybody; name somebody, or leave the key out")
        for name in value:
            if (isinstance(name, (int, float)) and not isinstance(name, bool)) or str(name).isdecimal():
                raise Wrong(f"names are meant, not numbers: got {name!r:.80}")
            if not isinstance(name, str):
                raise Wrong(f"expected names, in quotes where YAML sees something else: got {name!r:.80}")
            if wrong := problem(name):
                raise Wrong(f"no name, or more than one: {wrong}")
        return tuple(value)

    return read


def _account_name(value: Any) -> str:
    if wrong := account_name.problem(_text(value), directory_names=True):
        raise Wrong(f"not the name of an account: {wrong}")
    return str(value)


def _user_problem(name: str) -> str | None:
    """An account of another name is never mapped to, so it need not be denied, and cannot be allowed."""
    return None if name == "root" else account_name.problem(name, directory_names=True)


def _group_problem(name: str) -> str | None:
    """Directories have groups with spaces and capital letters in their names; patterns and marks there are none."""
    if _GROUP.fullmatch(name) and name == name.strip() and _is_unicode(name):
        return None
    return f"{quoted(name)} is not a group's plain name"


_GROUP = re.compile(r"[^!%+@#-][^\0-\x1f\x7f*?:,/]*")


def _size(value: Any) -> int:
    number = re.fullmatch(r"([0-9]{1,18})([KMGT]?)", value) if isinstance(value, str) else None
    if number is not None:
        value = int(number[1]) * 1024 ** " KMGT".index(number[2] or " ")
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise Wrong("expected a size such as 8G (whole numbers with K, M, G, T; powers of 1024), or bytes")
    return value


def _memory(value: Any) -> int:
    size = _size(value)
    if size < LEAST_MEMORY:
        raise Wrong(f"{size} bytes are too little: a user endpoint alone, without tasks, needs more than 64M")
    return size


def _log_size(value: Any) -> int:
    size = _size(value)
    if size < LEAST_LOG:
        raise Wrong(f"{size} bytes are too little to find anything in; the least is 1M")
    return size


def _log_keep(value: Any) -> int:
    number = _integer(value)
    if number is None or not 0 <= number <= MOST_LOGS:
        raise Wrong(f"expected a whole number, 0 to {MOST_LOGS}")
    return number


def _cpu_quota(value: Any) -> float:
    percent = re.fullmatch(r"([0-9]{1,9})%", value) if isinstance(value, str) else None
    if percent is not None:
        value = int(percent[1]) / 100
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value < 1e6:
        raise Wrong("expected a percentage of one processor, such as 150%, or a number of processors")
    if value < LEAST_CPU:
        raise Wrong("a tenth of a processor (10%) is the least with which a user endpoint starts in time")
    return float(value)


def _service_name(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_.-]+", value) or not value.strip("."):
        raise Wrong("expected the name of a file in /etc/pam.d: letters, digits, `_`, `.` and `-`")
    return value


def _either(*values: str, what: str = "") -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in values:
            *others, last = (f"`{each}`" for each in values)
            raise Wrong(f"expected {', '.join(others)} or {last}{what}")
        return str(value)

    return read


def _umask(value: Any) -> int:
    if not isinstance(value, str) or not re.fullmatch("0?0[0-7][0-7]", value):
        raise Wrong('expected three octal digits in quotes, the first of them 0, for example "027"')
    return int(value, 8)


READERS: Mapping[Takes, Callable[[Any], Any]] = {
    Takes.TEXT: _text,
    Takes.DISPLAY_NAME: _display_name,
    Takes.FLAG: _flag,
    Takes.UUID: _uuid,
    Takes.UUIDS: _uuids,
    Takes.FUNCTIONS: _functions,
    Takes.PERIOD: _seconds(1, as_it_is=True),
    Takes.GRACE_PERIOD: _seconds(0),
    Takes.PORT: _port,
    Takes.PATH: _path,
    Takes.COMMAND: _command,
    Takes.UID: _whole(1),
    Takes.ACCOUNT: _account_name,
    Takes.ALLOWED_USERS: _names(_user_problem, least=1),
    Takes.DENIED_USERS: _names(_user_problem),
    Takes.ALLOWED_GROUPS: _names(_group_problem, least=1),
    Takes.DENIED_GROUPS: _names(_group_problem),
    Takes.LIMIT: _or_none(_whole(1)),
    Takes.MEMORY: _or_none(_memory),
    Takes.TASKS: _or_none(_whole(LEAST_TASKS, ": with fewer processes and threads no user endpoint can start")),
    Takes.CPU_QUOTA: _or_none(_cpu_quota),
    Takes.PAM_SERVICE: _service_name,
    Takes.ON_STOP: _either("end", "keep", what=": what becomes of user endpoints when the manager is stopped"),
    Takes.UNKNOWN_OPTIONS: _either("refuse", "warn", "ignore"),
    Takes.LOG_FORMAT: _either("text", "json"),
    Takes.LOG_SIZE: _log_size,
    Takes.LOG_KEEP: _log_keep,
    Takes.UMASK: _or_none(_umask),
}
"""Each returns the value, or raises Wrong."""
