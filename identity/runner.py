"""What runs the programs that external documents name. This package starts no processes: its caller hands a runner in.

await mapper.amap(identity_set, run=run)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class MapperError(Exception):
    """A mapping program failed, or its answer is no answer: the request is refused, and may be tried again.

    The text is for the log: escaped, shortened, without identity records.
    """


class Runner(Protocol):
    """Runs one program under limits, as the account `account`, or as the runner's own for None."""

    async def __call__(self, argv: Sequence[str], stdin: bytes, account: str | None) -> bytes:
        """Returns the standard output of a program that ended well; `argv` begins with its absolute path.

        Raises:
            MapperError: not to be trusted, not startable, failed, too slow, or too much output.
        """
