"""Start commands that nobody meant well: whatever the bytes are, they become a well-typed command or one refusal."""

from __future__ import annotations

import copy
import json
import re
import time
import uuid
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mep.request.refusal import Refused
from mep.request.start_endpoint import StartEndpoint
from mep.worker import notices
from mep.worker.commands import credentials_in, decode
from tests.mep.commands import COMMAND, delivery
from tests.mep.credentials import inside
from wire.consumer import Delivery
from wire.queues import QueueInfoError, Target

NOW = time.time()
PORTS = st.none() | st.integers(1, 65535)
CHARACTERS = st.text() | st.text(st.characters(), max_size=9) | st.text("\0\n\r/.\\\ud800\udfff\u202e{}%", max_size=9)
NAMES = st.sampled_from(["", ".", "..", "../x", "/etc", "uep/../x", "uep\0", "uep\n", "-rf", "ü", "x" * 128, "x" * 129])
PLACES = ["", "[", "[::1", "h:99999/", "h:-1/", "h:\ud800/", "\0@h", "h", "u:p@[::1]:1/x", "u:p@h@i:5:6", "h:\u0663"]
URLS = st.builds("{}://{}".format, st.sampled_from(["amqp", "amqps", "AMQP", "http", ""]), st.sampled_from(PLACES))
NUMBERS = st.integers() | st.sampled_from([10**4000, -(2**64), 2**63]) | st.floats() | st.booleans()
LEAVES = st.none() | NUMBERS | CHARACTERS | NAMES | URLS
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(CHARACTERS, inner, max_size=3), max_leaves=6
)


def fields(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The paths of all values inside of `value`."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, inner in members for found in [(*path, key), *fields(inner, (*path, key))]]


FIELDS = fields(COMMAND)


@st.composite
def changed_commands(draw: st.DrawFn) -> dict[str, Any]:
    """A good command, in which some fields have become something else, or have gone, or have a new neighbour."""
    message = copy.deepcopy(COMMAND)
    for path in draw(st.lists(st.sampled_from(FIELDS), min_size=1, max_size=3)):
        owner: Any = message
        for key in path[:-1]:
            owner = owner[key] if isinstance(owner, dict) and key in owner else owner
        change = draw(st.sampled_from(["replace", "drop", "add"]))
        if not isinstance(owner, dict):
            continue
        if change == "replace":
            owner[path[-1]] = draw(JSON)
        elif change == "drop":
            owner.pop(path[-1], None)
        else:
            owner[draw(CHARACTERS)] = draw(JSON)
    return message


def outcome(delivered: Delivery, port: int | None = None, now: float | None = None) -> StartEndpoint | None:
    """The command, looked at in every field; None when it is refused as it should be. Anything else is an error."""
    look_at_address(credentials_in(delivered), port)
    try:
        command = decode(delivered, "r1", now or time.time(), port)
    except Refused as e:
        assert e.refusal.stage == "command"
        assert e.refusal.reason_for_admin
        assert len(e.refusal.reason_for_admin) < 1500, "nobody can fill the log with one message"
        assert "hunter2" not in e.refusal.reason_for_admin + e.refusal.reason_for_user
        return None
    assert command.request_id == "r1"
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", command.name)
    assert command.endpoint_id == str(uuid.UUID(command.endpoint_id))
    assert isinstance(command.requester, str)
    assert isinstance(command.requester_name, str)
    assert isinstance(json.loads(command.identity_set), list)
    credentials = inside(command.credentials)
    for objects in (json.loads(command.user_options), json.loads(command.user_runtime), credentials):
        assert isinstance(objects, dict)
    look_at_target(notices.address(credentials, port).target)
    assert "hunter2" not in repr(command)
    return command


def look_at_address(text: bytes, port: int | None) -> None:
    if not text:
        return
    credentials = json.loads(text)
    try:
        address = notices.address(credentials, port)
    except QueueInfoError:  # they do not say; nothing else may happen
        return
    assert address.endpoint_id == str(uuid.UUID(address.endpoint_id))
    look_at_target(address.target)


def look_at_target(target: Target) -> None:
    assert target.connection_url.lower().startswith(("amqp://", "amqps://"))
    assert all(isinstance(text, str) and text for text in (target.exchange, target.routing_key))
    assert isinstance(target.mandatory, bool)
    assert isinstance(target.properties, Mapping)


@settings(max_examples=300, deadline=None)
@given(body=changed_commands(), port=PORTS)
def test_a_command_with_changed_fields(body: dict[str, Any], port: int | None) -> None:
    outcome(delivery(body), port)


@given(path=st.sampled_from(FIELDS), value=JSON, port=PORTS)
def test_a_command_with_one_field_of_any_type(path: tuple[str | int, ...], value: object, port: int | None) -> None:
    body: Any = copy.deepcopy(COMMAND)
    owner = body
    for key in path[:-1]:
        owner = owner[key]
    owner[path[-1]] = value
    outcome(delivery(body), port)


@given(raw=st.binary(max_size=200), at=st.integers(0, 2000), length=st.integers(0, 50))
def test_a_command_with_other_bytes_in_it(raw: bytes, at: int, length: int) -> None:
    whole = json.dumps(COMMAND).encode()
    outcome(delivery(whole[:at] + raw + whole[at + length :]))
    assert outcome(delivery(raw)) is None


@given(
    content_type=st.none() | st.text(max_size=300) | st.just("application/json"),
    timestamp=st.none() | st.integers(0, 2**64 - 1) | st.integers(round(NOW) - 300, round(NOW) + 300),
    headers=st.dictionaries(st.text(max_size=5), LEAVES, max_size=3),
)
def test_any_properties_of_the_message(
    content_type: str | None, timestamp: int | None, headers: dict[str, Any]
) -> None:
    started = outcome(delivery(COMMAND, content_type=content_type, timestamp=timestamp, headers=headers), now=NOW)
    in_time = timestamp is not None and abs(round(NOW - timestamp)) <= 180
    assert (started is not None) == (content_type == "application/json" and in_time)


def spoiled(old: bytes, new: bytes) -> bytes:
    """The good command with some of its bytes replaced."""
    whole = json.dumps(COMMAND).encode()
    assert old in whole
    return whole.replace(old, new)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0",
        b"\xff\xfe{\0}\0",
        b"\xef\xbb\xbf" + json.dumps(COMMAND).encode("latin-1")[:-1],
        b"null",
        b'"cmd_start_endpoint"',
        b"1" * 5000,
        b"x" * 2**20,
        b"[" * 2**20,
        b'{"a":' * 2**18,
        b"[" * 500 + b"]" * 500,
        spoiled(b'"cmd_start_endpoint"', b"[" * 100_000),
        spoiled(b'"cmd_start_endpoint"', b'["cmd_start_endpoint"]'),
        spoiled(b'"cmd_start_endpoint"', b'"' + b"x" * 2**20 + b'"'),
        spoiled(b'"name": "uep.', b'"name": "../uep.'),
        spoiled(b'"name": "uep.', b'"name": "uep\\u0000'),
        spoiled(b'"name": "uep.', b'"name": "uep\\ud800'),
        spoiled(b'"name": "uep.', b'"name": "' + b"u" * 2**20),
        spoiled(b'"name": "uep.', b'"name": "uep", "name": "../'),
        spoiled(b'{"WORKERS": 2}', b"[2]"),
        spoiled(b"amqp://user", b"amqp\\u0000://user"),
        spoiled(b'"globus_username": "alice@example.org"', b'"globus_username": NaN'),
    ],
    ids=lambda body: f"{body[:30]!r}, {len(body)} bytes",
)
def test_what_is_no_command_is_refused(body: bytes) -> None:
    assert outcome(delivery(body)) is None


@pytest.mark.parametrize(
    ("body", "options"),
    [
        (spoiled(b'{"WORKERS": 2}', b'{"WORKERS": 1, "WORKERS": 3}'), {"WORKERS": 3}),
        (spoiled(b'{"WORKERS": 2}', b"null"), {}),
        (spoiled(b'{"WORKERS": 2}', b'{"N": 1e999, "S": "\\ud800"}'), {"N": float("inf"), "S": "\ud800"}),
        (spoiled(b'"name": "uep.', b'"name": "../", "name": "uep.'), {"WORKERS": 2}),
        (json.dumps(COMMAND).encode("utf-16"), {"WORKERS": 2}),
    ],
    ids=["a key twice", "none", "beyond numbers and Unicode", "a bad name and then a good one", "UTF-16"],
)
def test_what_is_only_strange_is_taken_and_stays_well_typed(body: bytes, options: dict[str, Any]) -> None:
    command = outcome(delivery(body))
    assert command is not None
    assert json.loads(command.user_options) == options
