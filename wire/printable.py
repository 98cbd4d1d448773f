"""Text from strangers, made fit for logs and for people: bounded, on one line, nothing in it that steers a terminal."""

from __future__ import annotations


def printable(text: str, longest: int) -> str:
    """Returns at most `longest` characters of `text`, each printable or written as in a literal of Python.

    Line breaks, escape sequences, marks that turn the direction of writing, and lone surrogates, which no log can hold,
    are thus shown instead of obeyed.
    """
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:longest])
    return shown[:longest]
