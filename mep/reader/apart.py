"""Runs a parser in a process without rights, of which only plain values come back.

The manager is root for months. What reads YAML, templates and schemas is large, and others'; it is loaded only there.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mep.processes import forked
from mep.processes.forked import ChildLost
from mep.processes.printable import escaped
from mep.profile.errors import ConfigError
from mep.reader import plain
from mep.reader.parsers import Unreadable

WITHIN = 60.0
"""Seconds for one text: the library has to be loaded, maybe over a network."""
MOST = 16 * 2**20
"""Bytes of an answer."""


def parse(path: Path, parser: Callable[..., Any], *arguments: Any) -> Any:
    """What a function of `parsers` returns for a text that was read from `path`.

    Raises:
        ConfigError: the text is not what it must be, or could not be parsed.
    """
    try:
        said = json.loads(forked.ask_and_wait(functools.partial(_do, parser, arguments), WITHIN, MOST))
        problems = [escaped(str(each)) for each in said["problems"]]
        answer = plain.value(said["answer"])
    except ChildLost as e:
        raise ConfigError(path, [f"cannot be parsed: {e}; is it very large, or very deep?"]) from None
    except OSError as e:
        raise ConfigError(path, [f"cannot be parsed: {e.strerror}"]) from None
    except (ValueError, TypeError, KeyError, RecursionError):
        raise senseless(path) from None
    if problems:
        raise ConfigError(path, problems)
    return answer


def senseless(path: Path) -> ConfigError:
    """The answer for a text that was read from `path` is none."""
    return ConfigError(path, ["cannot be parsed: the process that was to do it makes no sense"])


def _do(parser: Callable[..., Any], arguments: tuple[Any, ...]) -> bytes:
    try:
        said = {"problems": [], "answer": plain.plain(parser(*arguments))}
    except Unreadable as e:
        said = {"problems": list(e.args), "answer": None}
    except (ImportError, RecursionError, MemoryError) as e:
        said = {"problems": [f"cannot be parsed: {type(e).__name__}: {e}"], "answer": None}
    return json.dumps(said).encode()
