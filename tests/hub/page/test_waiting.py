"""Why a user endpoint is not there, in words: each state that the hub can know of."""

from __future__ import annotations

import pytest

from hub.page.views import Start, UserEndpointView
from hub.page.waiting import why

NOW = 1_800_000_000.0


def start(**changes):
    fields = {"commands": 1, "first_heartbeat_at": None, "first_result_at": None, "ended_at": None, "error": None}
    return Start(**{"commanded_at": NOW - 65, **fields, **changes})


def endpoint(**changes):
    fields = {
        "id": "u",
        "endpoint_id": "e",
        "endpoint": "cluster",
        "endpoint_online": True,
        "endpoint_seen_at": NOW - 3,
        "options": "{}",
        "online": False,
        "commanded_at": NOW - 65,
        "seen_at": None,
        "report": {},
        "waiting": 1,
        "last_start": start(),
    }
    return UserEndpointView(**{**fields, **changes})


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ({}, "commanded 1 min ago; it has not reported yet. The endpoint is online"),
        ({"last_start": start(commands=3)}, "commanded 1 min ago, 3 times in all"),
        ({"endpoint_online": False, "endpoint_seen_at": NOW - 7200}, "offline, last heard of 2 h 0 min ago"),
        ({"endpoint_online": False, "endpoint_seen_at": None}, "never been heard of"),
        ({"last_start": start(ended_at=NOW - 20)}, "ended 20 s ago and is commanded to start again"),
        (
            {"last_start": start(first_heartbeat_at=NOW - 60), "seen_at": NOW - 40},
            "has last been heard of 40 s ago; a start was commanded",
        ),
        ({"last_start": None}, "has not been commanded"),
    ],
)
def test_each_reason(known, said):
    assert said in why(endpoint(**known), NOW)
