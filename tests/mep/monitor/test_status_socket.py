"""Managers that answer, hang, or are not there, as `mep status`, `list` and `stop` tell of them."""

from __future__ import annotations

import contextlib
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
from mep.cli import asking
from mep.monitor import last_run
from mep.monitor.log_file import LogFile, trouble
from mep.processes import named_sockets, status_protocol
from mep.processes.status_protocol import NAME
from mep.worker import status_server

MANAGER = """
import asyncio, json, sys
from pathlib import Path
from mep.daemon import helper_account
from mep.monitor import run_lock
from mep.monitor.status_socket import StatusSocket
from mep.monitor.worker_process import NotNow, WorkerProcess
from mep.processes.sealed_file import SealedFile
from mep.profile.config import ManagerConfig
folder = Path(sys.argv[1])
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
async def renew():
    raise NotNow("nobody knows")
async def serve():
    asked = StatusSocket(folder, lambda: {"pid": 1, "line": "endpoint ID: connected"})
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
def manager(folder: Path, root: None) -> Iterator[subprocess.Popen[bytes]]:
    """What holds the lock, and has a worker, which answers, as a manager has."""
    with subprocess.Popen([sys.executable, "-c", MANAGER, str(folder)], stdout=subprocess.PIPE) as process:
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
    liar.append(b'{"line": "\\u001b[2J"}\n')
    assert (asking.status(tmp_path, 60) or {})["line"] == "\\x1b[2J"


@pytest.mark.parametrize("answer", [b"x" * 10**6, b"[]\n", b'{"line": 5}\n', b"\xff\n", b""])
def test_what_is_no_answer(tmp_path: Path, liar: list[bytes], answer: bytes) -> None:
    liar.append(answer)
    with pytest.raises(asking.NoAnswer):
        asking.status(tmp_path, 0.5)


def test_an_answer_without_end(tmp_path: Path, liar: list[bytes]) -> None:
    liar += [b" "] * (status_protocol.MOST_ANSWER * 2)
    with pytest.raises(asking.NoAnswer):
        asking.status(tmp_path, 0.5)


def test_who_is_slow_holds_up_nobody(folder: Path, manager: subprocess.Popen[bytes]) -> None:
    with contextlib.ExitStack() as silent:
        for _ in range(status_server.MOST - 1):
            silent.enter_context(connect(folder))
        answer = asking.status(folder, 30)
        assert answer is not None
        assert answer["line"] == "endpoint ID: connected"


@pytest.mark.parametrize("question", [b"", b"\n", b"{}\n", b"[" * 3000 + b"\n", b"x" * 100_000, b"\xff\n"])
def test_what_is_no_question(folder: Path, manager: subprocess.Popen[bytes], question: bytes) -> None:
    with connect(folder) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(question)
            connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            assert b"line" not in connection.recv(1000)
    assert asking.status(folder, 30) is not None


def test_only_root_may_ask(folder: Path, manager: subprocess.Popen[bytes], root: None) -> None:
    (folder / NAME).chmod(0o666)  # the kernel's word counts, not only the mode
    child = os.fork()
    if child == 0:
        folder.chmod(0o755)
        os.fchdir(os.open(folder, os.O_RDONLY))
        os.setgid(65534)
        os.setuid(65534)
        with contextlib.suppress(BaseException), socket.socket(socket.AF_UNIX) as connection:
            connection.connect(NAME)
            connection.sendall(b'{"ask": "status"}\n')
            os._exit(3 if connection.recv(100) else 0)
        os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) in (0, 4)


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
