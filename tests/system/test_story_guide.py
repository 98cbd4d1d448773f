"""The guide for endpoints of one's own, from the first command to the last, on a terminal without a name for it."""

from __future__ import annotations

import re
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.accounts import LocalAccount
from lab.client import run_script
from lab.hub import HubProcess
from lab.process import signal_ours
from lab.waiting import until
from tests.system.clients import CALL
from tests.system.terminal import Terminal

pytestmark = pytest.mark.system

ACCOUNT = "mepguide_alice"
LIST = "globus-compute-endpoint list"


@pytest.fixture(scope="module")
def account(root: None) -> Iterator[LocalAccount]:
    with LocalAccount(ACCOUNT) as account:
        yield account


@pytest.fixture
def terminal(account: LocalAccount, hub: HubProcess, folder: Path) -> Terminal:
    return of(account, hub, folder, "alice")


def of(account: LocalAccount, hub: HubProcess, folder: Path, user: str) -> Terminal:
    credentials = hub.client_environment(user)
    del credentials["GLOBUS_COMPUTE_USER_DIR"]
    return Terminal(account, hub, folder, credentials)


def listed(terminal: Terminal, name: str) -> tuple[str, str]:
    """State and id of an endpoint, by `list`."""
    (line,) = re.findall(rf"^{name} +(\S+) +(\S+) +\d+$", terminal.type(LIST), re.MULTILINE)
    return line


def test_an_endpoint_without_a_name(terminal: Terminal, account: LocalAccount, hub: HubProcess) -> None:
    made = terminal.type("globus-compute-endpoint configure")
    profile = account.home / ".globus_compute" / "default"
    assert str(profile) in made
    assert (profile / "config.yaml").stat().st_mode & 0o077 == 0
    assert listed(terminal, "default") == ("stopped", "-")

    terminal.type("globus-compute-endpoint start --detach")
    _, endpoint_id = until(lambda: (found := listed(terminal, "default"))[0] == "running" and found, "it to run")
    (facts,) = run_script(hub, "alice", CALL, endpoint_id, "{}")
    assert facts["uid"] == account.uid

    terminal.type("globus-compute-endpoint stop")
    until(lambda: not account.processes(), "all of it to end")
    assert listed(terminal, "default") == ("stopped", endpoint_id)
    assert "not running" in terminal.type("globus-compute-endpoint stop"), "typed twice"


def test_an_endpoint_that_was_not_stopped_in_order(terminal: Terminal, account: LocalAccount) -> None:
    """As after a crash of the host: `list` says so, and the next start or stop tidies up."""
    terminal.type("globus-compute-endpoint start --detach")
    until(lambda: listed(terminal, "default")[0] == "running", "it to run")
    (manager,) = [pid for pid in account.processes() if is_manager(pid)]
    signal_ours(manager, signal.SIGKILL)
    until(lambda: manager not in account.processes(), "it to end")
    assert listed(terminal, "default")[0] == "failed"
    terminal.type("globus-compute-endpoint stop")
    terminal.type("globus-compute-endpoint start --detach")
    until(lambda: listed(terminal, "default")[0] == "running", "it to run again")
    terminal.type("globus-compute-endpoint stop")
    until(lambda: not account.processes(), "all of it to end")


def is_manager(pid: int) -> bool:
    return Path(f"/proc/{pid}/comm").read_text() == "mep-manager\n"


def test_nobody_else_starts_it(account: LocalAccount, hub: HubProcess, folder: Path) -> None:
    """With the same files, and another identity."""
    refused = of(account, hub, folder, "bob").type(
        "globus-compute-endpoint start --log-to-console || echo ended with $?"
    )
    assert "ended with" in refused
    assert "belongs to another identity" in refused, refused


@pytest.mark.parametrize(("begun", "completed"), [("sta", ["start", "status"]), ("list", ["list"])])
def test_words_are_completed(terminal: Terminal, begun: str, completed: list[str]) -> None:
    """By what is installed for the shell that is begun next."""
    terminal.type("globus-compute-endpoint --install-completion bash")
    asking = (
        f"COMP_WORDS=(globus-compute-endpoint {begun}) COMP_CWORD=1;"
        " _globus_compute_endpoint_completion globus-compute-endpoint;"
        ' printf "%s\\n" "${COMPREPLY[@]}"; complete -p globus-compute-endpoint'
    )
    said = terminal.type(f"bash -i -c {shlex.quote(asking)} 2>/dev/null").splitlines()
    assert [word for word in completed if word in said] == completed
    assert said[-1].endswith("-F _globus_compute_endpoint_completion globus-compute-endpoint")
