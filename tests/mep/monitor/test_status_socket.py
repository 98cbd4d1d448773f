"""Managers that answer, hang, or are not there, as `mep status`, `list` and `stop` tell of them."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lab.waiting import until
from mep.cli import asking, orders
from mep.monitor import last_run
from mep.monitor.log_file import LogFile, trouble
from mep.processes import named_sockets, status_protocol
from mep.processes.status_protocol import NAME
from mep.worker import api_server

MANAGER = """
import asyncio, json, os, sys
from pathlib import Path
from mep.daemon import helper_account
from mep.monitor import run_lock
from mep.monitor.status_socket import StatusSocket
from mep.monitor.worker_process import NotNow, WorkerProcess
from mep.processes.sealed_file import SealedFile
from mep.profile.config import ManagerConfig
folder, READERS = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None
BROKER = {"connection_url": "amqp://127.0.0.1:1/"}
ADDRESSES = {
    "commands": BROKER | {"queue": "q"},
    "heartbeats": BROKER | {"exchange": "x", "routing_key": "beats", "mandatory": False, "properties": {}},
}
class Listener:
    pipeline = None
    def heartbeat_period(self):
        return 30.0
    def connected(self):
        pass
    def not_connected(self, reason):
        (folder / "status").write_text("endpoint ID: not connected")
    def shared(self, shared):
        pass
async def renew():
    raise NotNow("nobody knows")
async def serve():
    parts = {"user_endpoints": lambda: [], "held_back": lambda: []}
    asked = StatusSocket(folder, lambda: {"pid": os.getpid(), "line": "endpoint ID: connected"}, parts, READERS)
    asked.open()
    addresses = SealedFile.of(json.dumps(ADDRESSES).encode())
    worker = WorkerProcess(helper_account.find(ManagerConfig()).worker, "ID", None, addresses, renew, debug=False)
    worker._status = asked
    await worker._begin()
    worker.start(Listener())
    print("serves", flush=True)
    await asyncio.sleep(600)
with run_lock.hold(folder):
    asyncio.run(serve())
"""
PROGRAM = "from mep.cli.main import main; main()"


@pytest.fixture
def folder(profile_directory: Path) -> Path:
    return profile_directory.parent / "run" / "prod"


@pytest.fixture
def readers() -> list[str]:
    """The group whose members may ask, if there is one."""
    return []


@pytest.fixture
def manager(folder: Path, root: None, readers: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """What holds the lock, and has a worker, which answers, as a manager has."""
    command = [sys.executable, "-c", MANAGER, str(folder), *readers]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"serves\n"
        yield process
        for pid in children(process).read_text().split():  # one that stands still does not notice its end
            os.kill(int(pid), signal.SIGKILL)
        process.kill()


def worker(manager: subprocess.Popen[bytes]) -> int:
    """The pid of its worker; it has no other child."""
    return until(lambda: int((children(manager).read_text().split() or ["0"])[0]), "a worker")


def children(manager: subprocess.Popen[bytes]) -> Path:
    return Path(f"/proc/{manager.pid}/task/{manager.pid}/children")


def connect(folder: Path) -> socket.socket:
    with named_sockets.connected(folder, NAME, socket.SOCK_STREAM, 60) as connection:
        return connection.dup()


def mep(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    etc = folder.parent.parent
    environment = {"PATH": "/usr/bin:/bin", "MEP_CONFIG_DIR": str(etc), "MEP_RUN_DIR": str(folder.parent)}
    command = [sys.executable, "-c", PROGRAM, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_a_manager_that_answers(folder: Path, manager: subprocess.Popen[bytes]) -> None:
    done = mep(folder, "status", "prod")
    assert (done.returncode, done.stdout) == (
        0,
        f"Endpoint prod runs (pid {manager.pid}). Endpoint ID: connected\n",
    )
    assert mep(folder, "list").stdout.splitlines()[1].split()[:2] == ["prod", "running"]
    assert (folder / NAME).stat().st_mode & 0o777 == 0o600


def test_a_manager_that_stands_still(folder: Path, manager: subprocess.Popen[bytes]) -> None:
    manager.send_signal(signal.SIGSTOP)
    done = mep(folder, "status", "prod")
    assert done.returncode == 4
    assert f"hangs: its manager (pid {manager.pid}) does not answer within 5 s" in done.stdout
    assert mep(folder, "list").stdout.splitlines()[1].split()[:2] == ["prod", "hangs"]


def test_while_the_worker_is_replaced_who_asks_waits_for_the_next_one(
    folder: Path, manager: subprocess.Popen[bytes]
) -> None:
    for _ in range(2):
        before = worker(manager)
        os.kill(before, signal.SIGSTOP)  # it has the question, and takes it with it
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(asking.status, folder, 60)
            until(lambda: waits(folder), "the question to be there")
            os.kill(before, signal.SIGKILL)
            assert (answer.result() or {}).get("line") == "endpoint ID: connected"
        assert worker(manager) != before


def waits(folder: Path) -> bool:
    """Whether a connection has been made that nobody has accepted yet."""
    named = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return any(words[7].endswith(f"/{NAME}") and words[5] == "02" for words in named if len(words) > 7)


def test_a_worker_that_stands_still_is_told_of(folder: Path, manager: subprocess.Popen[bytes]) -> None:
    """The manager runs: `mep status` says what it wrote down last."""
    until((folder / "status").exists, "what it says of the broker")
    os.kill(worker(manager), signal.SIGSTOP)
    done = mep(folder, "status", "prod")
    assert done.returncode == 4
    assert f"hangs: its manager (pid {manager.pid}) does not answer within 5 s" in done.stdout
    assert "its worker, stands still" in done.stdout and "endpoint ID: not connected" in done.stdout


@pytest.fixture
def liar(tmp_path: Path) -> Iterator[list[bytes]]:
    """A worker that was taken over: it gives this for an answer, piece by piece, to whoever asks."""
    pieces = list[bytes]()

    def serve(listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                with connection, contextlib.suppress(OSError):
                    for piece in pieces:
                        connection.sendall(piece)
                    connection.recv(1000)

    with named_sockets.listen(tmp_path, NAME, socket.SOCK_STREAM) as listening, ThreadPoolExecutor(1) as pool:
        listening.setblocking(True)
        pool.submit(serve, listening)
        yield pieces
        listening.shutdown(socket.SHUT_RDWR)


def test_what_a_worker_says_steers_no_terminal(tmp_path: Path, liar: list[bytes]) -> None:
    liar.append(b'HTTP/1.1 200 OK\r\n\r\n{"line": "\\u001b[2J"}\n')
    assert (asking.status(tmp_path, 60) or {})["line"] == "\\x1b[2J"


@pytest.mark.parametrize(
    "answer", [b"x" * 10**6, b"[]\n", b'{"line": 5}\n', b"\xff\n", b"", b"[" * 10**5, b'{"line": "x"}', b"{}"]
)
@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 500 No\r\n\r\n", b"HTTP/1.1 200 OK\r\n", b""])
def test_what_is_no_answer(tmp_path: Path, liar: list[bytes], head: bytes, answer: bytes) -> None:
    if head.endswith(b"OK\r\n\r\n") and answer == b'{"line": "x"}':
        return
    liar.append(head + answer)
    with pytest.raises(asking.NoAnswer):
        asking.status(tmp_path, 0.5)


@pytest.mark.parametrize("depth", [300, 600, 900])
def test_a_deep_answer_is_understood_or_not(tmp_path: Path, liar: list[bytes], depth: int) -> None:
    """Nothing else comes of it: who has a worker that was taken over needs the commands."""
    liar.append(b'HTTP/1.1 200 OK\r\n\r\n{"line": "x", "more": %s%s}' % (b"[" * depth, b"]" * depth))
    with contextlib.suppress(asking.NoAnswer):
        assert (asking.status(tmp_path, 60) or {})["line"] == "x"


def test_what_a_worker_makes_up_holds_no_order_back(tmp_path: Path, liar: list[bytes]) -> None:
    """`mep kill` asks it for batch jobs first."""
    made_up: list[dict[str, object]] = [{"name": [], "batch_jobs": ["1"]}, {"name": "b", "batch_jobs": 5}, {}]
    told = [{"name": "a", "batch_jobs": ["7", 8, None]}]
    liar.append(b"HTTP/1.1 200 OK\r\n\r\n" + json.dumps({"user_endpoints": [*made_up, *told]}).encode())
    assert orders._batch_jobs(tmp_path) == {"[]": ["1"], "a": ["7", "8", "None"]}


def test_an_answer_without_end(tmp_path: Path, liar: list[bytes]) -> None:
    liar += [b" "] * (status_protocol.MOST_ANSWER * 2)
    with pytest.raises(asking.NoAnswer):
        asking.status(tmp_path, 0.5)


def test_who_is_slow_holds_up_nobody(folder: Path, manager: subprocess.Popen[bytes]) -> None:
    with contextlib.ExitStack() as silent:
        for _ in range(api_server.SHARE - 1):
            silent.enter_context(connect(folder))
        answer = asking.status(folder, 30)
        assert answer is not None
        assert answer["line"] == "endpoint ID: connected"


@pytest.mark.parametrize(
    "question",
    [b"", b"\n", b"{}\n", b"[" * 3000 + b"\n", b"x" * 100_000, b"\xff\n", b"GET /v1/nosuch HTTP/1.1\r\nHost: x\r\n\r\n"]
    + [b"%s /v1/status HTTP/1.1\r\nHost: x\r\n\r\n" % method for method in (b"POST", b"PUT", b"DELETE", b"CONNECT")]
    + [b"GET /v1/status%s HTTP/1.1\r\nHost: x\r\n\r\n" % more for more in (b"?x=1", b"/", b"?x", b"?" + b"a=1&" * 99)]
    + [b"GET /v1/status HTTP/1.1\r\n\r\n", b"GET /v1/status HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 20_000 + b"\r\n\r\n"],
)
def test_what_is_no_question(folder: Path, manager: subprocess.Popen[bytes], question: bytes) -> None:
    with connect(folder) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(question)
            connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            assert b"line" not in connection.recv(1000)
    assert asking.status(folder, 30) is not None


def become(folder: Path, uid: int, gid: int, groups: list[int]) -> None:
    """In a child: goes to the folder, as whoever has left root has no /proc/self/fd, and drops."""
    signal.alarm(60)
    os.chdir(folder)
    os.setgroups(groups)
    os.setgid(gid)
    os.setuid(uid)


def asked_as(folder: Path, uid: int, gid: int, groups: list[int]) -> str:
    """What somebody comes to who asks: an answer, none, or no connection."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            become(folder, uid, gid, groups)
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(NAME)
                said = b""
                with contextlib.suppress(OSError):  # closed at once
                    connection.sendall(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
                    said = connection.recv(100)
                os._exit(1 if said else 2)
        os._exit(3)
    outcome = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {1: "answer", 2: "nothing", 3: "no connection"}[outcome]


def test_only_root_may_ask(folder: Path, manager: subprocess.Popen[bytes], root: None) -> None:
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o711)
    assert asked_as(folder, 65534, 65534, []) == "no connection"
    (folder / NAME).chmod(0o666)  # the kernel's word counts, not only the mode
    assert asked_as(folder, 65534, 65534, []) == "nothing"
    assert asked_as(folder, 0, 0, []) == "answer"


READERS = 54321
MEMBERS = pytest.mark.parametrize("readers", [[str(READERS)]])


@MEMBERS
def test_members_of_the_group_may_ask(folder: Path, manager: subprocess.Popen[bytes]) -> None:
    assert folder.stat().st_mode & 0o777 == 0o711, "nobody can list it"
    assert ((folder / NAME).stat().st_gid, (folder / NAME).stat().st_mode & 0o777) == (READERS, 0o660)
    assert {path.stat().st_mode & 0o077 for path in folder.iterdir() if path.name != NAME} == {0}
    assert asked_as(folder, 65534, 65534, [READERS]) == "answer"
    assert asked_as(folder, 65534, READERS, []) == "answer"
    assert asked_as(folder, 65534, 65534, [READERS + 1]) == "no connection"
    (folder / NAME).chmod(0o666)
    assert asked_as(folder, 65534, 65534, [READERS + 1]) == "nothing"


@MEMBERS
def test_who_takes_all_connections_of_an_account_keeps_out_nobody_else(
    folder: Path, manager: subprocess.Popen[bytes]
) -> None:
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException), contextlib.ExitStack() as kept:
            ours.close()
            become(folder, 65534, 65534, [READERS])
            for _ in range(3 * api_server.SHARE):
                kept.enter_context(socket.socket(socket.AF_UNIX)).connect(NAME)
            theirs.sendall(b"!")
            while theirs.recv(1):
                pass
        os._exit(0)
    theirs.close()
    with ours:
        assert ours.recv(1) == b"!"
        assert asked_as(folder, 65533, 65533, [READERS]) == "answer"
        assert asking.status(folder, 30) is not None
    os.waitpid(child, 0)


def test_who_reads_slowly_holds_up_nobody_and_is_ended(folder: Path, manager: subprocess.Popen[bytes]) -> None:
    with connect(folder) as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        slow.sendall(b"GET /v1/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n")
        assert asking.status(folder, 30) is not None
        until(lambda: connections(folder, manager) == 0, "the slow one to be ended")


def connections(folder: Path, manager: subprocess.Popen[bytes]) -> int:
    """How many its worker has."""
    named = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return sum(words[7].endswith(f"/{NAME}") and words[5] == "03" for words in named if len(words) > 7)


def test_why_none_runs(folder: Path) -> None:
    assert mep(folder, "status", "prod").stdout == "Endpoint prod is not running.\n"
    last_run.failed(folder, "the broker is away")
    done = mep(folder, "status", "prod")
    assert done.returncode == 3
    assert done.stdout.endswith(": the broker is away\n")
    assert listed(folder) == "failed"
    last_run.runs(folder)
    assert "ended without a word" in mep(folder, "status", "prod").stdout
    assert listed(folder) == "failed", "it was killed"
    last_run.stopped(folder)
    assert "It was stopped at" in mep(folder, "status", "prod").stdout
    assert listed(folder) == "stopped"


def listed(folder: Path) -> str:
    """How `mep list` says that the manager is."""
    name, state, *_ = mep(folder, "list").stdout.splitlines()[1].split()
    assert name == "prod"
    return state


def test_a_start_that_fails_says_so_later(folder: Path, root: None) -> None:
    config = folder.parent.parent / "prod" / "config.yaml"
    config.write_text("nonsense: 5\n")
    assert mep(folder, "start", "prod").returncode == os.EX_CONFIG
    assert "nonsense" in mep(folder, "status", "prod").stdout


@pytest.mark.parametrize("command", ["status", "stop"])
def test_a_profile_that_is_not_there(folder: Path, command: str) -> None:
    done = mep(folder, command, "nosuch")
    assert done.returncode == os.EX_CONFIG
    assert "no profile of this name" in done.stderr


def test_a_log_on_a_full_disk(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    handler = LogFile(Path("/dev/full"), 1 << 20, 1)
    logging.getLogger().addHandler(handler)
    try:
        for number in range(3):
            handler.emit(logging.LogRecord("x", logging.INFO, "x", 1, f"line {number}", None, None))
        assert trouble() == "the log /dev/full cannot be written: No space left on device"
    finally:
        logging.getLogger().removeHandler(handler)
        with contextlib.suppress(OSError):
            handler.close()
    assert "Traceback" not in capfd.readouterr().err
    assert caplog.text.count("cannot be written") == 1, "where else the log goes"
