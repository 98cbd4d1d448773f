"""Tables for a terminal: as wide as it is, no wider. Into a pipe everything is written in full."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import typer

_GAP = "  "
_CUT = "…"


@dataclass(frozen=True)
class Column:
    """least: letters that it may be cut to; None: it is never cut. leaves: the order in which columns are left out when
    cutting would not be enough, from 1 on; 0: never."""

    title: str
    least: int | None = None
    leaves: int = 0
    right: bool = False


def width() -> int | None:
    """The columns of the terminal; None when the output goes elsewhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def coloured(text: str, colour: str) -> str:
    """The text in this colour ("" for none) on a terminal that wants colours (https://no-color.org); else as it is."""
    wanted = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return typer.style(text, fg=colour) if colour and wanted else text


def lines(columns: Sequence[Column], rows: Sequence[Sequence[str]], most: int | None) -> list[str]:
    """The table, with a line of titles; none of them longer than `most`."""
    cells = [[column.title for column in columns], *rows]
    widths = {n: max(len(row[n]) for row in cells) for n in range(len(columns))}
    least = {n: min(column.least or widths[n], widths[n]) for n, column in enumerate(columns)}
    for n in sorted((n for n in widths if columns[n].leaves), key=lambda n: columns[n].leaves):
        if most is not None and _total({each: least[each] for each in widths}) > most:
            del widths[n]
    for n in _cut_first(columns, widths):
        if most is not None and (over := _total(widths) - most) > 0:
            widths[n] = max(least[n], widths[n] - over)
    made = [_GAP.join(_fitted(row[n], widths[n], columns[n].right) for n in sorted(widths)).rstrip() for row in cells]
    return made if most is None else [line[:most] for line in made]


def _cut_first(columns: Sequence[Column], left: Iterable[int]) -> list[int]:
    """The columns that are left, in the order in which they are cut: those first that would leave first."""
    return sorted(left, key=lambda n: columns[n].leaves or len(columns) + n)


def _total(widths: dict[int, int]) -> int:
    return sum(widths.values()) + len(_GAP) * (len(widths) - 1)


def _fitted(text: str, size: int, right: bool) -> str:
    text = text if len(text) <= size else text[: max(0, size - 1)] + _CUT
    return text.rjust(size) if right else text.ljust(size)
