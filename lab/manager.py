"""A manager of one's own: a profile made by `mep configure`, and the real `mep start` as root.

with ManagerProcess(folder, hub, "admin", mapping=[...]) as manager:
    ...  manager.endpoint_id, manager.audit()
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lab.files import write_private
from lab.hub import HubProcess
from lab.process import Running, end
from lab.waiting import until

START_TIMEOUT = 30.0
MEP = str(Path(sys.executable).parent / "mep")


class ManagerFailed(Exception):
    """The manager did not start or stop as it should; the text has the end of its log."""


class ManagerProcess(Running):
    """`configure`, `start`, `stop`, `kill`; a context manager configures, starts and stops."""

    def __init__(
        self,
        folder: Path,
        hub: HubProcess,
        user: str,
        *,
        mapping: Sequence[Mapping[str, str]],
        template: str | None = None,
        schema: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
        name: str = "lab",
        also: Mapping[str, str] | None = None,
        program: Sequence[str] = (MEP,),
    ) -> None:
        """`user` of the hub registers the endpoint. `mapping` are the mappings of one expression document.

        `template`, `schema` and `config` (keys of config.yaml) replace what `mep configure` writes. `also` are more
        environment variables. `program` is what is run, instead of the installed `mep`.
        """
        self.folder = folder.absolute()
        self.name = name
        self.endpoint_id = ""
        self._hub = hub
        self._user = user
        self._mapping = mapping
        self._template = template
        self._schema = schema
        self._config = config or {}
        self._also = also or {}
        self._program = program
        self._process: subprocess.Popen[str] | None = None

    @property
    def profile(self) -> Path:
        """The folder that `mep configure` makes."""
        return self.folder / "etc" / self.name

    @property
    def log(self) -> Path:
        """What the manager says."""
        return self.folder / "manager.log"

    @property
    def pid(self) -> int:
        """The running manager's process id."""
        assert self._process is not None, "the manager is not running"
        return self._process.pid

    @property
    def command(self) -> Sequence[str]:
        """What is typed before the name of a `mep` command."""
        return self._program

    @property
    def environment(self) -> dict[str, str]:
        """What the `mep` program is run with; holds no secret, unless `also` does."""
        return {
            **self._also,
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "MEP_CONFIG_DIR": str(self.folder / "etc"),
            "MEP_RUN_DIR": str(self.folder / "run"),
            "GLOBUS_SDK_ENVIRONMENT": "local",
            "GLOBUS_SDK_SERVICE_URL_AUTH": f"http://localhost:{self._hub.port}/",
        }

    @property
    def _credentials(self) -> Path:
        return self.folder / "client.yaml"

    def __enter__(self) -> ManagerProcess:
        self.configure()
        return super().__enter__()

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs one `mep` command to its end."""
        return subprocess.run(
            [*self._program, *arguments], env=self.environment, capture_output=True, text=True, check=False, timeout=120
        )

    def configure(self) -> None:
        """Makes the profile with `mep configure`, and edits it as a sysadmin would. Raises ManagerFailed."""
        self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._configure(("--display-name", "Lab", "--contact-email", "admin@example.org"))
        self.write_mapping(self._mapping)
        self._edit()

    def _configure(self, arguments: Sequence[str]) -> None:
        done = self.run("configure", self.name, *arguments)
        if done.returncode != 0:
            raise ManagerFailed(f"mep configure: {done.stderr}")

    def _edit(self) -> None:
        if self._template is not None:
            (self.profile / "user_config_template.yaml.j2").write_text(self._template)
        if self._schema is not None:
            (self.profile / "user_config_schema.json").write_text(json.dumps(self._schema))
        config = yaml.safe_load((self.profile / "config.yaml").read_text())
        config |= {"audit_log_path": str(self.folder / "audit.log"), "heartbeat_period": 5}
        config |= {"client_credentials_path": str(self._write_credentials()), **self._config}
        (self.profile / "config.yaml").write_text(yaml.safe_dump(config))

    def write_mapping(self, mapping: Sequence[Mapping[str, str]]) -> None:
        """Replaces the profile's mapping document."""
        document = [{"DATA_TYPE": "expression_identity_mapping#1.0.0", "mappings": list(mapping)}]
        (self.profile / "example_identity_mapping_config.json").write_text(json.dumps(document, indent=2))

    def start(self) -> None:
        """Starts the manager and waits until it consumes commands. Raises ManagerFailed."""
        before = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                [*self._program, "start", self.name, "--log-to-console"],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        self._wait("it to consume commands", lambda: "consumes start commands" in self.log.read_text()[before:])
        self.endpoint_id = json.loads((self.profile / "endpoint.json").read_text())["endpoint_id"]

    def stop(self) -> None:
        """Ends the manager by SIGTERM. Harmless when stopped. Raises ManagerFailed when it does not end with 0."""
        process, self._process = self._process, None
        end(process, "the manager", lambda text: ManagerFailed(f"{text}:\n{self.log_end()}"))

    def restart(self) -> None:
        """Ends the manager as systemd does for a restart, and starts it again. Raises ManagerFailed."""
        assert self._process is not None, "the manager is not running"
        self._process.send_signal(signal.SIGUSR1)
        code = self._process.wait(START_TIMEOUT)
        self._process = None
        if code != 0:
            raise ManagerFailed(f"the manager ended with exit code {code}:\n{self.log_end()}")
        self.start()

    def reload(self) -> str:
        """Has the manager read its profile again; what it said about that, once it has."""
        assert self._process is not None, "the manager is not running"
        before = self.log.stat().st_size
        self._process.send_signal(signal.SIGHUP)
        said = re.compile("profile reloaded.*\n|the edited profile is refused(.|\n)*\n$")  # a record is written at once
        self._wait("it to read its profile again", lambda: said.search(self.log.read_text()[before:]) is not None)
        return self.log.read_text()[before:]

    def kill(self) -> None:
        """Ends the manager as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def audit(self, event: str | None = None) -> list[dict[str, Any]]:
        """The lines of the audit trail so far, all or those of one event."""
        path = self.folder / "audit.log"
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [line for line in lines if event in (None, line["event"])]

    def wait_for(self, event: str, timeout: float = 30.0, **facts: object) -> dict[str, Any]:
        """The first audit line of `event` that has these facts; waits for it. Raises ManagerFailed."""
        found: list[dict[str, Any]] = []

        def look() -> bool:
            found[:] = [line for line in self.audit(event) if facts.items() <= line.items()]
            return bool(found)

        self._wait(f"{event!r} {facts}", look, timeout)
        return found[0]

    def log_end(self) -> str:
        """The last lines of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-25:])

    def _write_credentials(self) -> Path:
        path = self._credentials
        user = self._hub.users[self._user]
        write_private(path, yaml.safe_dump({"client_id": user.client_id, "client_secret": user.client_secret}))
        return path

    def _wait(self, what: str, done: Callable[[], bool], timeout: float = START_TIMEOUT) -> None:
        def look() -> bool:
            if not (met := done()) and self._process is not None and self._process.poll() is not None:
                raise ManagerFailed(f"the manager ended with exit code {self._process.returncode}:\n{self.log_end()}")
            return met

        until(look, what, timeout, failed=lambda text: ManagerFailed(f"{text}:\n{self.log_end()}"))
