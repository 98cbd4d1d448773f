"""docs/debugging.md as something to type: the commands under its headings, at a manager of one's own."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from lab.accounts import LocalAccount
from lab.client import output_of
from lab.hub import HubProcess
from lab.manager import MEP, ManagerProcess
from lab.process import signal_ours

pytestmark = pytest.mark.system

DOCUMENT = Path(__file__).parents[2] / "docs" / "debugging.md"
ACCOUNT = "meptest_debug"
KEEPER = "/usr/local/libexec/keep-handover"
TEMPLATE = "heartbeat_period: 5\nidle_heartbeats_soft: 100\nengine: {type: {{ engine }}, max_workers: 1}\n"
CALL = """
import sys
from globus_compute_sdk import Executor
def call():
    import os
    return os.getuid(), os.getpid()
options = {"engine": "ThreadPoolEngine", "for": sys.argv[2]}
with Executor(endpoint_id=sys.argv[1], user_endpoint_config=options) as ex:
    print(*ex.submit(call).result(timeout=60))
"""


@pytest.fixture(scope="module")
def account(root: None) -> Iterator[LocalAccount]:
    with LocalAccount(ACCOUNT) as made:
        yield made


@pytest.fixture(scope="module")
def manager(folder: Path, hub: HubProcess, account: LocalAccount) -> Iterator[ManagerProcess]:
    mapping = [{"source": "{username}", "match": "alice@example\\.org", "output": account.name}]
    with ManagerProcess(
        folder / "debugging",
        hub,
        "admin",
        mapping=mapping,
        template=TEMPLATE,
        schema={"properties": {"engine": {"type": "string"}}},
        config={"public": True, "unknown_options": "ignore"},
        name="debug",
    ) as running:
        yield running


class Shell:
    """Types what stands under a heading as root would, in `folder`; says what it said."""

    def __init__(self, manager: ManagerProcess, folder: Path) -> None:
        self._manager = manager
        self.folder = folder
        self.variables: dict[str, str] = {}

    def text(self, heading: str) -> str:
        """The commands, with what this site has in other places."""
        (section,) = re.findall(
            rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL
        )
        (block,) = re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
        assert isinstance(block, str)
        return block.replace(os.path.dirname(KEEPER), str(self._manager.folder / "libexec"))

    def environment(self) -> Mapping[str, str]:
        run = self._manager.folder / "run" / self._manager.name
        return {
            **self._manager.environment,
            "PATH": f"{Path(MEP).parent}:/usr/sbin:/usr/bin:/sbin:/bin",
            "NAME": self._manager.name,
            "ETC": str(self._manager.profile),
            "RUN": str(run),
            "TRAIL": str(self._manager.folder / "audit.log"),
            "LOG": str(self._manager.profile / "endpoint.log"),
            "ACCOUNT": ACCOUNT,
            "WHO": "alice@example.org",
            "OPTIONS": '{"engine": "ThreadPoolEngine"}',
            "PYTHON": sys.executable,
            **self.variables,
        }

    def start(self, heading: str, then: str = "") -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["/bin/bash", "-euo", "pipefail", "-c", self.text(heading) + then],
            cwd=self.folder,
            env=self.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def type(self, heading: str, then: str = "", answer: str = "") -> str:
        """Types it, and `answer` when it asks; it must succeed."""
        process = self.start(heading, then)
        said, _ = process.communicate(answer, timeout=120)
        assert process.returncode == 0, said
        return said


@pytest.fixture
def shell(manager: ManagerProcess, tmp_path: Path) -> Shell:
    return Shell(manager, tmp_path)


def call(hub: HubProcess, manager: ManagerProcess, what: str = "all") -> tuple[int, int]:
    """The uid and the pid of a task of alice's, in a user endpoint of its own for each `what`."""
    uid, pid = map(int, output_of(hub, "alice", CALL, manager.endpoint_id, what).split())
    return uid, pid


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """What the process says until it says `text`."""
    assert process.stdout is not None
    said = ""
    while text not in said:
        assert select.select([process.stdout], [], [], 60)[0], f"silent after: {said}"
        more = os.read(process.stdout.fileno(), 2**16).decode()
        assert more, f"ended after: {said}"
        said += more
    return said


def test_what_became_of_a_request(shell: Shell, hub: HubProcess, manager: ManagerProcess) -> None:
    call(hub, manager)
    shell.variables = {"REQUEST": manager.audit("mapped")[-1]["request"]}
    said = shell.type("What became of a request")
    for event in ("received", "mapped"):
        assert f'"event": "{event}"' in said


def test_what_would_become_of_one(shell: Shell, account: LocalAccount) -> None:
    said = shell.type("What would become of one")
    assert f"account   {account.name} (uid {account.uid}," in said
    assert said.count('type: "ThreadPoolEngine"') == 2, "explain and render"


def test_what_runs(shell: Shell, hub: HubProcess, manager: ManagerProcess) -> None:
    _, pid = call(hub, manager)
    said = shell.type("What runs")
    for words in ("mep.accounts.server", "mep.renderer.server", "mep-uep", f'"pid": {pid}'):
        assert words in said


def test_a_child_at_the_gate(shell: Shell, account: LocalAccount) -> None:
    said = shell.type("A child at the gate", answer="\n")
    assert "pipe_read\nUid:\t0\t0\t0\t0\n" in said
    assert f"uid={account.uid}({account.name})" in said
    assert "failed step: None" in said


def test_a_user_endpoint_by_hand(shell: Shell, hub: HubProcess, manager: ManagerProcess, account: LocalAccount) -> None:
    config = manager.profile / "config.yaml"
    untouched = config.read_bytes()
    shell.type("A user endpoint by hand: keep its hand-over")
    manager.reload()
    _, kept = call(hub, manager, "by hand")
    found = "\necho UEP=$UEP\n"
    name = re.findall("UEP=(.*)", shell.type("A user endpoint by hand: end the one that runs", then=found))[0]
    manager.wait_for("exited", pid=kept, ending="exit status 0")
    shell.variables = {"UEP": name}
    process = shell.start("A user endpoint by hand: run it")
    try:
        assert "INFO uep" in read_until(process, "taking tasks from the broker")
        uid, pid = call(hub, manager, "by hand")
        assert uid == account.uid
        assert pid in family(process.pid), "ours answered, not the manager's"
    finally:
        for pid in family(process.pid):
            with contextlib.suppress(ProcessLookupError):
                signal_ours(pid, signal.SIGTERM)
        process.communicate(timeout=60)
        config.write_bytes(untouched)
        assert "profile reloaded\n" in manager.reload()


def family(ancestor: int) -> set[int]:
    """A process and its descendants: `runuser -l` puts a process of its own in between."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    found = {ancestor}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found
