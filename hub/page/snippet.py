"""Options as text to paste: Python for a script, JSON for a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_INDENT = "    "


def python(endpoint_id: str, options: Mapping[str, Any]) -> str:
    """Writes a program that submits a first task with these options."""
    given = f"    user_endpoint_config={literal(options, 1)},\n" if options else ""
    return (
        "from globus_compute_sdk import Executor\n"
        "\n\n"
        "def hello():\n"
        "    import platform\n\n"
        "    return platform.node()\n"
        "\n\n"
        "with Executor(\n"
        f"    endpoint_id={text_literal(endpoint_id)},\n"
        f"{given}"
        ") as executor:\n"
        "    print(executor.submit(hello).result())\n"
    )


def as_json(options: Mapping[str, Any]) -> str:
    """Writes the options alone."""
    return json.dumps(options, indent=4) + "\n"


def literal(value: Any, depth: int = 0) -> str:
    """Writes a value that was read from JSON as a literal of Python; what is not printable is escaped."""
    if isinstance(value, Mapping) and value:
        inner = [f"{text_literal(key)}: {literal(each, depth + 1)}" for key, each in value.items()]
        return _lines("{", inner, "}", depth)
    if isinstance(value, list) and value:
        if all(not isinstance(each, Mapping | list) for each in value):
            flat = f"[{', '.join(literal(each) for each in value)}]"
            if len(flat) <= 80:
                return flat
        return _lines("[", [literal(each, depth + 1) for each in value], "]", depth)
    return text_literal(value) if isinstance(value, str) else repr(value)


def text_literal(text: str) -> str:
    """Writes a text as a literal with double quotes, as most people write them, where that needs no more escapes."""
    shown = repr(text)
    return f'"{shown[1:-1]}"' if shown[0] == "'" and '"' not in shown and "\\'" not in shown else shown


def _lines(begin: str, inner: list[str], end: str, depth: int) -> str:
    around = _INDENT * depth
    return f"{begin}\n" + "".join(f"{around}{_INDENT}{each},\n" for each in inner) + f"{around}{end}"
