"""Our manager and the public package's, each started against a service that answers as it is told.

Both look for a local service at port 5000, which on this network may be a hub's. So they and the service have a network
of their own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import yaml

from lab import loopback, peer
from lab.accounts import LocalAccount
from lab.files import write_private
from lab.manager import MEP
from tests.mep.commands import MANAGER
from tests.mep.service import Service
from tests.mep.stored_login import store_login

T = TypeVar("T")

CLIENT = {
    "GLOBUS_COMPUTE_CLIENT_ID": "d1b46d8e-6d3c-4c6e-b0b5-3b4b5b3b3b3b",
    "GLOBUS_COMPUTE_CLIENT_SECRET": "a secret",
}
CONFIG = {"display_name": "Both", "email": "a@example.org", "local_compute_services": True}
QUESTION = b"Authorization Code here: "
"""The last words of a program that wants somebody to log in."""
_PORT = 5000


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a program ended, what it said, and what the service was asked: each as method, path and body."""

    code: int
    said: str
    requests: Sequence[tuple[str, str, Any]]


class BesidePublic:
    """Two profiles that say the same, and what becomes of a start. account: who starts; root without one."""

    def __init__(
        self, folder: Path, account: LocalAccount | None = None, config: Mapping[str, Any] | None = None
    ) -> None:
        self._folder = folder
        self._account = account
        self.service = Service()
        for profile in (self.public, self.ours):
            profile.parent.mkdir(mode=0o755, parents=True)
        peer.configure(self.public.parent, self.public.name, self._environment())
        self._run([MEP, "configure", self.ours.name])
        for file in self.public.iterdir():
            if file.name != "config.yaml":
                (self.ours / file.name).write_bytes(file.read_bytes())
        self.write_config(CONFIG)
        self.know(MANAGER)

    @property
    def public(self) -> Path:
        return self._folder / "public" / "both"

    @property
    def ours(self) -> Path:
        return self._folder / "ours" / "both"

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Has both profiles say this."""
        if self._account is None:
            config = {**config, "identity_mapping_config_path": str(self.ours / "example_identity_mapping_config.json")}
        for profile in (self.public, self.ours):
            write_private(profile / "config.yaml", yaml.safe_dump(dict(config)))

    def know(self, endpoint_id: str | None) -> None:
        """Both were registered with this id; with None never."""
        for profile in (self.public, self.ours):
            file = profile / "endpoint.json"
            if endpoint_id is None:
                file.unlink(missing_ok=True)
            else:
                write_private(file, f'{{"endpoint_id": "{endpoint_id}"}}')

    def start_public(self, **variables: str) -> Ended:
        """The public manager is started, by what the service says, and ends."""
        return self._started([str(peer.program()), "start", self.public.name], variables)

    def start_ours(self, **variables: str) -> Ended:
        """The same of ours."""
        return self._started([MEP, "start", self.ours.name], variables)

    def log_in(self, expires: float) -> None:
        """Stores the same login for both, which is good until then; GLOBUS_SDK_ENVIRONMENT is `local`."""
        for profile in (self.public, self.ours):
            store_login(profile.parent, expires)
            (profile.parent / "storage.db").chmod(0o600)

    def start_public_at_a_terminal(self, **variables: str) -> Ended:
        """As `start_public`, by somebody who sits at a terminal and says nothing."""
        return self._started([str(peer.program()), "start", self.public.name], variables, self._at_a_terminal)

    def start_ours_at_a_terminal(self, **variables: str) -> Ended:
        """The same of ours."""
        return self._started([MEP, "start", self.ours.name], variables, self._at_a_terminal)

    @contextlib.contextmanager
    def starting_ours(self, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
        """Ours is started, and the service answers; what has not ended is killed in the end."""

        def start() -> tuple[ThreadingHTTPServer, subprocess.Popen[bytes]]:
            environment = self._environment() | CLIENT | variables
            return self.service.start(_PORT), subprocess.Popen([MEP, "start", self.ours.name], env=environment)

        server, process = on_a_network_of_its_own(start)
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            server.shutdown()
            server.server_close()

    def ask_ours(self, command: str) -> str:
        """What a command of ours says."""
        return self._run([MEP, command, self.ours.name]).stdout

    def _started(
        self,
        program: list[str],
        variables: Mapping[str, str],
        run: Callable[[list[str], Mapping[str, str]], tuple[int, str]] | None = None,
    ) -> Ended:
        def start() -> Ended:
            self.service.requests.clear()
            server = self.service.start(_PORT)
            try:
                code, said = (run or self._by_nobody)(program, variables)
            finally:
                server.shutdown()
                server.server_close()
            return Ended(code, said, list(self.service.requests))

        return on_a_network_of_its_own(start)

    def _by_nobody(self, program: list[str], variables: Mapping[str, str]) -> tuple[int, str]:
        done = self._run(program, CLIENT | variables)
        return done.returncode, done.stdout + done.stderr

    def _at_a_terminal(self, program: list[str], variables: Mapping[str, str]) -> tuple[int, str]:
        ours, theirs = os.openpty()
        process = subprocess.Popen(
            program,
            env=self._environment() | variables,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        said = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while more := os.read(ours, 4096):
                said += more
                if QUESTION in more:
                    os.write(ours, b"\x04")  # Ctrl-D: the end of what is typed
        os.close(ours)
        return process.wait(60), said.decode()

    def _run(self, program: list[str], variables: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        become: list[str] = []
        if self._account is not None:
            subprocess.run(["chown", "-R", f"{self._account.uid}:{self._account.gid}", self._folder], check=True)
            become = ["setpriv", f"--reuid={self._account.uid}", f"--regid={self._account.gid}", "--init-groups", "--"]
        return subprocess.run(
            [*become, *program],
            env={**self._environment(), **(variables or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def _environment(self) -> dict[str, str]:
        home = self._folder if self._account is None else self._account.home
        return {
            "PATH": f"{peer.program().parent}:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "GLOBUS_COMPUTE_USER_DIR": str(self.public.parent),
            "MEP_CONFIG_DIR": str(self.ours.parent),
            "MEP_RUN_DIR": str(self.ours.parent / ".run"),
            "GLOBUS_SDK_ENVIRONMENT": "local",
            "GLOBUS_SDK_SERVICE_URL_AUTH": f"http://localhost:{_PORT}/",
        }


def on_a_network_of_its_own(work: Callable[[], T]) -> T:
    """What `work` returns, or raises, done by a thread that nobody on our network can reach."""
    result: list[T] = []
    errors: list[Exception] = []

    def do() -> None:
        try:
            assert loopback.enter_private_network()
            result.append(work())
        except Exception as e:
            errors.append(e)

    thread = threading.Thread(target=do)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return result[0]
