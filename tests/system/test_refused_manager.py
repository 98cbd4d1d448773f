"""A manager that broker or service do not want any more."""

from __future__ import annotations

import os
from typing import Any

import pytest

from hub.amqp import topology
from lab.broker import PrivateBroker
from lab.client import run_script
from lab.hub import HubProcess
from lab.manager import ManagerProcess
from lab.waiting import until
from tests.system.clients import caller
from tests.system.sites import own_site

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


def test_a_manager_whose_queue_is_removed_registers_anew_and_keeps_user_endpoints(
    site: ManagerProcess, run: Any, broker: PrivateBroker
) -> None:
    before = run("alice")["pid"]
    seen = len(site.log.read_text())
    broker.ctl("delete_queue", topology.command_queue(site.endpoint_id))

    def said() -> str:
        return site.log.read_text()[seen:]

    until(lambda: "consumes start commands" in said(), "it to consume from a new queue")
    assert "the broker cancelled the consumer: its queue is gone" in said()
    assert "the service has given new queues and passwords" in said()
    assert ": connected;" in site.run("status", site.name).stdout
    assert run("alice")["pid"] == before
    assert run("bob")["pid"] != before


def test_a_manager_whose_endpoint_is_deleted_ends_and_is_not_started_again_by_systemd(
    site: ManagerProcess, hub: HubProcess
) -> None:
    process = site._process
    assert process is not None
    run_script(hub, "admin", DELETE, site.endpoint_id)
    code = until(lambda: process.poll() is not None, "it to end", 120) and process.returncode
    assert code == os.EX_DATAERR, site.log_end()
    assert "delete endpoint.json to register a new one" in site.log_end()
    site._process = None
    (site.profile / "endpoint.json").unlink()
    site.start()
