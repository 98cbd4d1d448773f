"""What AMQP accounts may do, as a table."""

from __future__ import annotations

import pytest

from hub.amqp import rights

A, B = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"


@pytest.mark.parametrize(
    ("account", "kind", "name", "permission", "allowed"),
    [
        (f"mep.{A}", "queue", f"{A}.commands", "read", True),
        (f"mep.{A}", "queue", f"{B}.commands", "read", False),
        (f"mep.{A}", "queue", f"{A}.tasks", "read", False),
        (f"mep.{A}", "queue", f"{A}.commands", "configure", False),
        (f"mep.{A}", "queue", f"{A}.commands", "write", False),
        (f"mep.{A}", "exchange", "heartbeats", "write", True),
        (f"mep.{A}", "exchange", "results", "write", False),
        (f"mep.{A}", "exchange", "heartbeats", "read", False),
        (f"mep.{A}", "exchange", "commands", "write", False),
        (f"uep.{A}", "queue", f"{A}.tasks", "read", True),
        (f"uep.{A}", "queue", f"{B}.tasks", "read", False),
        (f"uep.{A}", "queue", f"{A}.commands", "read", False),
        (f"uep.{A}", "queue", "results", "read", False),
        (f"uep.{A}", "queue", "results", "write", True),
        (f"uep.{A}", "exchange", "results", "write", True),
        (f"uep.{A}", "exchange", "results", "configure", False),
        (f"uep.{A}", "exchange", "tasks", "write", False),
        (f"uep.{A}", "exchange", "amq.default", "write", False),
        (f"client.{A}", "queue", f"client.{A}.{B}", "read", True),
        (f"client.{A}", "queue", f"client.{B}.{A}", "read", False),
        (f"client.{A}", "queue", f"client.{A}", "read", False),
        (f"client.{A}", "queue", f"client.{A}.{B}", "write", False),
        (f"client.{A}", "exchange", "heartbeats", "write", False),
        ("hub", "queue", "results", "read", False),
        ("", "queue", ".tasks", "read", False),
    ],
)
def test_resources(account, kind, name, permission, allowed):
    assert rights.may(account, kind, name, permission) is allowed


@pytest.mark.parametrize(
    ("account", "exchange", "permission", "key", "allowed"),
    [
        (f"uep.{A}", "results", "write", f"{A}.results", True),
        (f"uep.{A}", "results", "write", f"{B}.results", False),
        (f"uep.{A}", "results", "write", f"{A}.heartbeats", False),
        (f"uep.{A}", "heartbeats", "write", f"{A}.heartbeats", True),
        (f"uep.{A}", "results", "read", f"{A}.results", False),
        (f"mep.{A}", "heartbeats", "write", f"{A}.heartbeats", True),
        (f"mep.{A}", "results", "write", f"{A}.results", False),
        (f"client.{A}", "results", "write", f"{A}.results", False),
    ],
)
def test_routing_keys(account, exchange, permission, key, allowed):
    assert rights.may_publish(account, exchange, permission, key) is allowed
