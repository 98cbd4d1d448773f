"""A real Prometheus scrapes a manager that runs."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.accounts import LocalAccount
from lab.client import run_script
from lab.hub import HubProcess
from lab.manager import ManagerProcess
from lab.ports import free_ports, is_free
from lab.prometheus import PROGRAM, Prometheus
from lab.waiting import until
from tests.conftest import need
from tests.system.sites import TEMPLATE, site_of

pytestmark = pytest.mark.system

ACCOUNT = "mepmetrics_alice"
NAME = "metrics"
ACTIVATE = "/usr/bin/systemd-socket-activate"
TASK = """
import json, os, sys
from globus_compute_sdk import Executor
with Executor(endpoint_id=sys.argv[1]) as ex:
    print(json.dumps(ex.submit(os.getpid).result(timeout=90)), flush=True)
"""
REFUSED = TASK.replace("ex.submit(os.getpid).result", "str(ex.submit(os.getpid).exception").replace("=90)", "=90))")


@pytest.fixture(scope="module")
def site(root: None, folder: Path, hub: HubProcess) -> Iterator[ManagerProcess]:
    with LocalAccount(ACCOUNT):
        mapping = [{"source": "{username}", "match": "alice@example\\.org", "output": ACCOUNT}]
        config = {"public": True}
        with site_of(folder, hub, NAME, mapping=mapping, template=TEMPLATE, config=config) as running:
            yield running


@contextlib.contextmanager
def on_tcp(program: list[str]) -> Iterator[str]:
    """The address on which systemd's own tool listens for a program that is activated by its socket."""
    need(Path(ACTIVATE).exists(), "needs systemd-socket-activate")
    (port,) = free_ports(1)
    process = subprocess.Popen([ACTIVATE, "-l", f"127.0.0.1:{port}", *program], stderr=subprocess.DEVNULL)
    try:
        until(lambda: not is_free(port), "somebody who listens")
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def test_prometheus_scrapes_what_has_happened(site: ManagerProcess, hub: HubProcess, tmp_path: Path) -> None:
    need(Path(PROGRAM).exists(), "needs Prometheus (lab/setup prometheus)")
    run_script(hub, "alice", TASK, site.endpoint_id)
    run_script(hub, "bob", REFUSED, site.endpoint_id)
    site.wait_for("checked in")
    socket = site.folder / "run" / NAME / "api.sock"
    with (
        on_tcp(["/usr/lib/systemd/systemd-socket-proxyd", str(socket)]) as address,
        Prometheus(tmp_path, address) as prometheus,
    ):

        def value(expression: str) -> float | None:
            found = prometheus.query(expression)
            return float(found[0]["value"][1]) if len(found) == 1 else None

        until(lambda: value("up") == 1, "a scrape that went well")
        until(lambda: value('sum(mep_user_endpoints{engine="ThreadPoolEngine"})') == 1, "what it says of its engine")
        assert value("mep_connected") == 1 and value("sum(mep_trouble)") == 0
        assert value('mep_starts_total{outcome="started"}') == 1
        assert value('mep_refusals_total{stage="identity"}') == 1
        for step in ("identification", "preparation", "launch", "check_in"):
            assert value(f'mep_start_step_seconds_count{{step="{step}"}}') == 1, step
        assert value("sum(mep_starts_under_way)") == 0
        ours = {each["metric"]["process"] for each in prometheus.query("mep_process_resident_memory_bytes > 1000000")}
        assert ours == {"manager", "worker", "mapper", "name service", "renderer", "audit"}
        names = json.dumps(prometheus.query('{__name__=~"mep_.*"}'))
        assert ACCOUNT not in names and "example.org" not in names
