"""The way to the broker: its port, and a manager that broker or service do not want any more."""

from __future__ import annotations

import json
import os
import signal
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from hub.amqp import topology
from lab.broker import PrivateBroker
from lab.client import run_script
from lab.hub import HubProcess
from lab.manager import ManagerProcess
from lab.proxy import Proxy
from lab.waiting import until
from tests.system.clients import caller
from tests.system.sites import edited, own_site

pytestmark = pytest.mark.system

DELETE = """
import sys
from globus_compute_sdk import Client

Client().delete_endpoint(sys.argv[1])
"""
site = own_site("refused")


@pytest.fixture
def run(hub: HubProcess, site: ManagerProcess) -> Any:
    return caller(hub, site)


def test_the_port_of_the_profile_is_that_of_user_endpoints_too(
    site: ManagerProcess, run: Any, broker: PrivateBroker
) -> None:
    with Proxy(broker.port) as network, edited(site, amqp_port=network.port):
        pid = run("alice")["pid"]
        assert {each.raddr.port for each in psutil.Process(pid).net_connections("tcp") if each.raddr} == {network.port}
        line, code = broker_line(site)
        assert (line, code) == (f"ok    broker: 127.0.0.1 port {network.port}: takes our login, and has our queue", 0)


def broker_line(site: ManagerProcess) -> tuple[str, int]:
    done = site.run("check", site.name)
    return next(line for line in done.stdout.splitlines() if "broker: " in line), done.returncode


def test_check_logs_in_as_the_manager_and_takes_nothing_from_it(
    site: ManagerProcess, run: Any, broker: PrivateBroker
) -> None:
    before, seen = run("alice")["pid"], len(site.log.read_text())
    for _ in range(3):
        line, code = broker_line(site)
        assert (line, code) == (f"ok    broker: 127.0.0.1 port {broker.port}: takes our login, and has our queue", 0)
    assert run("alice")["pid"] == before
    assert "connection for" not in site.log.read_text()[seen:]


def test_check_says_that_the_broker_does_not_want_the_manager(site: ManagerProcess, broker: PrivateBroker) -> None:
    """The manager stands still meanwhile: one that goes on would have asked the service."""
    known = site.folder / "run" / site.name / "connection.json"
    assert known.stat().st_mode & 0o777 == 0o600
    right = known.read_text()
    facts = json.loads(right)
    os.kill(site.pid, signal.SIGSTOP)
    try:
        parts = urlsplit(facts["connection_url"])
        wrong = parts._replace(netloc=f"{parts.username}:hunter2@127.0.0.1:{broker.port}").geturl()
        known.write_text(json.dumps({**facts, "connection_url": wrong}))
        line, code = broker_line(site)
        assert code == os.EX_NOPERM
        assert f"FAIL  broker: the broker at 127.0.0.1 port {broker.port} refuses this user and password" in line
        assert "restart it" in line
        assert "hunter2" not in line
        known.write_text(right)
        broker.ctl("delete_queue", "-p", broker.vhost, topology.command_queue(site.endpoint_id))
        line, code = broker_line(site)
        assert code == os.EX_UNAVAILABLE
        assert "FAIL  broker: the queue of our start commands is gone" in line
        assert "the running manager asks the service for new ones" in line
    finally:
        os.kill(site.pid, signal.SIGCONT)
    until(lambda: broker_line(site)[0].startswith("ok"), "the manager to have a new queue")
    site.stop()
    try:
        broker.ctl("delete_queue", "-p", broker.vhost, topology.command_queue(site.endpoint_id))
        line, code = broker_line(site)
        assert (line[:13], code) == ("note  broker:", 0)
        assert "the next start asks the service" in line
    finally:
        site.start()


def test_a_manager_whose_queue_is_removed_registers_anew_and_keeps_user_endpoints(
    site: ManagerProcess, run: Any, broker: PrivateBroker
) -> None:
    before = run("alice")["pid"]
    seen = len(site.log.read_text())
    broker.ctl("delete_queue", "-p", broker.vhost, topology.command_queue(site.endpoint_id))

    def said() -> str:
        return site.log.read_text()[seen:]

    until(lambda: "consumes start commands" in said(), "it to consume from a new queue")
    assert "the broker cancelled the consumer: its queue is gone" in said()
    assert "the service has given new queues and passwords" in said()
    assert ": connected;" in site.run("status", site.name).stdout
    assert run("alice")["pid"] == before
    assert run("bob")["pid"] != before


def test_a_manager_whose_endpoint_is_deleted_ends_and_is_not_started_again_by_systemd(
    site: ManagerProcess, run: Any, hub: HubProcess
) -> None:
    """Its user endpoints end, too, though no manager is there to end them."""
    process = site._process
    assert process is not None
    user_endpoint = psutil.Process(run("alice")["pid"])
    run_script(hub, "admin", DELETE, site.endpoint_id)
    code = until(lambda: process.poll() is not None, "it to end", 120) and process.returncode
    assert code == os.EX_DATAERR, site.log_end()
    assert "delete endpoint.json to register a new one" in site.log_end()
    until(lambda: not user_endpoint.is_running(), "the user endpoint to end", 60)
    site._process = None
    (site.profile / "endpoint.json").unlink()
    site.start()
