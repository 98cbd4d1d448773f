"""A real Prometheus scrapes a manager that runs."""

from __future__ import annotations

import contextlib
import json
import socket as sockets
import subprocess
import sys
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
from tests.system.sites import TEMPLATE, opened, site_of

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
        config = {"public": True, "status_group": "nogroup"}
        with site_of(folder, hub, NAME, mapping=mapping, template=TEMPLATE, config=config) as running:
            yield running


def exporter(site: ManagerProcess, socket: Path) -> list[str]:
    """The program of mep-metrics@.service, as an account that may ask by its group only.

    None of the helpers' accounts: a manager that starts meanwhile would refuse one that has other processes.
    """
    ids = ("--reuid=games", "--regid=games", "--groups=nogroup", "--inh-caps=-all", "--no-new-privs")
    return ["/usr/bin/setpriv", *ids, sys.executable, "-I", "-m", "mep.exporter.server", str(socket)]


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
        on_tcp(exporter(site, socket)) as address,
        opened(site.profile.parents[0]),
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


def asked(address: str, sent: bytes) -> bytes:
    """All that comes back, to the end of the connection, however it ends."""
    host, port = address.split(":")
    came = b""
    with (
        contextlib.suppress(ConnectionError),
        sockets.create_connection((host, int(port)), timeout=60) as connection,
    ):
        connection.sendall(sent)
        while part := connection.recv(65536):
            came += part
    return came


def test_nothing_but_metrics_is_reached_by_tcp(site: ManagerProcess) -> None:
    socket = site.folder / "run" / NAME / "api.sock"
    others = (
        *("GET /v1/status", "GET /v1/user-endpoints", "GET /metrics/../v1/status", "GET /metrics?x=1", "POST /metrics"),
        *("GET http://localhost/v1/status", "get /metrics", "GET  /v1/status", "\r\nGET /v1/status"),
    )
    with on_tcp(exporter(site, socket)) as address, opened(site.profile.parents[0]):
        answer = asked(address, b"GET /metrics HTTP/1.1\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 OK") and b"mep_connected 1" in answer
        for other in others:
            said = asked(address, f"{other} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert said.startswith(b"HTTP/1.1 404 "), other
        twice = asked(address, b"GET /metrics HTTP/1.1\r\n\r\nGET /v1/user-endpoints HTTP/1.1\r\nHost: x\r\n\r\n")
        assert twice.count(b"HTTP/1.1") == 1 and b'user_endpoints"' not in twice
        assert asked(address, b"GET /metrics " + b"x" * 100_000) == b"", "too long"
        assert asked(address, b"GET /metrics HTTP/1.1\r\n") == b"", "its time is over"
        host, port = address.split(":")
        silent = [sockets.create_connection((host, int(port))) for _ in range(40)]
        until(lambda: asked(address, b"GET /metrics HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 200"), "room again")
        for each in silent:
            each.close()
