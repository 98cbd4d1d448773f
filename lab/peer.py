"""The public package, unmodified, in an environment of its own: its manager, and its user endpoint program.

MEP_PEER names the environment; `lab/setup peer` makes it (the Makefile does both).
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import yaml

from lab.hub import HubProcess
from lab.manager import ManagerFailed
from lab.process import end
from lab.waiting import until

START_TIMEOUT = 60.0


def program() -> Path:
    """The public package's program, whether it is there or not."""
    return Path(os.environ.get("MEP_PEER", "/opt/mep-dev/peer")) / "bin" / "globus-compute-endpoint"


def configure(folder: Path, name: str, environment: Mapping[str, str]) -> Path:
    """The profile that the public package's `configure` makes in `folder`, untouched. Raises ManagerFailed."""
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    done = subprocess.run(
        [program(), "configure", "--contact-email", "a@example.org", name],
        env={**environment, "GLOBUS_COMPUTE_USER_DIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ManagerFailed(f"the public `configure`: {done.stdout}{done.stderr}")
    return folder / name


class PublicManager:
    """The public manager as root with identity mapping. A context manager configures, starts and stops it."""

    def __init__(
        self,
        folder: Path,
        hub: HubProcess,
        user: str,
        *,
        mapping: Sequence[Mapping[str, str]],
        template: str,
        names: Path | None = None,
    ) -> None:
        """`user` of the hub registers the endpoint; `mapping` are the mappings of one expression document.

        `names` is a folder in which user endpoints find their program, if it is not the public package's.
        """
        self.folder = folder.absolute()
        self.endpoint_id = ""
        self._hub = hub
        self._user = user
        self._mapping = mapping
        self._template = template
        self._names = names or program().parent
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def profile(self) -> Path:
        """The folder that its `configure` makes."""
        return self.folder / "public"

    @property
    def pid(self) -> int:
        """The running manager's process id."""
        assert self._process is not None, "the public manager is not running"
        return self._process.pid

    def __enter__(self) -> PublicManager:
        self._configure()
        self._start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        process, self._process = self._process, None
        end(process, "the public manager", ManagerFailed)

    def _environment(self) -> dict[str, str]:
        return {
            **self._hub.client_environment(self._user),
            "GLOBUS_COMPUTE_USER_DIR": str(self.folder),
            "PATH": f"{program().parent}:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
        }

    def _configure(self) -> None:
        configure(self.folder, "public", self._environment())
        document = [{"DATA_TYPE": "expression_identity_mapping#1.0.0", "mappings": list(self._mapping)}]
        mapping = self.profile / "example_identity_mapping_config.json"
        mapping.write_text(json.dumps(document))
        (self.profile / "user_config_template.yaml.j2").write_text(self._template)
        (self.profile / "user_config_schema.json").write_text("{}")
        # Its user endpoints look for their program in PATH.
        (self.profile / "user_environment.yaml").write_text(f"PATH: {self._names}:/usr/bin:/bin\n")
        config = yaml.safe_load((self.profile / "config.yaml").read_text())
        config |= {"public": True, "local_compute_services": True, "identity_mapping_config_path": str(mapping)}
        (self.profile / "config.yaml").write_text(yaml.safe_dump(config))

    def _start(self) -> None:
        with (self.folder / "console.log").open("wb") as log:
            self._process = subprocess.Popen(
                [program(), "start", "--log-to-console", "public"],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # at its end it signals its whole process group
            )
        try:
            until(self._begins, "the public manager to start", START_TIMEOUT, failed=ManagerFailed)
        except ManagerFailed as e:
            self._process.kill()
            self._process.wait()
            raise ManagerFailed(f"{e}:\n{self._said()[-2000:]}") from None
        self.endpoint_id = json.loads((self.profile / "endpoint.json").read_text())["endpoint_id"]

    def _begins(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise ManagerFailed("the public manager ended")
        return "Core Endpoint begins" in self._said()

    def _said(self) -> str:
        return (self.folder / "console.log").read_text(errors="replace")
