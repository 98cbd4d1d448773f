"""What the monitor and the mapper say to each other, over a `Channel`. What the mapper says is read as a stranger's.

to the mapper    DOCUMENTS  n {source, endpoint_id}, file: text; n: the number of these documents from now on. The
                            mapper keeps the newest KEPT.
                 MAP        n {documents, requester, programs, directory_names}, files: identity set, banned identities;
                            n: the number of the request; documents: theirs; programs: whether it may want mapping
                            programs asked; directory_names: whether names may be as only directories have them
                 RAN        n, file: what the program has written, after RUN
                 NOT_RAN    n {why}
from the mapper  READY      once, before everything else
                 RUN        n {program}, file: the question, not much longer than the identity set; program: its number
                            among those that the documents name
                 MAPPED     n, file: whom the request is mapped to
                 NOBODY     n {why}
                 BANNED     n {banned}: it has this one of the banned identities, by its number
                 FAILED     n {why}: there is no answer now

A request is *asked* from MAP or RAN or NOT_RAN on, and *runs* from RUN on:

                 asked                                 runs
from the mapper  RUN, as often as there are programs;  nothing
                 MAPPED, NOBODY, BANNED or FAILED,
                 its end
to the mapper    nothing                               RAN, NOT_RAN
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import json
import re
from collections.abc import Callable
from typing import Any

from identity import account_name
from mep.processes.message import Limits
from mep.processes.printable import escaped
from mep.request.mapped_identity import MappedIdentity

KEPT = 2
"""Documents that a mapper keeps: those in force, and those before them, by which requests may still be decided."""
MOST_DOCUMENTS = 4 * 2**20
"""Bytes of documents: as many characters as `identity` takes, each of the widest."""
MOST_IDENTITIES = 2**20
"""Bytes of an identity set, as JSON."""
MOST_BANNED = 256 * 2**10
"""Bytes of the banned identities, as JSON."""
MOST_QUESTION = 2 * MOST_IDENTITIES
MOST_OUTPUT = 64 * 2**10
"""Bytes that a mapping program may write."""
MOST_ANSWER = 256 * 2**10
MOST_REQUESTER = 100
"""Characters of a requester that are passed on: what is longer is no identity, and need not be told in full."""
MOST_RULE = 2000
"""Characters of a rule, for log and audit trail."""


class ToMapper(enum.IntEnum):
    """Kinds of messages to the mapper."""

    DOCUMENTS = 1
    MAP = 2
    RAN = 3
    NOT_RAN = 4


class FromMapper(enum.IntEnum):
    """Kinds of messages from the mapper."""

    READY = 101
    RUN = 102
    MAPPED = 103
    NOBODY = 104
    FAILED = 105
    BANNED = 106


FILES_TO_MAPPER: Limits = {
    ToMapper.DOCUMENTS: [MOST_DOCUMENTS],
    ToMapper.MAP: [MOST_IDENTITIES, MOST_BANNED],
    ToMapper.RAN: [MOST_OUTPUT],
}
FILES_FROM_MAPPER: Limits = {FromMapper.RUN: [MOST_QUESTION], FromMapper.MAPPED: [MOST_ANSWER]}
"""The messages that come with a file, and its greatest size."""


def write_mapped(identity: MappedIdentity) -> bytes:
    """The file of MAPPED; too long for it when there are very many documents."""
    return json.dumps({**dataclasses.asdict(identity), "rule": identity.rule[:MOST_RULE]}).encode()


def read_mapped(data: bytes, *, directory_names: bool) -> MappedIdentity:
    """Whom the file of MAPPED names. directory_names: as the mapper was told. Raises ValueError, TypeError."""
    said = json.loads(data)
    if not isinstance(said, dict) or set(said) != set(MappedIdentity.__dataclass_fields__):
        raise ValueError("no mapped identity")
    rule = escaped(_text(said["rule"]))[:MOST_RULE]
    name = functools.partial(_name, directory_names=directory_names)
    candidates = [[_candidate(each, name) for each in _list(document)] for document in _list(said["candidates"])]
    return MappedIdentity(name(said["username"]), _identity(said["identity"]), rule, candidates)


def read_text(said: object) -> str:
    """A text of a body. Raises ValueError."""
    return escaped(_text(said))


_IDENTITY = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def _candidate(said: object, name: Callable[[object], str]) -> dict[str, list[str]]:
    if not isinstance(said, dict):
        raise ValueError("a candidate is no object")  # noqa: TRY004 - a type is a value here
    return {_identity(identity): list(map(name, _list(names))) for identity, names in said.items()}


def _list(said: object) -> list[Any]:
    if not isinstance(said, list):
        raise ValueError("no list")  # noqa: TRY004 - as above
    return said


def _text(said: object) -> str:
    if not isinstance(said, str):
        raise ValueError("no text")  # noqa: TRY004 - as above
    return said


def _name(said: object, *, directory_names: bool) -> str:
    name = _text(said)
    if account_name.problem(name, directory_names=directory_names) is not None:
        raise ValueError("not the name of an account")
    return name


def _identity(said: object) -> str:
    identity = _text(said)
    if not _IDENTITY.fullmatch(identity):
        raise ValueError("not an identity")
    return identity
