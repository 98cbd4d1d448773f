"""Names in RabbitMQ, and the queue info that endpoints get: our own reader takes what the hub writes."""

from __future__ import annotations

from hub.amqp import rights, topology
from tests.hub.units import CONFIG, new_id
from wire.queues import read_source, read_target


def test_queue_info_is_what_endpoints_read():
    endpoint = new_id()
    url = CONFIG.url_for(topology.user_endpoint_account(endpoint), "pw")
    source = read_source(topology.source_info(url, topology.TASKS, topology.task_queue(endpoint)), "x")
    assert (source.connection_url, source.queue) == (url, f"{endpoint}.tasks")
    target = read_target(topology.target_info(url, topology.RESULTS, endpoint), "x")
    assert (target.exchange, target.routing_key, target.mandatory) == ("results", f"{endpoint}.results", True)
    assert target.properties == {"delivery_mode": 2, "content_type": "application/octet-stream"}


def test_who_sent_is_read_from_the_routing_key():
    endpoint = new_id()
    assert topology.sender(topology.routing_key(endpoint, topology.HEARTBEATS)) == endpoint
    assert topology.sender("") == ""


def test_the_hub_publishes_to_queues_by_name_and_for_good():
    target = topology.target("q", "application/json", timestamp=5)
    assert (target.exchange, target.routing_key, target.mandatory) == ("", "q", True)
    assert target.properties == {"delivery_mode": 2, "content_type": "application/json", "timestamp": 5}


def test_accounts_may_do_what_their_queue_info_says():
    endpoint, user = new_id(), new_id()
    for account, queue in (
        (topology.manager_account(endpoint), topology.command_queue(endpoint)),
        (topology.user_endpoint_account(endpoint), topology.task_queue(endpoint)),
        (topology.client_account(user), topology.client_queue_prefix(user) + new_id()),
    ):
        assert rights.may(account, "queue", queue, "read")
    key = topology.routing_key(endpoint, topology.RESULTS)
    assert rights.may_publish(topology.user_endpoint_account(endpoint), topology.RESULTS, "write", key)
