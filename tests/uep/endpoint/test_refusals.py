"""What an endpoint refuses to start with, or to run, and who is told."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest

from lab.broker import PrivateBroker
from tests.uep import functions
from tests.uep.program import THREADS, StartUep
from tests.uep.service import Service

pytestmark = pytest.mark.system


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("idle_heartbeat_soft: 1\n" + THREADS, "did you mean 'idle_heartbeats_soft'"),
        ("engine: {type: ThreadPoolEngine, workers: 2}", "ThreadPoolEngine: unknown option 'workers'"),
        ("engine: [", "not YAML"),
        ("engine: {type: GlobusComputeEngine, provider: {type: LocalProvider, max_block: 1}}", "unknown option"),
        ("endpoint_setup: exit 4\n" + THREADS, "endpoint_setup failed with exit code 4"),
        ("endpoint_setup: echo no licence; exit 4\n" + THREADS, "the end of its output:\nno licence"),
        ("setup_timeout: 1\nendpoint_setup: echo busy; sleep 3600\n" + THREADS, "ended after"),
    ],
)
def test_configuration_that_cannot_be_used(config: str, says: str, start_uep: StartUep, service: Service) -> None:
    uep = start_uep(config, request_id="97e0271e")
    assert uep.process.wait(15) == 78
    assert "failed " in os.read(uep.ready, 1 << 16).decode()
    notice = service.heartbeat_where(lambda beat: "error" in beat)
    assert says in notice["error"] and notice["error"].endswith("(request 97e0271e)")
    assert notice["heartbeat_period"] == 3
    assert str(uep.directory) not in notice["error"]


def test_configuration_that_cannot_be_used_is_told_through_the_right_port(
    start_uep: StartUep, service: Service, broker: PrivateBroker
) -> None:
    elsewhere = service.credentials(broker.url.replace(f":{broker.port}/", ":1/"))
    uep = start_uep(f"amqp_port: {broker.port}\nno_such_key: 1\n{THREADS}", amqp_creds=elsewhere)
    assert uep.process.wait(15) == 78
    assert "no_such_key" in service.heartbeat_where(lambda beat: "error" in beat)["error"]


def test_a_broker_that_cannot_be_reached_is_told_to_the_manager(start_uep: StartUep, service: Service) -> None:
    uep = start_uep(amqp_creds=service.credentials("amqp://u:secret@localhost:1/"))
    uep.log_says("next attempt")
    said = os.read(uep.ready, 1 << 16).decode()
    assert said.startswith("trouble broker localhost:1, since ") and "secret" not in said


def test_directory_that_cannot_be_used(start_uep: StartUep, service: Service, tmp_path: Path) -> None:
    in_the_way = tmp_path / ".globus_compute" / "uep.test"
    in_the_way.mkdir(parents=True)
    (in_the_way / "unacked_results").touch()
    assert start_uep().process.wait(15) == 78
    assert "directory cannot be used" in service.heartbeat_where(lambda beat: "error" in beat)["error"]


@pytest.mark.parametrize(("raw", "config", "status"), [(b"", "", 78), (None, "engine: [", 78), (None, THREADS, 0)])
def test_a_log_on_a_full_disk_does_not_hide_the_exit_status(
    raw: bytes | None, config: str, status: int, start_uep: StartUep, tmp_path: Path
) -> None:
    log = tmp_path / ".globus_compute" / "uep.test" / "endpoint.log"
    log.parent.mkdir(parents=True)
    log.symlink_to("/dev/full")
    uep = start_uep(config, raw=raw)
    if status == 0:
        assert os.read(uep.ready, 6) == b"ready\n"
        assert uep.stop() == 0
    else:
        assert uep.process.wait(15) == status


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b"not JSON"])
def test_unusable_handover(raw: bytes, start_uep: StartUep) -> None:
    uep = start_uep(raw=raw)
    assert uep.process.wait(10) == 78
    assert "hand-over cannot be used" in uep.log.read_text()


@pytest.mark.parametrize("name", ["../x", "", "a/b", "-x"])
def test_unsafe_name(name: str, start_uep: StartUep, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir(exist_ok=True)
    assert start_uep(name=name).process.wait(10) == 64


def test_function_that_is_not_allowed(start_uep: StartUep, service: Service) -> None:
    allowed = str(uuid.uuid4())
    start_uep(allowed_functions=[allowed])
    buffer = service.pack(functions.double, 1)
    service.send_buffer(buffer)
    refused = service.result()
    assert refused.error_details is not None
    assert refused.error_details.code == "FUNCTION_NOT_ALLOWED"
    service.send_buffer(buffer, function_uuid=allowed)
    assert service.value(service.result()) == 2
