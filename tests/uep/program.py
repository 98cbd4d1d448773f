"""The real program `mep-uep`, started as by the manager, and what it leaves on disk."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet

from lab.waiting import until
from tests.uep.service import Service
from uep.storage.result_store import results_in

ROOT = Path(__file__).parents[2]
PROGRAM = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from uep.cli import main; main()"
"""What the script `mep-uep` runs where it is installed, of these files."""
THREADS = "heartbeat_period: 0.5\nengine:\n  type: ThreadPoolEngine\n  max_workers: 4\n"
PROCESSES = "heartbeat_period: 0.5\nengine: {type: ProcessPoolEngine, max_workers: 2}\n"
HTEX = "heartbeat_period: 0.5\nengine: {type: GlobusComputeEngine, max_workers_per_node: 1}\n"


@dataclass
class Uep:
    """A running `mep-uep`, with the manager's ends of its descriptors."""

    process: subprocess.Popen[bytes]
    directory: Path
    log: Path
    credential_fd: int
    fernet: Fernet
    ready: int

    def wait_ready(self, timeout: float = 10) -> None:
        """Returns once it has written the first line on report_fd."""
        readable, _, _ = select.select([self.ready], [], [], timeout)
        assert readable, self.log.read_text()
        assert os.read(self.ready, 100) == b"ready\n", self.log.read_text()

    def refresh(self, credentials: dict[str, Any]) -> None:
        """As the manager does: rewritten in place."""
        os.ftruncate(self.credential_fd, 0)
        os.pwrite(self.credential_fd, self.fernet.encrypt(json.dumps({"amqp_creds": credentials}).encode()), 0)

    def log_says(self, text: str, timeout: float = 10) -> None:
        try:
            until(lambda: text in self.logged(), f"{text!r} in the log", timeout)
        except AssertionError as e:
            raise AssertionError(f"{e}; it says:\n{self.logged()}") from None

    def logged(self) -> str:
        """What its log says; nothing in the moment in which a new one is begun."""
        try:
            return self.log.read_text()
        except FileNotFoundError:
            return ""

    def stop(self, number: int = signal.SIGTERM, timeout: float = 30) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout)

    def descendants(self) -> list[int]:
        """Living processes of its session other than itself, whoever their parent is now."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != self.process.pid:
                with contextlib.suppress(OSError):
                    state, _, _, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
                    if int(session) == self.process.pid and state != "Z":
                        found.append(int(entry.name))
        return found

    def commands(self) -> list[bytes]:
        """The command lines of its descendants."""
        found = []
        for pid in self.descendants():
            with contextlib.suppress(OSError):
                found.append(Path(f"/proc/{pid}/cmdline").read_bytes())
        return found

    def wait_alone(self, timeout: float = 10) -> None:
        """Returns once nothing of its session is left."""
        until(lambda: not self.descendants(), f"{self.commands()} to end", timeout)


StartUep = Callable[..., Uep]


def kept_results(directory: Path) -> list[str]:
    """The tasks whose results an endpoint keeps in its `directory`, unconfirmed; whether it runs or not."""
    kept = []
    for path in sorted((directory / "unacked_results").glob("*")):
        with path.open("rb") as file:
            kept += [task_id for task_id, _, _, _, unconfirmed in results_in(file.fileno()) if unconfirmed]
    return kept


def start_program(home: Path, service: Service, config: str, name: str, raw: bytes | None, more: dict[str, Any]) -> Uep:
    """Starts it as the manager does: `more` are keys of the hand-over, and those of the fixture `start_uep`."""
    fernet = Fernet(key := Fernet.generate_key())
    also = more.pop("also", None)
    environment = more.pop("environment", {})
    interpreter = more.pop("interpreter", ())
    credentials = more.pop("amqp_creds", None) or service.credentials()
    credential_fd = os.memfd_create("credentials")
    os.pwrite(credential_fd, fernet.encrypt(json.dumps({"amqp_creds": credentials}).encode()), 0)
    read_only = os.open(f"/proc/self/fd/{credential_fd}", os.O_RDONLY)
    ready_read, ready_write = os.pipe()
    handover = {
        "amqp_creds": credentials,
        "config": config,
        "ep_info": {"posix_ppid": os.getpid(), "globus_matched_identity": str(uuid.uuid4())},
        "mem_fd": 3,
        "enckey": key.decode(),
        "report_fd": 4,
        **more,
    }
    hand_fd = os.memfd_create("handover")
    os.write(hand_fd, raw if raw is not None else json.dumps(handover).encode())
    os.lseek(hand_fd, 0, os.SEEK_SET)
    directory = home / ".globus_compute" / name
    directory.mkdir(parents=True, exist_ok=True)
    log = directory / "endpoint.log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-I", *interpreter, "-c", PROGRAM, name],
            stdin=hand_fd,
            stdout=out,
            stderr=out,
            cwd=home,
            env={"HOME": str(home), "USER": "root", "PATH": "/usr/bin:/bin", **environment},
            start_new_session=True,
            preexec_fn=lambda: _place({3: read_only, 4: ready_write} | ({} if also is None else {also[1]: also[0]})),
            close_fds=False,
        )
    uep = Uep(process, directory, log, credential_fd, fernet, ready_read)
    for fd in (hand_fd, read_only, ready_write):
        os.close(fd)
    return uep


def _place(descriptors: dict[int, int]) -> None:
    """In the child: the descriptors where the hand-over says they are, and no others of ours."""
    out_of_the_way = {number: os.dup2(fd, 4000 + number) for number, fd in descriptors.items()}
    for number, fd in out_of_the_way.items():
        os.dup2(fd, number, inheritable=True)
    os.closerange(max(descriptors) + 1, 5000)
