from __future__ import annotations

import copy
from typing import Any

import pytest

from wire.queues import QueueInfoError, read_credentials, read_source

URL = "amqp://user:hunter2@127.0.0.1:5672/%2F"
TARGET = {
    "connection_url": URL,
    "exchange": "results",
    "queue": "results",
    "queue_publish_kwargs": {
        "exchange": "results",
        "routing_key": "x.results",
        "mandatory": True,
        "properties": {"delivery_mode": 2},
    },
}
CREDS: dict[str, Any] = {
    "endpoint_id": "FEEF5F81-edd9-5023-9ac5-7510955c05a6",
    "task_queue_info": {"connection_url": URL, "exchange": "tasks", "queue": "x.tasks"},
    "result_queue_info": TARGET,
    "heartbeat_queue_info": TARGET,
}


def test_credentials_are_read_whole() -> None:
    creds = read_credentials(CREDS)
    assert creds.endpoint_id == "feef5f81-edd9-5023-9ac5-7510955c05a6"
    assert creds.tasks.queue == "x.tasks"
    assert creds.results.routing_key == "x.results"
    assert creds.results.properties == {"delivery_mode": 2}


def test_no_repr_holds_the_password() -> None:
    assert "hunter2" not in repr(read_credentials(CREDS))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (URL, "amqp://user:hunter2@127.0.0.1:443/%2F"),
        ("amqps://u:p@[::1]:5671/v", "amqps://u:p@[::1]:443/v"),
        ("amqps://u:p@host/v?heartbeat=5", "amqps://u:p@host:443/v?heartbeat=5"),
    ],
)
def test_the_port_can_be_replaced(url: str, expected: str) -> None:
    info = {"connection_url": url, "exchange": "e", "queue": "q"}
    assert read_source(info, "info", port=443).connection_url == expected


@pytest.mark.parametrize(
    ("path", "value", "names"),
    [
        (["endpoint_id"], "x", "amqp_creds.endpoint_id"),
        (["task_queue_info"], None, "task_queue_info"),
        (["task_queue_info", "queue"], "", "task_queue_info.queue"),
        (["task_queue_info", "connection_url"], "http://u:hunter2@h/", "task_queue_info.connection_url"),
        (["task_queue_info", "connection_url"], "amqp://u:hunter2@h:port/", "task_queue_info.connection_url"),
        (["result_queue_info", "queue_publish_kwargs"], 3, "queue_publish_kwargs"),
        (["heartbeat_queue_info", "queue_publish_kwargs", "properties"], 3, "properties"),
    ],
)
def test_errors_name_the_field_and_not_its_value(path: list[str], value: object, names: str) -> None:
    creds = copy.deepcopy(CREDS)
    owner = creds
    for key in path[:-1]:
        owner = owner[key]
    owner[path[-1]] = value
    with pytest.raises(QueueInfoError, match=names) as caught:
        read_credentials(creds)
    assert "hunter2" not in str(caught.value)


def test_a_url_cannot_have_whoever_connects_read_files() -> None:
    url = "amqps://u:p@host/v?heartbeat=5&ssl_options=%7B%27ca_certs%27%3A+%27%2Fetc%2Fshadow%27%7D&unknown=1"
    read = read_source({"connection_url": url, "exchange": "e", "queue": "q"}, "info").connection_url
    assert read == "amqps://u:p@host/v?heartbeat=5"


@pytest.mark.parametrize("creds", [None, [], "x", {}, 7])
def test_anything_but_an_object_is_refused(creds: object) -> None:
    with pytest.raises(QueueInfoError):
        read_credentials(creds)
