"""Many small submissions, as of a day in which user endpoints come and idle: the hub does not grow with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pika
import pytest
import requests

from hub.endpoints import user_endpoint_id
from lab.broker import PrivateBroker
from lab.hub import HubProcess
from lab.waiting import until
from tests.hub.peer import PeerManager
from tests.hub.units import COMPUTE_SCOPE
from wire.messages import Result, pack

pytestmark = pytest.mark.system

HALF = 250
"""Submissions of each half."""
CONFIGURATIONS = 25
TASKS = 4
MOST_GROWTH = 1.1
"""Of the second half to the first. A leak of one task's rows for each would be more."""


def memory(pid: int) -> int:
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1])


def test_the_hub_does_not_grow(hub: HubProcess, broker: PrivateBroker, manager: PeerManager, client: Any) -> None:
    function = client("alice").register_function(memory)
    user = hub.users["alice"]
    answer = requests.post(
        f"{hub.url}/v2/oauth2/token",
        data={"grant_type": "client_credentials", "scope": COMPUTE_SCOPE},
        auth=(user.client_id, user.client_secret),
        timeout=60,
    )
    authorization = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    identity = user.identities[0]["id"]
    with requests.Session() as session, pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
        session.headers.update(authorization)
        channel = connection.channel()

        def submit(number: int) -> None:
            options = {"n": number % CONFIGURATIONS}
            body = {"tasks": {function: ["x" * 1000] * TASKS}, "user_endpoint_config": options}
            url = f"{hub.url}/v3/endpoints/{manager.id}/submit"
            answer = session.post(url, data=json.dumps(body), timeout=60)
            assert answer.status_code == 200, answer.text
            user_endpoint = user_endpoint_id(manager.id, identity, options)
            ((_, tasks),) = answer.json()["tasks"].items()
            for task in tasks:
                channel.basic_publish("results", f"{user_endpoint}.results", pack(Result(task, "y" * 1000)))
            if number % CONFIGURATIONS == 0:
                ended(tasks[-1])

        def ended(task: str) -> None:
            def has() -> bool:
                return bool(session.get(f"{hub.url}/v2/tasks/{task}", timeout=60).json()["status"] == "success")

            until(has, "its result")

        used = []
        for half in range(2):
            for number in range(HALF):
                submit(half * HALF + number)
            used.append(memory(hub.pid))
        assert used[1] < MOST_GROWTH * used[0], used
