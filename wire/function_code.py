"""The parts of a task as the SDK packs them, and the hash by which a site pins a function.

A service stores of a function, as `function_code`, one part; a task's buffer is that part and two more, the packed
arguments. A part is its length in characters, a line feed, and so many characters: a line that names the strategy by
which it was serialized (`11` is JSON), and what that strategy made. Nothing is deserialized here.
"""

from __future__ import annotations

import hashlib
import re

_LENGTH = re.compile(r"(0|[1-9][0-9]{0,9})\n", re.ASCII)


class NotPacked(ValueError):
    """The text is not made of such parts; the text of the error says what is wrong."""


def split(packed: str) -> list[str]:
    """The parts of `packed`, without their lengths.

    Takes lengths in one form only, so that whoever reads the text more leniently finds the same parts.

    Raises:
        NotPacked: it is something else.
    """
    parts, place = [], 0
    while place < len(packed):
        length = _LENGTH.match(packed, place)
        if length is None:
            raise NotPacked(f"no length at character {place}")
        place = length.end() + int(length[1])
        if place > len(packed):
            raise NotPacked("the last part is cut off")
        parts.append(packed[length.end() : place])
    return parts


def join(parts: list[str]) -> str:
    """Packs the parts; the opposite of `split`."""
    return "".join(f"{len(part)}\n{part}" for part in parts)


def sha256(part: str) -> str:
    """The SHA-256 of a part in UTF-8, in lower case hexadecimal digits: what a site pins.

    Raises:
        NotPacked: it has no form in UTF-8.
    """
    try:
        return hashlib.sha256(part.encode()).hexdigest()
    except UnicodeEncodeError:
        raise NotPacked("it holds a lone surrogate, which is no character") from None
