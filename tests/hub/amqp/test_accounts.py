"""AMQP accounts against the real broker: each reads its own queues and publishes under its own name, nothing else."""

from __future__ import annotations

import uuid

import pika
import pytest
from pika.exceptions import ChannelClosedByBroker, ProbableAccessDeniedError, ProbableAuthenticationError

from tests.hub.peer import UserEndpoint

pytestmark = pytest.mark.system


@pytest.fixture
def open_channel():
    """A channel for a URL; all are closed in the end."""
    opened = []

    def open_channel(url):
        opened.append(pika.BlockingConnection(pika.URLParameters(url)))
        return opened[-1].channel()

    yield open_channel
    for connection in opened:
        if connection.is_open:
            connection.close()


@pytest.fixture
def submit(client, manager):
    """Submits one task as a user; the start command that follows."""

    def submit(user):
        gcc = client(user)
        gcc.run(1, endpoint_id=manager.id, function_id=gcc.register_function(abs_value))
        return manager.next_command()[1]

    return submit


def abs_value(x):
    return abs(x)


def url_of(command):
    return command["kwargs"]["amqp_creds"]["task_queue_info"]["connection_url"]


def denied(open_channel, url, do):
    with pytest.raises(ChannelClosedByBroker) as closed:
        do(open_channel(url))
    assert closed.value.reply_code == 403


def test_user_endpoint_reads_only_its_own_tasks(submit, manager, open_channel):
    alice, bob = submit("alice"), submit("bob")
    theirs = bob["kwargs"]["amqp_creds"]["task_queue_info"]["queue"]
    url = url_of(alice)
    for queue in (theirs, f"{manager.id}.commands", "results", "heartbeats"):
        denied(open_channel, url, lambda channel, queue=queue: channel.basic_get(queue))
        denied(open_channel, url, lambda channel, queue=queue: channel.queue_purge(queue))
        denied(open_channel, url, lambda channel, queue=queue: channel.queue_delete(queue))
    mine = UserEndpoint(alice)
    assert mine.take()
    mine.close()


def test_user_endpoint_publishes_only_under_its_own_name(submit, open_channel):
    alice, bob = submit("alice"), submit("bob")
    stranger = bob["kwargs"]["amqp_creds"]["endpoint_id"]
    targets = [
        ("results", f"{stranger}.results"),
        ("heartbeats", f"{stranger}.heartbeats"),
        ("tasks", f"{stranger}.tasks"),
        ("", f"{stranger}.tasks"),
    ]
    for exchange, key in targets:

        def publish(channel, exchange=exchange, key=key):
            channel.confirm_delivery()
            channel.basic_publish(exchange, key, b"forged")

        denied(open_channel, url_of(alice), publish)


def test_nobody_may_declare_or_bind(submit, manager, open_channel):
    url = url_of(submit("alice"))
    denied(open_channel, url, lambda channel: channel.queue_declare("mine"))
    denied(open_channel, url, lambda channel: channel.queue_declare("", exclusive=True))
    denied(open_channel, url, lambda channel: channel.exchange_declare("mine"))
    denied(open_channel, url, lambda channel: channel.queue_bind("results", "heartbeats", "#"))
    denied(open_channel, url, lambda channel: channel.exchange_bind("results", "heartbeats", "#"))


def test_client_reads_only_its_own_groups(client, open_channel):
    answers = {user: client(user).get_result_amqp_url() for user in ("alice", "bob")}
    assert answers["alice"]["queue_prefix"] != answers["bob"]["queue_prefix"]
    theirs = answers["bob"]["queue_prefix"] + str(uuid.uuid4())
    denied(open_channel, answers["alice"]["connection_url"], lambda channel: channel.basic_get(theirs))
    denied(open_channel, answers["alice"]["connection_url"], lambda channel: channel.basic_get("results"))


def test_older_passwords_stay_valid_wrong_ones_and_other_vhosts_do_not(submit, open_channel, hub):
    first = submit("alice")
    assert url_of(first) == url_of(submit("alice")), "no new one for each submission"
    hub.stop()
    hub.start()
    second = submit("alice")
    assert url_of(first) != url_of(second)
    for command in (second, first, first):
        assert open_channel(url_of(command)).is_open
    account, _, rest = url_of(first).rpartition(":")[0].rpartition("@")[0].removeprefix("amqp://").partition(":")
    assert rest
    host = url_of(first).rpartition("@")[2]
    with pytest.raises((ProbableAuthenticationError, ProbableAccessDeniedError)):
        open_channel(f"amqp://{account}:wrong@{host}")
    with pytest.raises((ProbableAuthenticationError, ProbableAccessDeniedError)):
        open_channel(f"amqp://{account}:{rest}@{host.rpartition('/')[0]}/other")
