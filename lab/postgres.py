"""A private PostgreSQL: own folder, own free port of 127.0.0.1, own password; runs as an ordinary account, as it must.

    with PrivatePostgres(folder) as database:
        ...  database.url

`folder` must be one that ordinary accounts can enter.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
from pathlib import Path

from lab.files import write_private
from lab.ports import free_ports
from lab.process import Running
from lab.waiting import until

USER = "postgres"
"""The account that Debian's package makes."""
START_TIMEOUT = 60.0
_SETTINGS = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
shared_buffers = '32MB'
max_connections = 40
password_encryption = 'scram-sha-256'
"""


def programs() -> Path | None:
    """The folder of the newest PostgreSQL's own programs; None when there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    if found:
        return found[-1].parent
    elsewhere = shutil.which("initdb")
    return Path(elsewhere).parent if elsewhere else None


class PostgresFailed(Exception):
    """It did not come up; the text has the end of its log."""


class PrivatePostgres(Running):
    """`start`, `stop`, `kill`; a context manager starts and stops. Port, password and data stay the same."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        (self.port,) = free_ports(1)
        self._password = secrets.token_urlsafe(24)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL of its only user, with the password."""
        return f"postgresql://hub:{self._password}@127.0.0.1:{self.port}/postgres"

    @property
    def log(self) -> Path:
        """What it says."""
        return self.folder / "postgres.log"

    def start(self) -> None:
        """Makes the data unless it is there, starts, and waits until connections are taken.

        Raises:
            PostgresFailed: it is not installed, or did not come up.
        """
        found = programs()
        if found is None:
            raise PostgresFailed("PostgreSQL is missing: install the package postgresql")
        data = self.folder / "data"
        if not data.exists():
            self._make(found, data)
        with self.log.open("ab") as log:
            self._process = self._spawn([str(found / "postgres"), "-D", str(data), "-p", str(self.port)], log.fileno())
        until(lambda: self._ready(found), "PostgreSQL", START_TIMEOUT, failed=self._failed)

    def stop(self) -> None:
        """Ends it, and whoever is connected with it. Harmless when stopped."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Ends it as a crash would; `start` brings it back with what was committed."""
        self._end(signal.SIGQUIT)

    def _make(self, found: Path, data: Path) -> None:
        self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        account = pwd.getpwnam(USER)
        password = self.folder / "password"
        write_private(password, self._password)
        self.log.touch(mode=0o600)
        for path in (self.folder, password):
            os.chown(path, account.pw_uid, account.pw_gid)
        arguments = ["--auth=scram-sha-256", "--username=hub", f"--pwfile={password}", "--encoding=UTF8", "--no-sync"]
        with self.log.open("ab") as log:
            made = self._spawn([str(found / "initdb"), *arguments, "-D", str(data)], log.fileno()).wait()
        if made != 0:
            raise self._failed("initdb")
        password.unlink()
        with (data / "postgresql.conf").open("a") as settings:
            settings.write(_SETTINGS)

    def _spawn(self, argv: list[str], log: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            argv,
            user=USER,
            group=USER,
            extra_groups=[],
            cwd="/",
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def _ready(self, found: Path) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise self._failed("PostgreSQL ended at its start")
        asked = [str(found / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(asked, check=False).returncode == 0

    def _end(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait()
            self._process = None

    def _failed(self, text: str) -> PostgresFailed:
        return PostgresFailed(f"{text}:\n" + "\n".join(self.log.read_text(errors="replace").splitlines()[-15:]))
