"""`mep-hub broker-setup` against a RabbitMQ as it comes, and a hub that does not serve before it was run."""

from __future__ import annotations

import getpass
import json
import os
import subprocess
import sys
from pathlib import Path

import pika
import pytest
from pika.exceptions import AMQPConnectionError, ChannelClosedByBroker

from hub.amqp import setup, topology
from lab.broker import PROGRAM, PrivateBroker
from lab.hub import HubFailed, HubProcess
from tests.conftest import need
from tests.hub.units import new_id

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[3]
CTL = str(PROGRAM.with_name("rabbitmqctl"))


@pytest.fixture(scope="module")
def fresh(folder):
    """A RabbitMQ that nobody has set up."""
    need(PROGRAM.exists(), "needs the package rabbitmq-server")
    with PrivateBroker(folder / "fresh", as_it_comes=True) as running:
        yield running


def run_setup(broker, url_file, **changes):
    options = {
        "--url-file": str(url_file),
        "--owner": getpass.getuser(),
        "--port": str(broker.port),
        "--rabbitmqctl": CTL,
        **changes,
    }
    return subprocess.run(
        [sys.executable, "-m", "hub", "broker-setup", *(word for pair in options.items() for word in pair)],
        cwd=ROOT,
        env=broker.environment,
        capture_output=True,
        text=True,
        check=False,
    )


def channel(url):
    return pika.BlockingConnection(pika.URLParameters(url)).channel()


def test_a_broker_as_it_comes_is_refused_until_it_is_set_up(fresh, folder):
    hub = HubProcess(folder / "fresh-hub", fresh, ["alice"])
    with pytest.raises(HubFailed, match=r"as 'guest' with password 'guest'.*mep-hub broker-setup"):
        hub.start()
    url_file = folder / "broker.url"
    done = run_setup(fresh, url_file)
    assert done.returncode == 0, done.stderr
    assert "no user 'guest'" in done.stdout
    url = url_file.read_text().strip()
    assert setup._password_in(url_file) not in done.stdout
    assert url_file.stat().st_mode & 0o777 == 0o600
    for vhost in ("%2F", "mep"):
        with pytest.raises(AMQPConnectionError):
            channel(f"amqp://guest:guest@127.0.0.1:{fresh.port}/{vhost}")

    again = run_setup(fresh, url_file)
    assert again.returncode == 0, again.stderr
    assert url_file.read_text().strip() == url, "who uses the password goes on"

    opened = channel(url)
    queue = topology.task_queue(new_id())
    opened.queue_declare(queue, durable=True)
    queues = json.loads(fresh.ctl("-q", "list_queues", "-p", "mep", "name", "policy", "--formatter", "json"))
    limits = fresh.ctl("-q", "list_vhost_limits", "-p", "mep")
    assert {"name": queue, "policy": "task-queues"} in queues, "it expires, whoever has declared it"
    assert f'"max-connections":{setup.MOST_CONNECTIONS}' in limits
    with pytest.raises(ChannelClosedByBroker):
        opened.queue_declare("x", passive=True)
    opened.connection.close()


def test_what_is_wrong_is_said(fresh, tmp_path):
    unknown = run_setup(fresh, tmp_path / "url", **{"--owner": "meptest_nobody_here"})
    assert (unknown.returncode, "no account 'meptest_nobody_here'" in unknown.stderr) == (os.EX_NOUSER, True)
    missing = run_setup(fresh, tmp_path / "url", **{"--rabbitmqctl": "/no/such/ctl"})
    assert (missing.returncode, "No such file" in missing.stderr) == (os.EX_UNAVAILABLE, True)
    nowhere = run_setup(fresh, tmp_path / "no" / "url")
    assert (nowhere.returncode, "No such file" in nowhere.stderr) == (os.EX_UNAVAILABLE, True)
