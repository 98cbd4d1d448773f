"""The same client scripts against our user endpoint and the public one: same values, same exceptions.

Each script also states what it expects, so that both ends being wrong in the same way does not pass.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lab import peer
from lab.accounts import LocalAccount
from lab.client import run_script
from lab.hub import HubProcess
from lab.manager import ManagerProcess
from tests.compare.scripts.run import all_scripts, whole_program
from tests.compare.scripts.script import PARSL, PROCESSES, THREADS
from tests.conftest import need

pytestmark = pytest.mark.system

Said = Callable[[str, str], dict[str, Any]]

ACCOUNT = "mepcompare_alice"
MAPPING = [{"source": "{username}", "match": "alice@example\\.org", "output": ACCOUNT}]
TEMPLATE = """\
heartbeat_period: 5
engine:
  type: {{ ENGINE | default("ThreadPoolEngine") }}
{%- if ENGINE is defined and "Globus" in ENGINE %}
  address: 127.0.0.1
  max_workers_per_node: 1
  run_in_sandbox: true
  heartbeat_period: 2  # Parsl looks for lost workers as often
  provider: {type: LocalProvider, init_blocks: 1, min_blocks: 0, max_blocks: 1}
{%- else %}
  max_workers: 1
{%- endif %}
"""
# Our engine, and the public one that it is compared with. The public process pool hangs now and then.
SCRIPTS = all_scripts()
PAIRS = ((THREADS, THREADS), (PROCESSES, THREADS), (PARSL, PARSL))
CASES = [(ours, theirs, name) for ours, theirs in PAIRS for name, each in SCRIPTS.items() if ours in each.engines]

RUN_TIMEOUT = 300.0

NEVER_ANSWERED = "only an Exception is caught there, and nobody answers the task"
WORKER_ENDS = "only an Exception is caught there, so the worker ends, and the user is told that it was lost"
NOT_PACKED = "such a text cannot be sent there, and the user sees that error instead"
DIFFERENCES = {
    (THREADS, "text_of_exception_is_no_utf8"): NOT_PACKED,
    (PARSL, "text_of_exception_is_no_utf8"): NOT_PACKED,
    (THREADS, "system_exit"): NEVER_ANSWERED,
    (THREADS, "keyboard_interrupt"): NEVER_ANSWERED,
    (THREADS, "base_exception"): NEVER_ANSWERED,
    (PARSL, "killed_worker"): "does not say how the process ended",
    (PARSL, "system_exit"): WORKER_ENDS,
    (PARSL, "keyboard_interrupt"): WORKER_ENDS,
    (PARSL, "base_exception"): WORKER_ENDS,
}
"""Where the public user endpoint does worse, by its engine and the script, and why."""

MACHINERY = ("/globus_compute_endpoint/", "/parsl/", "/concurrent/futures/")


@pytest.fixture(scope="module")
def said(folder: Path, hub: HubProcess, root: None) -> Iterator[Said]:
    """`said(side, engine)`: the outcomes of all scripts there, by their names."""
    need(peer.program().exists(), "needs the public package: lab/setup peer")
    program = folder / "comparison.py"
    program.write_text(whole_program())
    public = {"uep_command": [str(peer.program()), "_start-user-endpoint"]}

    def manager(side: str, config: dict[str, Any]) -> ManagerProcess:
        config = {"public": True, **config}
        return ManagerProcess(
            folder / side, hub, "admin", mapping=MAPPING, template=TEMPLATE, schema={}, config=config, name=side
        )

    def run(side: str, engine: str, endpoint_id: str) -> dict[str, Any]:
        # The default engine is the one of calls without options, such as Client.run.
        config = {} if engine == THREADS else {"ENGINE": engine}
        arguments = (endpoint_id, engine, json.dumps(config))
        (outcomes,) = run_script(hub, "alice", program, *arguments, timeout=RUN_TIMEOUT)
        assert isinstance(outcomes, dict)
        return outcomes

    with (
        LocalAccount(ACCOUNT),
        manager("compare-ours", {}) as ours,
        manager("compare-public", public) as theirs,
        ThreadPoolExecutor(2) as pool,
    ):
        running = {("theirs", THREADS): pool.submit(run, "theirs", THREADS, theirs.endpoint_id)}
        for engine in (THREADS, PROCESSES, PARSL):
            running["ours", engine] = pool.submit(run, "ours", engine, ours.endpoint_id)
        running["theirs", PARSL] = pool.submit(run, "theirs", PARSL, theirs.endpoint_id)
        yield lambda side, engine: running[side, engine].result()


@pytest.mark.parametrize(("ours", "theirs", "name"), CASES, ids=[f"{ours}-{name}" for ours, _, name in CASES])
def test_a_script_ends_at_ours_as_at_the_public_one(said: Said, ours: str, theirs: str, name: str) -> None:
    script = SCRIPTS[name]
    here = said("ours", ours)[name]
    assert here.items() >= script.expected.items()
    frames = here.get("frames", [])
    assert not [file for file, _ in frames if "/uep/" in file], frames
    if theirs not in script.engines:
        return
    there = said("theirs", theirs)[name]
    if (theirs, name) in DIFFERENCES:
        assert comparable(there) != comparable(here), "no difference any more"
    else:
        assert comparable(there) == comparable(here)


def comparable(outcome: dict[str, Any]) -> dict[str, Any]:
    """What must be the same. Of a traceback only the user's last frame: the public one leaves out the first of several,
    and shows its own."""
    same = {key: outcome[key] for key in ("value", "error", "remote") if key in outcome}
    frames = [function for file, function in outcome.get("frames", []) if not any(each in file for each in MACHINERY)]
    return {**same, "raised in": frames[-1:]}
