"""Shows the code of a function that the service has, for `mep functions pin`, and its hash. Runs nothing of it.

What the service says may be anything. It is taken apart in a process without rights (`forked.ask_and_wait`): pickles
are read without what could be called from them, and what comes back is one text, whose characters all print.
"""

from __future__ import annotations

import base64
import functools
import io
import json
import os
import pickle
import pickletools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from mep.daemon.failed import Failed
from mep.processes import forked
from mep.processes.printable import escaped
from wire import function_code

WITHIN = 20.0
"""Seconds to take one apart."""
MOST = 4 * 2**20
"""Bytes of what is shown."""
LONGEST = 10_000
"""Lines that are shown of a function."""
_AS_TEXT = "globus_compute_sdk.Client(code_serialization_strategy=PureSourceTextInspect())"
_BYTECODE = (
    f"It came as bytecode, which cannot be shown as it was written. To pin what can be read, register it as text, with"
    f" {_AS_TEXT}. The names and texts in it:"
)


@dataclass(frozen=True)
class Shown:
    """text: for the admin's terminal."""

    sha256: str
    text: str


def shown(function: Mapping[str, Any] | None, function_id: str) -> Shown:
    """What the service says of a function. Raises Failed: it has none of this id, or none that can be pinned."""
    if function is None:
        raise Failed(os.EX_DATAERR, f"the service knows no function {function_id}")
    code = function.get("function_code")
    if not isinstance(code, str) or function.get("serialized") is False:
        text = "is not kept as the SDK packs it; register it with the SDK's register_function"
        raise Failed(os.EX_DATAERR, f"function {function_id} {text}")
    try:
        said = json.loads(forked.ask_and_wait(functools.partial(_taken_apart, code), WITHIN, MOST))
        digest, lines = str(said["sha256"]), [escaped(str(line)) for line in said["lines"]]
    except (OSError, ValueError, TypeError, KeyError):
        raise Failed(os.EX_DATAERR, f"the code of function {function_id} cannot be taken apart") from None
    if not digest:
        raise Failed(os.EX_DATAERR, f"the code of function {function_id} is not packed as the SDK does: {lines[0]}")
    name = escaped(str(function.get("function_name"))[:200])
    heading = f"Function {function_id}, {name!r}, SHA-256 {digest}:"
    return Shown(digest, "\n".join([heading, "", *(f"    {line}" for line in lines)]))


def _taken_apart(code: str) -> bytes:
    """In the process without rights."""
    try:
        parts = function_code.split(code)
        digest, problem = function_code.sha256(parts[0]), f"{len(parts)} parts instead of one"
    except (function_code.NotPacked, IndexError) as e:
        parts, digest, problem = [], "", str(e)
    if len(parts) != 1:
        return json.dumps({"sha256": "", "lines": [problem]}).encode()
    lines = _lines(*parts[0].partition("\n")[::2])
    if len(lines) > LONGEST:
        lines = [*lines[:LONGEST], f"[... {len(lines) - LONGEST} lines more]"]
    return json.dumps({"sha256": digest, "lines": lines}).encode()


def _lines(strategy: str, body: str) -> list[str]:
    try:
        if strategy in ("st", "sd"):
            name, _, source = body.partition(":")
            return _source(name, source)
        if strategy in ("03", "04"):
            name, source = _Plain(io.BytesIO(base64.b64decode(body))).load()
            return _source(str(name), str(source))
        if strategy == "01":
            operations = pickletools.genops(base64.b64decode(body))
            texts = [argument for _, argument, _ in operations if isinstance(argument, str)]
            return [_BYTECODE, "", *(each for text in texts for each in text.splitlines())]
    except Exception as e:  # noqa: BLE001 - whatever is wrong with what strangers have made
        return [f"It cannot be shown: {type(e).__name__}: {e}"]
    return [f"It came in the form {strategy[:20]!r}, which cannot be shown; register it as text, with {_AS_TEXT}"]


def _source(name: str, source: str) -> list[str]:
    """The text, and which of the names in it is called."""
    return [f"# {name} of this text is called:", *source.splitlines()]


class _Plain(pickle.Unpickler):
    """Reads texts, numbers and what holds them; nothing that would have to be imported or called."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"there is more than text in it: {module}.{name}")
