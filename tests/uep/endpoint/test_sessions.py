"""The broker, the network and the credentials come and go: an endpoint goes on."""

from __future__ import annotations

import asyncio
import signal
import uuid
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from lab.accounts import LocalAccount
from lab.broker import PrivateBroker
from lab.certificates import Authority
from lab.proxy import Proxy
from lab.waiting import until
from tests.strangers import Listener
from tests.uep import functions
from tests.uep.in_process import run_endpoint
from tests.uep.program import THREADS, StartUep, kept_results
from tests.uep.service import Service
from uep import endpoint

pytestmark = pytest.mark.system


def test_broker_restart(start_uep: StartUep, service: Service, broker: PrivateBroker) -> None:
    uep = start_uep()
    assert service.call(functions.double, 1) == 2
    running = service.send(functions.sleep, 1.5)
    service.heartbeat_where(lambda beat: beat["outstanding_tasks"] == 1)
    broker.stop()
    uep.log_says("next attempt")
    until(lambda: kept_results(uep.directory) == [running], "the result to be kept")
    broker.start()
    service.connect()
    assert service.value(service.result(30)) == 1.5
    assert service.call(functions.double, 2) == 4
    assert service.heartbeat()["active"]
    until(lambda: kept_results(uep.directory) == [], "the results to be forgotten, once the broker has confirmed them")


def test_results_without_broker_are_sent_by_the_successor(
    start_uep: StartUep, service: Service, broker: PrivateBroker
) -> None:
    uep = start_uep()
    task = service.send(functions.sleep, 1)
    service.heartbeat_where(lambda beat: beat["outstanding_tasks"] == 1)
    broker.stop()
    until(lambda: kept_results(uep.directory) == [task], "the result to be kept")
    assert uep.stop(signal.SIGKILL) == -signal.SIGKILL
    broker.start()
    service.connect()
    start_uep()
    result = service.result(30)
    assert (result.task_id, service.value(result)) == (task, 1)


def test_refreshed_credentials(start_uep: StartUep, service: Service, broker: PrivateBroker) -> None:
    first, second = f"u{uuid.uuid4().hex[:8]}", f"u{uuid.uuid4().hex[:8]}"
    for user in (first, second):
        broker.ctl("add_user", user, "old")
        broker.ctl("set_permissions", "-p", broker.vhost, user, ".*", ".*", ".*")
    url = f"amqp://{first}:old@127.0.0.1:{broker.port}/{broker.vhost}"
    uep = start_uep(amqp_creds=service.credentials(url))
    assert service.call(functions.double, 1) == 2
    broker.ctl("change_password", first, "new")
    broker.ctl("close_all_connections", "--vhost", broker.vhost, "rotated")
    service.connect()
    uep.log_says("refuses this user and password")
    uep.refresh(service.credentials(url.replace(first, second)))
    assert service.call(functions.double, 2) == 4
    assert ":old@" not in uep.log.read_text()


def test_password_that_was_revoked_while_the_network_was_away(
    start_uep: StartUep, service: Service, broker: PrivateBroker
) -> None:
    """Each attempt reads the newest credentials; those that are refused are tried again, until there are others."""
    user = f"u{uuid.uuid4().hex[:8]}"
    broker.ctl("add_user", user, "old-word")
    broker.ctl("set_permissions", "-p", broker.vhost, user, ".*", ".*", ".*")
    with Proxy(broker.port) as network:
        url = f"amqp://{user}:old-word@127.0.0.1:{network.port}/{broker.vhost}"
        uep = start_uep(amqp_creds=service.credentials(url))
        task = service.send(functions.sleep, 4)
        uep.log_says("taking tasks")
        network.cut()
        uep.log_says("next attempt")
        broker.ctl("change_password", user, "new-word")
        network.resume()
        told = "refuses this user and password (expired credentials? the next start command refreshes them)"
        uep.log_says(told, 60)  # an attempt that was under way may hang until OPEN_TIMEOUT
        until(lambda: uep.log.read_text().count("refuses this user") > 2, "three refusals", 60)
        uep.refresh(service.credentials(url.replace("old-word", "new-word")))
        service.connect()
        result = service.result(60)
        assert (result.task_id, service.value(result)) == (task, 4)
        assert service.call(functions.double, 2) == 4
        assert "-word" not in uep.log.read_text()


def test_queues_that_are_deleted_and_come_back(start_uep: StartUep, service: Service) -> None:
    """Meanwhile results are kept, and the endpoint goes on trying."""
    uep = start_uep()
    assert service.call(functions.double, 1) == 2
    running = service.send(functions.sleep, 2)
    service.heartbeat_where(lambda beat: beat["outstanding_tasks"] == 1)
    for kind in ("tasks", "results"):
        service.channel.queue_delete(f"{service.endpoint_id}.{kind}")
    uep.log_says("the broker cancelled the consumer: its queue is gone")
    uep.log_says("no queue")
    uep.log_says("not taken by the broker, sent again in 30 s", 30)
    assert uep.process.poll() is None
    again = Service(service.url, service.endpoint_id)
    try:
        results = [again.result(60)]
        later = again.send(functions.double, 2)
        results.append(again.result(60))
    finally:
        again.close()
    assert {result.task_id: again.value(result) for result in results} == {running: 2, later: 4}


def test_broker_that_is_short_of_memory(
    start_uep: StartUep, service: Service, broker: PrivateBroker, tmp_path: Path
) -> None:
    """It confirms nothing, and says nothing. The endpoint still sees that it is idle, and the result is kept."""
    uep = start_uep(
        "heartbeat_period: 1.5\nidle_heartbeats_soft: 1\nidle_heartbeats_hard: 8\n" + THREADS.split("\n", 1)[1]
    )
    go = tmp_path / "go"
    task = service.send(functions.wait_for, str(go))
    uep.log_says("taking tasks")
    broker.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
    go.touch()
    try:
        uep.log_says("heartbeat not confirmed within 5 s", 60)
        assert uep.process.wait(120) == 0
        assert "idle_heartbeats_hard" in uep.log.read_text()
    finally:
        broker.ctl("set_vm_memory_high_watermark", "0.4")
    service.connect()
    start_uep()
    result = service.result(60)
    assert (result.task_id, service.value(result)) == (task, None)


def test_different_urls_for_each_queue(start_uep: StartUep, service: Service, broker: PrivateBroker) -> None:
    credentials = service.credentials()
    for kind in ("task", "result"):
        user = f"{kind}{uuid.uuid4().hex[:8]}"
        broker.ctl("add_user", user, "p")
        broker.ctl("set_permissions", "-p", broker.vhost, user, ".*", ".*", ".*")
        info = credentials[f"{kind}_queue_info"]
        info["connection_url"] = f"amqp://{user}:p@127.0.0.1:{broker.port}/{broker.vhost}"
    uep = start_uep(amqp_creds=credentials)
    assert service.call(functions.double, 1) == 2
    broker.ctl("close_all_connections", "--vhost", broker.vhost, "test")
    service.connect()
    assert service.call(functions.double, 2) == 4
    assert uep.stop() == 0


def test_over_tls(start_uep: StartUep, tmp_path: Path) -> None:
    """With an authority of the site's own, as user_environment.yaml names it, and without; `amqp_port` on all three."""
    authority = Authority("a site's CA")
    authority.write(tmp_path / "ca.pem")
    authority.issue("localhost").write(tmp_path / "broker.pem")
    with PrivateBroker(tmp_path / "broker", certificate=tmp_path / "broker.pem") as broker:
        service = Service(broker.url, str(uuid.uuid4()))
        nobody_there = broker.tls_url.replace(f":{broker.tls_port}/", ":1/")
        settings = f"amqp_port: {broker.tls_port}\n{THREADS}"
        distrustful = start_uep(settings, amqp_creds=service.credentials(nobody_there))
        distrustful.log_says("certificate is refused")
        assert distrustful.stop() == 0
        trust = {"SSL_CERT_FILE": str(tmp_path / "ca.pem")}
        uep = start_uep(settings, amqp_creds=service.credentials(nobody_there), environment=trust)
        assert service.call(functions.double, 1) == 2
        assert service.heartbeat()["active"]
        assert {c.raddr.port for c in psutil.Process(uep.process.pid).net_connections()} == {broker.tls_port}
        assert uep.stop() == 0
        service.close()
    assert str(urlsplit(broker.url).password) not in uep.log.read_text()


def test_told_to_stop_before_it_could_connect(start_uep: StartUep, service: Service) -> None:
    credentials = service.credentials("amqp://guest:secret-word@127.0.0.1:1/%2F")
    uep = start_uep(amqp_creds=credentials)
    uep.log_says("next attempt")
    assert uep.stop() == 0
    assert "secret-word" not in uep.log.read_text()


def test_a_stranger_on_the_port_of_the_broker_is_told_no_password(
    root: None, start_uep: StartUep, service: Service
) -> None:
    """It is an ordinary account's while the broker is down."""
    with LocalAccount("meptest_uepbroker") as eve:
        listener = Listener("127.0.0.1", eve.uid)
        url = f"amqp://uep:secret-word@127.0.0.1:{listener.port}/mep"
        uep = start_uep(amqp_creds=service.credentials(url))
        uep.log_says(f"listened on by an ordinary account (uid {eve.uid})")
        assert uep.stop() == 0
        assert listener.heard() == []
    assert "secret-word" not in uep.log.read_text()


def test_gives_up_without_a_broker(
    start_uep: StartUep, service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "START_PATIENCE", 0.5)
    nowhere = service.credentials("amqp://guest:guest@127.0.0.1:1/%2F")
    assert asyncio.run(run_endpoint(tmp_path, service, nowhere)) == 69
