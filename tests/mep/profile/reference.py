"""The reference of config.yaml, from the table of its keys. To renew it: `python -m tests.mep.profile.reference`.

tests/mep/profile/test_reference.py holds that docs/configuration.md has exactly this.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from mep.profile.config import ManagerConfig
from mep.profile.keys import Key, declared

DOCUMENT = Path(__file__).parents[3] / "docs" / "configuration.md"
HEAD = "| key | default | meaning |\n|---|---|---|\n"


def table() -> str:
    """The reference as it is to be."""
    return HEAD + "".join(rows(ManagerConfig))


def rows(settings: type, prefix: str = "", in_section: bool = False) -> Iterator[str]:
    """A row for each key; those of a section are reloaded with it."""
    defaults = {each.name: each.default for each in fields(settings) if each.default is not MISSING}
    for name, key in declared(settings).items():
        if isinstance(key, Key):
            mark = " ↻" if key.reload or in_section else ""
            yield f"| `{prefix}{name}`{mark} | {key.default or shown(defaults[name])} | {key.meaning} |\n"
        else:
            yield from rows(key.holds, f"{name}.", key.reload)


def shown(default: Any) -> str:
    """A default that says itself what it is."""
    match default:
        case None:
            return "none"
        case bool():
            return str(default).lower()
        case str():
            return f"`{default}`"
        case _:
            return f"{default:g}"


def documented() -> str:
    """The reference as the document has it."""
    text = DOCUMENT.read_text(encoding="utf-8")
    return text[text.index(HEAD) :].split("\n\n")[0] + "\n"


def renew() -> None:
    """Puts the reference into the document."""
    text = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(text.replace(documented(), table()), encoding="utf-8")


if __name__ == "__main__":
    renew()
