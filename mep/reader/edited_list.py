"""A list in YAML text with other entries, and all else of the text as it was: comments, order, quotes.

`parsers.list_places`, in a process without rights, says where in the text the list is. Whoever writes the result reads
it once more, and compares: anchors and the like may make it mean something else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mep.reader import apart, parsers


def with_list(path: Path, text: str, key: str, entries: list[str]) -> str:
    """The text, which was read from `path`, with `entries` for `key`: first those that are there, then new ones.

    Raises:
        ConfigError: it is not YAML.
    """
    found = apart.parse(path, parsers.list_places, text, key)
    if found is None:
        lines = "".join(f"  - {entry}\n" for entry in entries)
        return f"{text}{'' if not text or text.endswith(chr(10)) else chr(10)}{key}:\n{lines}"
    return _edited(text, found, entries)


def _edited(text: str, found: dict[str, Any], entries: list[str]) -> str:
    start, end = map(int, found["whole"])
    places = [(int(first), int(last)) for first, last in found["items"]]
    if not places:
        return text[:start] + f" [{', '.join(map(_quoted, entries))}]" + text[end:]
    form, new = (_quoted if found["flow"] else str), entries[len(places) :]
    if new and found["flow"]:
        last = places[-1][1]
        text = text[:last] + "".join(f", {_quoted(entry)}" for entry in new) + text[last:]
    elif new:
        line_end = text.find("\n", places[-1][1])
        line_end = len(text) if line_end < 0 else line_end
        indent = " " * int(found["column"])
        text = text[:line_end] + "".join(f"\n{indent}- {entry}" for entry in new) + text[line_end:]
    for (first, last), entry in reversed(list(zip(places, entries, strict=False))):
        text = text[:first] + form(entry) + text[last:]
    return text


def _quoted(entry: str) -> str:
    return f'"{entry}"'
