"""What the monitor and the worker say to each other, over a `Channel`. What the worker says is read as a stranger's.

to the worker    BEGIN          {endpoint_id, amqp_port, debug, status, readers}, file: addresses
                                status: whether descriptor 3 is the socket of `status_protocol`; readers: the group
                                whose members may ask there, or nothing
                 PROBE          n: asks whether the broker can be reached
                 PERIOD         {period}: seconds between two heartbeats
                 CONSUME        takes commands and sends heartbeats from now on
                 DONE           n: the command with that number has come to its end; it is acknowledged
                 GIVEN_BACK     n: it has not; it comes again to the next manager
                 NOTICE         n {request_id, again, key}, files: credentials, text
                 SEAL           n {key, to, ending}, file: credentials, to be sealed with the key `to`
                 OPEN           n {key}, file: credentials
                 ADDRESSES      file: addresses, after RENEW
                 NOT_NOW        {why}: there are none yet
                 FINISH         n {timeout, goodbye}: takes no more commands; goodbye: tells the service that the
                                manager goes for good
                 CLOSE          n {timeout}: returns when the last heartbeat has been sent
                 FACTS          file: how the manager is now, JSON; after STATUS
                 EVENT          {event, request, ...}: a decision as in the audit trail, its texts cut
from the worker  ALIVE          every PULSE seconds
                 PROBED         n {error}: nothing, or why not
                 CONNECTED, NOT_CONNECTED {why}
                 SHARED         {others}: how many other instances of the endpoint take commands, too
                 START          n, files: the command as `StartEndpoint`, its credentials
                 REJECT         n, files: {refusal, request_id}, credentials or nothing: a message that is no command
                 NOTICED        n {delivered}
                 SEALED         n, file: what a user endpoint reads from its credential file
                 OPENED         n, file: the credentials as JSON
                 NOT_SEALED     n {why}: neither
                 RENEW          the broker does not want the manager
                 FINISHED, CLOSED n
                 STATUS         somebody asks how the manager is
                 LOG            {level, name, text}

Credentials are JSON, or sealed: then there is their key. What answers has the number of its question. The monitor makes
the numbers of its questions, and the worker those of commands.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import re
from collections.abc import Mapping, Set
from typing import Any

from mep.processes.message import Limits
from mep.processes.printable import escaped
from mep.processes.status_protocol import MOST_FACTS
from mep.request.credentials import Credentials, Unread
from mep.request.refusal import Refusal
from mep.request.start_endpoint import MAX_REQUESTER, NAME, StartEndpoint

PULSE = 2.0
"""Seconds between two signs of life."""
MOST_COMMAND = 8 * 2**20
"""Bytes of a command, written as JSON of plain ASCII; `worker.commands` refuses what would be longer part by part."""
MOST_CREDENTIALS = 256 * 2**10
"""Bytes of credentials, sealed or not; `worker.commands` takes a quarter of it."""
MOST_NOTICE = 64 * 2**10
"""Bytes of a notice's text."""
MOST_ADDRESSES = 64 * 2**10
MOST_COMMANDS = 10_000
"""Commands under way, of several workers that were lost one after the other; one holds 2000 (`worker.consumer`)."""


class ToWorker(enum.IntEnum):
    """Kinds of messages to the worker."""

    BEGIN = 1
    PROBE = 2
    CONSUME = 3
    PERIOD = 4
    DONE = 5
    GIVEN_BACK = 6
    NOTICE = 7
    ADDRESSES = 8
    NOT_NOW = 9
    FINISH = 10
    CLOSE = 11
    FACTS = 12
    SEAL = 13
    OPEN = 14
    EVENT = 15


class FromWorker(enum.IntEnum):
    """Kinds of messages from the worker."""

    ALIVE = 101
    PROBED = 102
    CONNECTED = 103
    NOT_CONNECTED = 104
    START = 105
    REJECT = 106
    NOTICED = 107
    RENEW = 108
    FINISHED = 109
    CLOSED = 110
    LOG = 111
    STATUS = 112
    SEALED = 113
    OPENED = 114
    NOT_SEALED = 115
    SHARED = 116


FILES_TO_WORKER: Limits = {
    ToWorker.BEGIN: [MOST_ADDRESSES],
    ToWorker.ADDRESSES: [MOST_ADDRESSES],
    ToWorker.NOTICE: [MOST_CREDENTIALS, MOST_NOTICE],
    ToWorker.FACTS: [MOST_FACTS],
    ToWorker.SEAL: [MOST_CREDENTIALS],
    ToWorker.OPEN: [MOST_CREDENTIALS],
}
FILES_FROM_WORKER: Limits = {
    FromWorker.START: [MOST_COMMAND, MOST_CREDENTIALS],
    FromWorker.REJECT: [MOST_COMMAND, MOST_CREDENTIALS],
    FromWorker.SEALED: [MOST_CREDENTIALS],
    FromWorker.OPENED: [MOST_CREDENTIALS],
}
"""The messages that come with files, and their greatest sizes."""

ANSWERS: Mapping[FromWorker, Set[ToWorker]] = {
    FromWorker.PROBED: {ToWorker.PROBE},
    FromWorker.NOTICED: {ToWorker.NOTICE},
    FromWorker.SEALED: {ToWorker.SEAL},
    FromWorker.OPENED: {ToWorker.OPEN},
    FromWorker.NOT_SEALED: {ToWorker.SEAL, ToWorker.OPEN},
    FromWorker.FINISHED: {ToWorker.FINISH},
    FromWorker.CLOSED: {ToWorker.CLOSE},
}
"""What may be said only as an answer, and once: to which question."""
CONSUMING = frozenset(
    {
        FromWorker.CONNECTED,
        FromWorker.NOT_CONNECTED,
        FromWorker.SHARED,
        FromWorker.START,
        FromWorker.REJECT,
        FromWorker.RENEW,
    }
)
"""What may be said only after CONSUME. ALIVE and LOG may come at any time."""


def write_command(command: StartEndpoint) -> bytes:
    """The first file of START."""
    return json.dumps({field: getattr(command, field) for field in _FIELDS}).encode()


def read_command(data: bytes, credentials: Unread) -> StartEndpoint:
    """The command in the files of START. Raises ValueError unless it is one."""
    said = _object(data)
    if set(said) != set(_FIELDS):
        raise ValueError("a command lacks fields, or has others")
    for field, form in _FORMS.items():
        if not isinstance(said[field], str) or not form.fullmatch(said[field]):
            raise ValueError(f"{field} is not of its form")
    return StartEndpoint(**said, credentials=Credentials(credentials))


def write_rejection(refusal: Refusal, request_id: str) -> bytes:
    """The first file of REJECT."""
    texts = (refusal.reason_for_admin, refusal.reason_for_user)
    return json.dumps({"texts": texts, "stage": refusal.stage, "id": request_id}).encode()


def read_rejection(data: bytes) -> tuple[Refusal, str]:
    """The refusal in the first file of REJECT, and its request's id. Raises ValueError, TypeError, KeyError."""
    said = _object(data)
    admin, user = (escaped(_text(text)) for text in said["texts"])
    request_id = _text(said["id"])
    if said["stage"] not in _STAGES or not _FORMS["request_id"].fullmatch(request_id):
        raise ValueError("no refusal of a message")
    return Refusal(said["stage"], admin, user), request_id


_FIELDS = tuple(field.name for field in dataclasses.fields(StartEndpoint) if field.name != "credentials")
_WHO = re.compile(rf"(?s).{{0,{MAX_REQUESTER}}}")
_FORMS = {
    "request_id": re.compile(r"[A-Za-z0-9_.:-]{1,64}"),
    "name": NAME,
    "endpoint_id": re.compile(r"[A-Za-z0-9-]{1,64}"),
    "user_options": re.compile(r"(?s)\{.*\}"),
    "user_runtime": re.compile(r"(?s)\{.*\}"),
    "identity_set": re.compile(r"\[[ -~]*\]"),
    "requester": _WHO,
    "requester_name": _WHO,
}
_STAGES = ("command", "options", "manager")
_MOST_REASON = 8000


def _object(data: bytes) -> dict[str, Any]:
    said = json.loads(data)
    if not isinstance(said, dict):
        raise ValueError("no object")  # noqa: TRY004 - a type is a value here
    return said


def _text(said: object) -> str:
    if not isinstance(said, str) or len(said) > _MOST_REASON:
        raise ValueError("no text, or too long")
    return said
