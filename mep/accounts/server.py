"""Asks the system's name service. A program of its own: `python -m mep.accounts.server`.

An LDAP server that does not answer holds up whoever asks for as long as it likes. The manager's loop must not be held
up, and the manager must not have threads; so this process asks, and has threads. `monitor.stages.name_service` has
it started as an account that owns nothing, and killed when nothing comes from it any more. It answers questions on
descriptor 0 (`processes.name_service_protocol`), in the order in which the answers are there.

There is no limit on the number of processes: it would count all those of the account, and some modules of the name
service start threads.
"""

from __future__ import annotations

import array
import contextlib
import queue
import resource
import socket
import threading
from collections.abc import Callable

from mep.accounts import look_up
from mep.privileged import kernel
from mep.processes import message
from mep.processes.message import Files, Message
from mep.processes.name_service_protocol import GROUP_IDS, MOST_GROUPS, FromNameService, ToNameService
from mep.processes.sealed_file import SealedFile

THREADS = 160
"""Look-ups at the same time; more have to wait. The monitor asks for less: one for each of 64 requests, and one for
each group of the policy."""
_MAX_DESCRIPTORS = 1024
"""A module of the name service may keep some open for each thread."""

Answer = tuple[bytes, Files]
"""A message of ours and its files."""


def main() -> None:
    """Serves requests until the other end of the socket closes."""
    kernel.set_dumpable(False)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_GROUPS, MOST_GROUPS))  # files in memory count, too
    resource.setrlimit(resource.RLIMIT_NOFILE, (_MAX_DESCRIPTORS, _MAX_DESCRIPTORS))
    with socket.socket(fileno=0) as connection:
        message.send(connection, message.pack(FromNameService.READY, 0, {}))
        serve(connection, answer)


def serve(connection: socket.socket, answer: Callable[[Message], Answer], threads: int = THREADS) -> None:
    """Answers each question that comes through `connection`, in one of at most `threads` threads, which are started as
    they are needed; returns when no more questions come.

    A thread that still waits for an answer then is left behind: the end of the process does not wait for it.
    """
    questions: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
    idle = threading.Semaphore(0)
    started = 0

    def work() -> None:
        while (question := questions.get()) is not None:
            with contextlib.suppress(OSError):  # whoever asked may be gone
                message.send(connection, *answer(question))
            idle.release()

    while (question := message.receive(connection, {})) is not None:
        if not idle.acquire(blocking=False) and started < threads:
            threading.Thread(target=work, daemon=True).start()
            started += 1
        questions.put(question)
    for _ in range(started):
        questions.put(None)


def answer(question: Message) -> Answer:
    """The answer to one question."""
    kind, number, body, _ = question
    try:
        find = _account if kind == ToNameService.ACCOUNT else _group
        return find(number, body["name"])
    except Exception as e:  # noqa: BLE001 - whatever it was, the manager waits for an answer
        return message.pack(FromNameService.FAILED, number, {"reason": f"{type(e).__name__}: {e}"[:300]}), ()


def _account(number: int, name: str) -> Answer:
    found = look_up.account(name)
    if found is None:
        return _missing(number, look_up.unanswered("getpwnam_r", name))
    fault = "" if found.shell_fault is None else found.shell_fault.value
    texts = {"name": found.name, "gecos": found.gecos, "home": found.home, "shell": found.shell, "shell_fault": fault}
    data = message.pack(FromNameService.FOUND, number, {"uid": found.uid, "gid": found.gid, **texts})
    return data, [SealedFile.of(array.array(GROUP_IDS, found.groups).tobytes())]


def _group(number: int, name: str) -> Answer:
    found = look_up.group_ids([name])[name]
    if found is None:
        return _missing(number, look_up.unanswered("getgrnam_r", name))
    return message.pack(FromNameService.GROUP_ID, number, {"id": found}), ()


def _missing(number: int, why: str | None) -> Answer:
    if why is None:
        return message.pack(FromNameService.MISSING, number, {}), ()
    return message.pack(FromNameService.FAILED, number, {"reason": f"{why}; see whether sssd or nslcd runs"}), ()


if __name__ == "__main__":
    kernel.end_if_dumpable()
    main()
