"""Asks the system's name service. A program of its own: `python -m mep.accounts.server`.

An LDAP server that does not answer holds up whoever asks for as long as it likes. The manager's loop must not be held
up, and the manager must not have threads; so this process asks, and has threads. `monitor.stages.name_service` has
it started as an account that owns nothing, and killed when nothing comes from it any more. It serves requests on
descriptor 0, a socket: each a JSON object on a line, answered by one on a line, in the order in which the answers
are there.

Request:  {"id": number, "find": name}, or {"id": number, "group_ids": [name, ...]}
Answer:   {"id": number, "found": what `look_up.account` gives, as an object, or what `look_up.group_ids` gives for
          each name, as a list}, or {"id": number, "failed": text}

There is no limit on the number of processes: it would count all those of the account, and some modules of the name
service start threads.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import queue
import resource
import socket
import threading
from collections.abc import Callable
from typing import Any

from mep.accounts import look_up
from mep.privileged import kernel

THREADS = 160
"""Look-ups at the same time; more have to wait. The monitor asks for less: two for each of 64 requests, and a few."""
_MAX_DESCRIPTORS = 1024
"""A module of the name service may keep some open for each thread."""


def main() -> None:
    """Serves requests until the other end of the socket closes."""
    kernel.set_dumpable(False)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_MAX_DESCRIPTORS, _MAX_DESCRIPTORS))
    with socket.socket(fileno=0) as connection:
        serve(connection, answer)


def serve(connection: socket.socket, answer: Callable[[bytes], bytes], threads: int = THREADS) -> None:
    """Answers each line that comes through `connection`, in one of `threads` threads; returns when no more come.

    A thread that still waits for an answer then is left behind: the end of the process does not wait for it.
    """
    lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    sending = threading.Lock()

    def work() -> None:
        while (line := lines.get()) is not None:
            reply = answer(line)
            with sending, contextlib.suppress(OSError):  # whoever asked may be gone
                connection.sendall(reply)

    for _ in range(threads):
        threading.Thread(target=work, daemon=True).start()
    with connection.makefile("rb") as requests:
        for line in requests:
            lines.put(line)
    for _ in range(threads):
        lines.put(None)


def answer(line: bytes) -> bytes:
    """The answer to one request."""
    request = json.loads(line)
    reply: dict[str, Any] = {"id": request["id"]}
    try:
        reply["found"] = _find(request["find"]) if "find" in request else _group_ids(request["group_ids"])
    except Exception as e:  # noqa: BLE001 - whatever it was, the manager waits for an answer
        reply["failed"] = f"{type(e).__name__}: {e}"[:1000]
    return json.dumps(reply).encode() + b"\n"


def _find(username: str) -> dict[str, Any] | None:
    found = look_up.account(username)
    return None if found is None else dataclasses.asdict(found)


def _group_ids(names: list[str]) -> list[int | None]:
    return list(look_up.group_ids(names).values())


if __name__ == "__main__":
    kernel.end_if_dumpable()
    main()
