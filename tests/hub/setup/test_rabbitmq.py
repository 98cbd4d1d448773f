"""Setting up a RabbitMQ as its package makes it, and a hub that does not serve before that."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pika
import pytest
from pika.exceptions import AMQPConnectionError, ChannelClosedByBroker

from hub.amqp import topology
from hub.setup import rabbitmq
from hub.setup.rabbitmq import Node
from hub.setup.steps import Found, SetupFailed
from lab.broker import PROGRAM, PrivateBroker
from lab.hub import HubFailed, HubProcess
from tests.conftest import need
from tests.hub.units import new_id

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def fresh(folder):
    """A RabbitMQ that nobody has set up."""
    need(PROGRAM.exists(), "needs the package rabbitmq-server")
    with PrivateBroker(folder / "fresh", as_it_comes=True) as running:
        yield running


def set_up(broker, url_file, dry=False):
    return rabbitmq.set_up(broker.node, url_file, os.geteuid(), os.getegid(), dry=dry)


def found(steps):
    return {step.found for step in steps}


def channel(url):
    return pika.BlockingConnection(pika.URLParameters(url)).channel()


def test_a_broker_as_it_comes_is_refused_until_it_is_set_up(fresh, folder):
    hub = HubProcess(folder / "fresh-hub", fresh, ["alice"])
    with pytest.raises(HubFailed, match=r"as 'guest' with password 'guest'.*mep-hub setup"):
        hub.start()
    url_file = folder / "broker.url"

    assert found(set_up(fresh, url_file, dry=True)) == {Found.DUE}
    assert not url_file.exists()
    channel(f"amqp://guest:guest@127.0.0.1:{fresh.port}/%2F").connection.close()

    assert found(set_up(fresh, url_file)) == {Found.DUE}
    url = url_file.read_text().strip()
    assert stat.S_IMODE(url_file.stat().st_mode) == 0o600
    for vhost in ("%2F", "mep"):
        with pytest.raises(AMQPConnectionError):
            channel(f"amqp://guest:guest@127.0.0.1:{fresh.port}/{vhost}")

    assert found(set_up(fresh, url_file)) == {Found.RIGHT}
    assert url_file.read_text().strip() == url, "who uses the password goes on"

    opened = channel(url)
    queue = topology.task_queue(new_id())
    opened.queue_declare(queue, durable=True)
    queues = json.loads(fresh.ctl("-q", "list_queues", "-p", "mep", "name", "policy", "--formatter", "json"))
    assert {"name": queue, "policy": "task-queues"} in queues, "it expires, whoever has declared it"
    with pytest.raises(ChannelClosedByBroker):
        opened.queue_declare("x", passive=True)
    opened.connection.close()


def test_what_an_admin_has_changed_stays_and_the_rest_comes_back(fresh, folder):
    url_file = folder / "edited.url"
    set_up(fresh, url_file)
    fresh.ctl("set_vhost_limits", "-p", "mep", '{"max-connections": 5}')
    fresh.ctl("set_policy", "-p", "mep", "task-queues", "x", '{"expires": 1000}')
    fresh.ctl("add_user", "guest", "guest")
    fresh.ctl("change_password", "hub", "another")
    steps = set_up(fresh, url_file)
    kept = {step.what: step.remedy for step in steps if step.found is Found.EDITED}
    assert len(kept) == 2
    assert any("rabbitmqctl clear_vhost_limits -p mep, then mep-hub setup" in remedy for remedy in kept.values())
    assert {step.what for step in steps if step.found is Found.DUE} == {
        "RabbitMQ's user 'hub'",
        "no user 'guest' in RabbitMQ",
    }
    assert json.loads(fresh.ctl("-q", "list_vhost_limits", "-p", "mep")) == {"max-connections": 5}
    channel(url_file.read_text().strip()).connection.close()
    fresh.ctl("clear_vhost_limits", "-p", "mep")
    fresh.ctl("clear_policy", "-p", "mep", "task-queues")
    assert Found.EDITED not in found(set_up(fresh, url_file))
    older = f'{{"expires": {topology.TASK_QUEUE_LIFE * 1000}}}'
    fresh.ctl("set_policy", "-p", "mep", "task-queues", topology.TASK_QUEUES, older, "--apply-to", "queues")
    assert Found.EDITED not in found(set_up(fresh, url_file)), "an older set-up made it"
    assert found(set_up(fresh, url_file)) == {Found.RIGHT}


def test_the_lab_runs_on_the_same(broker):
    """Every test has a broker with these limits."""
    for key, most in (("max_message_size", rabbitmq.MOST_BYTES), ("channel_max", rabbitmq.MOST_CHANNELS)):
        assert broker.ctl("-q", "eval", f"application:get_env(rabbit, {key}).").strip() == f"{{ok,{most}}}"
    assert found(rabbitmq.configure(broker.node, questions=broker.hub_port, dry=True)) == {Found.RIGHT}


def test_what_is_wrong_is_said(fresh, tmp_path):
    with pytest.raises(SetupFailed, match=r"No such file.*is the package rabbitmq-server installed"):
        rabbitmq.set_up(Node(programs=tmp_path), tmp_path / "url", 0, 0)
    with pytest.raises(SetupFailed, match=r"is the package rabbitmq-server installed"):
        rabbitmq.configure(Node(folder=tmp_path / "none"))
    with pytest.raises(SetupFailed, match=r"no/url: No such file"):
        set_up(fresh, tmp_path / "no" / "url")
    (tmp_path / "url").write_text("amqp://127.0.0.1/mep\n")
    with pytest.raises(SetupFailed, match=r"no URL with a password; remove it"):
        set_up(fresh, tmp_path / "url")


def test_no_secret_is_in_an_argument(fresh, tmp_path):
    """A program in the place of rabbitmqctl that notes what it is called with."""
    programs, noted = tmp_path / "bin", tmp_path / "noted"
    programs.mkdir()
    program = programs / "rabbitmqctl"
    true = fresh.node.programs / "rabbitmqctl"
    program.write_text(f'#!/bin/sh\necho "$@" >>{noted}\nenv >>{noted}\nexec {true} "$@"\n')
    program.chmod(0o755)
    node = Node("127.0.0.1", fresh.port, fresh.node.folder, programs, fresh.node.environment)
    rabbitmq.set_up(node, tmp_path / "url", os.geteuid(), os.getegid())
    assert "import_definitions" in noted.read_text()
    assert rabbitmq._password_in(Path(tmp_path / "url")) not in noted.read_text()
