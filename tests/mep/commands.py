"""A start command as the service sends it, and the mapping that makes its sender a local account."""

from __future__ import annotations

import json
import time
from typing import Any

from wire.consumer import Delivery

MANAGER = "ee9d42e2-85b1-487f-a350-9712bb321d5f"
UEP = "feef5f81-edd9-5023-9ac5-7510955c05a6"
ALICE = "2f252320-f8bb-52e8-8b23-773b37352928"
URL = "amqp://user:hunter2@127.0.0.1:5672/%2F"
MAPPING = [
    {
        "DATA_TYPE": "expression_identity_mapping#1.0.0",
        "mappings": [{"source": "{username}", "match": "(.*)@example\\.org", "output": "{0}"}],
    }
]


def target(kind: str) -> dict[str, Any]:
    publish = {"exchange": kind, "routing_key": f"{UEP}.{kind}", "mandatory": True, "properties": {"delivery_mode": 2}}
    return {"connection_url": URL, "exchange": kind, "queue": kind, "queue_publish_kwargs": publish}


COMMAND: dict[str, Any] = {
    "command": "cmd_start_endpoint",
    "globus_username": "alice@example.org",
    "globus_effective_identity": ALICE,
    "globus_identity_set": [{"sub": ALICE, "id": ALICE, "username": "alice@example.org", "status": "used"}],
    "kwargs": {
        "name": f"uep.{MANAGER}.{UEP}",
        "user_opts": {"WORKERS": 2},
        "user_runtime": {"globus_compute_sdk_version": "4.19.0", "python": {"version": "3.11.2"}},
        "amqp_creds": {
            "endpoint_id": UEP,
            "task_queue_info": {"connection_url": URL, "exchange": "tasks", "queue": f"{UEP}.tasks"},
            "result_queue_info": target("results"),
            "heartbeat_queue_info": target("heartbeats"),
        },
    },
}


def delivery(body: object, **properties: Any) -> Delivery:
    """A delivery as the service sends it; `properties` replace its own."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Delivery(1, raw, **{"content_type": "application/json", "timestamp": round(time.time()), **properties})
