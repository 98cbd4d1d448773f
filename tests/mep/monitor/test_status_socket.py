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
from pathlib import Path

import pytest

from mep.monitor import last_run, status_socket
from mep.monitor.log_file import LogFile, trouble

MANAGER = """
import asyncio, sys
from pathlib import Path
from mep.monitor import run_lock
from mep.monitor.status_socket import StatusSocket
folder = Path(sys.argv[1])
async def serve():
    asked = StatusSocket(folder, lambda: {"pid": 1, "line": "endpoint ID: connected"})
    await asked.open()
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
def manager(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """What holds the lock and answers as a manager does."""
    with subprocess.Popen([sys.executable, "-c", MANAGER, str(folder)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"serves\n"
        yield process
        process.kill()


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
    assert (folder / status_socket.NAME).stat().st_mode & 0o777 == 0o600


def test_a_manager_that_stands_still(folder: Path, manager: subprocess.Popen[bytes]) -> None:
    manager.send_signal(signal.SIGSTOP)
    done = mep(folder, "status", "prod")
    assert done.returncode == 4
    assert f"hangs: its manager (pid {manager.pid}) does not answer within 5 s" in done.stdout
    assert mep(folder, "list").stdout.splitlines()[1].split()[:2] == ["prod", "hangs"]


def test_who_is_slow_holds_up_nobody(folder: Path, manager: subprocess.Popen[bytes]) -> None:
    with contextlib.ExitStack() as silent:
        for _ in range(status_socket.MOST - 1):
            connection = silent.enter_context(socket.socket(socket.AF_UNIX))
            with status_socket._short(folder) as path:
                connection.connect(path)
        answer = status_socket.ask(folder, 30)
        assert answer is not None
        assert answer["line"] == "endpoint ID: connected"


@pytest.mark.parametrize("question", [b"", b"\n", b"{}\n", b"[" * 3000 + b"\n", b"x" * 100_000, b"\xff\n"])
def test_what_is_no_question(folder: Path, manager: subprocess.Popen[bytes], question: bytes) -> None:
    with status_socket._short(folder) as path, socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        with contextlib.suppress(OSError):
            connection.sendall(question)
            connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            assert b"line" not in connection.recv(1000)
    assert status_socket.ask(folder, 30) is not None


def test_only_root_may_ask(folder: Path, manager: subprocess.Popen[bytes], root: None) -> None:
    (folder / status_socket.NAME).chmod(0o666)  # the kernel's word counts, not only the mode
    child = os.fork()
    if child == 0:
        folder.chmod(0o755)
        os.fchdir(os.open(folder, os.O_RDONLY))
        os.setgid(65534)
        os.setuid(65534)
        with contextlib.suppress(BaseException), socket.socket(socket.AF_UNIX) as connection:
            connection.connect(status_socket.NAME)
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
    assert mep(folder, "list").stdout.splitlines()[1].split()[:2] == ["prod", "failed"]
    last_run.runs(folder)
    assert "ended without a word" in mep(folder, "status", "prod").stdout
    last_run.stopped(folder)
    assert "It was stopped at" in mep(folder, "status", "prod").stdout


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
    handler = LogFile("/dev/full")
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
