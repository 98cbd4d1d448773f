from __future__ import annotations

import json
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mep.request.refusal import Refused
from mep.request.start_endpoint import MAX_OPTIONS
from mep.worker import notices
from mep.worker.commands import MAX_BODY, MAX_DEPTH, MAX_PART, credentials_in, decode
from tests.mep.commands import ALICE, UEP, delivery
from tests.mep.credentials import inside
from wire.queues import read_credentials

NOW = time.time()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def refusal(body: object, *, now: float | None = None, **properties: Any) -> str:
    with pytest.raises(Refused) as caught:
        decode(delivery(body, **properties), "r1", now or time.time())
    assert caught.value.refusal.stage == "command"
    return caught.value.refusal.reason_for_admin


def test_a_command_is_read_whole(message: dict[str, Any]) -> None:
    command = decode(delivery(message), "r1", time.time())
    assert command.name.endswith(UEP)
    assert command.endpoint_id == UEP
    assert command.requester == ALICE
    assert json.loads(command.user_options) == {"WORKERS": 2}
    assert notices.address(inside(command.credentials)).target.routing_key == f"{UEP}.heartbeats"
    assert "hunter2" not in repr(command)


@pytest.mark.parametrize("port", [None, 443])
def test_the_port_of_the_manager_is_that_of_its_user_endpoints(message: dict[str, Any], port: int | None) -> None:
    """As the hand-over and the credential file get them."""
    credentials = inside(decode(delivery(message), "r1", time.time(), port).credentials)
    said = read_credentials(message["kwargs"]["amqp_creds"], port)
    assert read_credentials(credentials) == said
    assert credentials["task_queue_info"].keys() == message["kwargs"]["amqp_creds"]["task_queue_info"].keys()


@pytest.mark.parametrize(
    ("path", "value", "names"),
    [
        (["command"], "cmd_rm", "cmd_rm"),
        (["command"], None, "unknown command"),
        (["args"], ["--debug"], "'args'"),
        (["kwargs"], [], "'kwargs'"),
        (["kwargs", "name"], "../../etc", "'name'"),
        (["kwargs", "name"], "-rf", "'name'"),
        (["kwargs", "name"], "a\nb", "'name'"),
        (["kwargs", "name"], "x" * 200, "'name'"),
        (["kwargs", "user_opts"], "x", "'user_opts'"),
        (["kwargs", "amqp_creds"], {}, "endpoint_id"),
        (["kwargs", "amqp_creds", "endpoint_id"], "nope", "endpoint_id"),
        (["globus_effective_identity"], 7, "globus_effective_identity"),
        (["globus_identity_set"], {}, "globus_identity_set"),
        (["globus_username"], None, "globus_username"),
    ],
)
def test_a_wrong_field_is_named(message: dict[str, Any], path: list[str], value: object, names: str) -> None:
    owner = message
    for key in path[:-1]:
        owner = owner[key]
    owner[path[-1]] = value
    assert names in refusal(message)


def test_other_content_types_times_and_bodies_are_refused(message: dict[str, Any]) -> None:
    assert "content type" in refusal(message, content_type="text/plain")
    assert "timestamp" in refusal(message, timestamp=None)
    assert "JSON" in refusal(b"{")
    assert "JSON" in refusal(b"\xff\xfe")
    assert "JSON" in refusal(b"[" * 100_000)
    assert "object" in refusal(b"[]")


@pytest.mark.parametrize("skew", [-181, 181, 100_000])
def test_a_command_out_of_time_is_refused_with_its_age(message: dict[str, Any], skew: int) -> None:
    assert f"{skew} s old" in refusal(message, now=NOW, timestamp=round(NOW) - skew)


def test_the_user_can_be_told_of_a_command_that_cannot_be_used(message: dict[str, Any]) -> None:
    message["kwargs"]["name"] = "../x"
    credentials = json.loads(credentials_in(delivery(message)))
    assert notices.address(credentials).endpoint_id == UEP
    assert credentials_in(delivery(b"no JSON")) == b""
    assert credentials_in(delivery([])) == b""


@pytest.mark.parametrize("filler", ["\x7f", "x", "\xfc"])
def test_of_credentials_that_are_too_long_nobody_is_told(message: dict[str, Any], filler: str) -> None:
    """DEL is one byte on the wire and six in JSON of plain ASCII: a message that fits could not be passed on."""
    message["kwargs"]["name"] = "../x"
    message["kwargs"]["amqp_creds"]["more"] = filler * 700_000
    delivered = delivery(json.dumps(message, ensure_ascii=False).encode())
    assert len(delivered.body) < MAX_BODY
    assert credentials_in(delivered) == b""


def test_of_credentials_that_are_too_deep_nobody_is_told(message: dict[str, Any]) -> None:
    for levels in (200, 900, 990, 5000):
        message["kwargs"]["amqp_creds"]["more"] = "DEEP"
        body = json.dumps(message).replace('"DEEP"', "[" * levels + "]" * levels)
        credentials_in(delivery(body.encode()))


def test_the_port_of_the_configuration_counts_for_notices(message: dict[str, Any]) -> None:
    credentials = json.loads(credentials_in(delivery(message)))
    assert ":443/" in notices.address(credentials, 443).target.connection_url


@given(body=JSON)
def test_no_body_does_anything_but_be_refused(body: object) -> None:
    refusal(body)
    assert credentials_in(delivery(body)) == b""


@pytest.mark.parametrize("field", ["user_opts", "user_runtime"])
def test_a_command_that_is_deeper_than_anybody_can_write_is_refused(message: dict[str, Any], field: str) -> None:
    def nested(levels: int) -> dict[str, Any]:
        value: dict[str, Any] = {}
        for _ in range(levels):
            value = {"a": value}
        return value

    message["kwargs"][field] = nested(MAX_DEPTH - 3)
    decode(delivery(message), "r1", time.time())
    message["kwargs"][field] = nested(MAX_DEPTH + 1)
    assert "nested too deeply" in refusal(message)
    message["kwargs"][field] = nested(900)
    assert "nested too deeply" in refusal(message)


def test_a_command_that_is_too_long_is_refused_by_its_length_alone(message: dict[str, Any]) -> None:
    good = json.dumps(message).encode()
    decode(delivery(good.ljust(MAX_BODY)), "r1", time.time())
    for body in (good.ljust(MAX_BODY + 1), b"[" * (MAX_BODY + 1)):
        assert f"too large ({MAX_BODY + 1} bytes; the limit is {MAX_BODY})" in refusal(body)
        assert credentials_in(delivery(body)) == b""


def test_what_is_kept_of_a_command_takes_no_more_than_its_bytes(message: dict[str, Any]) -> None:
    """As objects so many lists would take twenty times as much."""
    message["kwargs"]["user_opts"] = {"x": [[]] * (MAX_OPTIONS // 4 - 10)}
    delivered = delivery(message)
    tracemalloc.start()
    command = decode(delivered, "r1", time.time())
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(command.user_options) > MAX_OPTIONS - 100
    assert kept < 2 * MAX_OPTIONS


@pytest.mark.parametrize(
    ("owner", "field", "filling", "limit", "told"),
    [
        ("kwargs", "user_opts", {"a": ""}, MAX_OPTIONS, "Your user_endpoint_config is too large"),
        ("kwargs", "user_runtime", {"a": ""}, MAX_PART, "Your user_runtime is too large"),
        ("kwargs", "amqp_creds", {"a": ""}, MAX_PART, "tell its administrators"),
        (None, "globus_identity_set", [""], MAX_PART, "tell its administrators"),
    ],
)
def test_each_part_that_is_kept_has_a_limit_and_its_user_is_told(
    message: dict[str, Any], owner: str | None, field: str, filling: Any, limit: int, told: str
) -> None:
    part = message if owner is None else message[owner]
    value = part[field] | filling if isinstance(filling, dict) else part[field] + filling
    room = limit - len(json.dumps(value))
    for more in (0, 1):
        text = "x" * (room + more)
        part[field] = {**value, "a": text} if isinstance(value, dict) else [*value[:-1], text]
        if not more:
            decode(delivery(message), "r1", time.time())
    with pytest.raises(Refused) as caught:
        decode(delivery(message), "r1", time.time())
    assert f"{limit + 1} bytes as JSON; the limit is {limit}" in caught.value.refusal.reason_for_admin
    assert told in caught.value.refusal.reason_for_user
    assert credentials_in(delivery(message)) != b""
