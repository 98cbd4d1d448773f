"""A hub of one's own for given users, on a `PrivateBroker`.

    with PrivateBroker(folder / "broker") as broker, HubProcess(folder / "hub", broker, ["alice", "bob"]) as hub:
        environment = {**os.environ, **hub.client_environment("alice")}

Port 5000 is the default because the public client knows no other address of a local service.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lab.broker import PrivateBroker
from lab.files import write_private
from lab.ports import free_ports
from lab.process import Running, end
from lab.waiting import until

START_TIMEOUT = 20.0
"""Seconds for the hub to answer; it takes less than one."""

_NAMESPACE = uuid.UUID("0a1d2a54-90b1-5c7b-8d55-6f3a3b3d3b10")


class HubFailed(Exception):
    """The hub did not come up or did not end; the text has the end of its log."""


@dataclass(frozen=True, slots=True)
class User:
    """A user of the hub: the credential, and the identity records (the effective one first) it stands for."""

    client_id: str
    client_secret: str = field(repr=False)
    identities: tuple[Mapping[str, Any], ...]


def identity(username: str, **more: Any) -> dict[str, Any]:
    """An identity record for `username`, such as `alice@example.org`; the same id every time. `more` overrides."""
    record = {
        "id": str(uuid.uuid5(_NAMESPACE, username)),
        "username": username,
        "email": username,
        "name": username.partition("@")[0],
        "identity_provider": str(uuid.uuid5(_NAMESPACE, "provider")),
        "identity_provider_display_name": "Example",
        "organization": "Example",
    }
    return {**record, **more}


class HubProcess(Running):
    """`start`, `stop`, `kill`; a context manager starts and stops. Credentials and database stay the same."""

    def __init__(
        self,
        folder: Path,
        broker: PrivateBroker,
        users: Iterable[str] | Mapping[str, Iterable[Mapping[str, Any]]],
        *,
        python: str = sys.executable,
        certificate: Path | None = None,
        database: str | None = None,
        port: int | None = None,
    ) -> None:
        """`users` are names (each becomes NAME@example.org), or names with their identity records, effective one first.

        `python` is an interpreter that has the hub's dependencies. With `certificate`, a file with certificate and key,
        there is TLS on `tls_port` as well. `database` is a URL of PostgreSQL; else there is a file. With a `port` of
        its own for REST calls, several hubs may answer the broker's questions.
        """
        self.folder = folder.absolute()
        self.port = port or broker.hub_port
        self._database = database
        (self.tls_port,) = free_ports(1)
        self.certificate = certificate
        """With which it proves its name, from the next start on."""
        self._broker = broker
        self._python = python
        records = users if isinstance(users, Mapping) else {name: [identity(f"{name}@example.org")] for name in users}
        self.users = {
            name: User(str(uuid.uuid4()), secrets.token_urlsafe(24), tuple(identities))
            for name, identities in records.items()
        }
        self.login: Mapping[str, Any] | None = None
        """What hub.yaml says about logging in, from the next start on."""
        self._process: subprocess.Popen[bytes] | None = None
        self._log_before = 0

    @property
    def url(self) -> str:
        """The base URL, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        """What the hub says."""
        return self.folder / "hub.log"

    @property
    def pid(self) -> int:
        """The running hub's process id."""
        assert self._process is not None, "the hub is not running"
        return self._process.pid

    def start(self) -> None:
        """Starts the hub and waits until it answers. Raises HubFailed."""
        config = self._write_config()
        self.log.touch(mode=0o600)
        self._log_before = self.log.stat().st_size
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._python, "-m", "hub", "serve", "--config", str(config)],
                cwd=Path(__file__).parent.parent,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},  # ours may hold a client's secret
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Ends the hub by SIGTERM. Harmless when stopped. Raises HubFailed when it does not end, or not with 0."""
        process, self._process = self._process, None
        end(process, "the hub", lambda text: HubFailed(f"{text}:\n{self._log_end()}"))

    def kill(self) -> None:
        """Ends the hub as a crash would; `start` brings it back with what it had on disk."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def client_environment(self, user: str) -> dict[str, str]:
        """What to add to the environment of an unmodified public client or manager to be `user` at this hub.

        The client's secret is in it because that is how the public packages take it.
        """
        return {
            **self.login_environment(user),
            "GLOBUS_COMPUTE_CLIENT_ID": self.users[user].client_id,
            "GLOBUS_COMPUTE_CLIENT_SECRET": self.users[user].client_secret,
        }

    def login_environment(self, user: str) -> dict[str, str]:
        """The same for a person who logs in with a browser; `user` need not be one of `users`."""
        home = self.folder / "clients" / user
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        return {
            "GLOBUS_SDK_ENVIRONMENT": "local",
            "GLOBUS_SDK_SERVICE_URL_AUTH": f"http://localhost:{self.port}/",
            "GLOBUS_COMPUTE_USER_DIR": str(home),
        }

    def _write_config(self) -> Path:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.folder / "hub.yaml"
        document: dict[str, Any] = {
            "listen": f"127.0.0.1:{self.port}",
            "questions_port": self._broker.hub_port,
            "database": {"url": self._database} if self._database else str(self.folder / "hub.db"),
            "broker": {"url": self._broker.url},
            "clients": [
                {
                    "client_id": user.client_id,
                    "client_secret": user.client_secret,
                    "identity": dict(user.identities[0]),
                    "linked": [dict(record) for record in user.identities[1:]],
                }
                for user in self.users.values()
            ],
        }
        if self.certificate is not None:
            files = {"certificate": str(self.certificate), "key": str(self.certificate)}
            broker = {"endpoint_host": "localhost", "endpoint_port": self._broker.tls_port, "scheme": "amqps"}
            if self._broker.has_tls:
                document["broker"] |= broker
            document["tls"] = {"listen": f"127.0.0.1:{self.tls_port}", **files}
        if self.login is not None:
            document["login"] = dict(self.login)
        write_private(path, yaml.safe_dump(document))
        return path

    def _wait_until_ready(self) -> None:
        def ready() -> bool:
            assert self._process is not None
            if self._process.poll() is not None:
                raise HubFailed(f"the hub ended at its start:\n{self._log_end()}")
            return self._says_ready() and self._answers()

        until(ready, "the hub", START_TIMEOUT, failed=lambda text: HubFailed(f"{text}:\n{self._log_end()}"))

    def _says_ready(self) -> bool:
        """Asked first: on a port that is taken, it is another hub that answers."""
        with self.log.open("rb") as log:
            log.seek(self._log_before)
            return b" Ready at " in log.read()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/v2/version", timeout=5) as answer:
                return "api" in json.load(answer)
        except (urllib.error.URLError, OSError, ValueError):
            return False

    def _log_end(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
