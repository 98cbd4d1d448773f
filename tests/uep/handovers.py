"""Hand-overs as the public manager makes them, with changes."""

from __future__ import annotations

import json
import uuid
from typing import Any

ENDPOINT = str(uuid.uuid4())


def target() -> dict[str, Any]:
    publish = {"exchange": "e", "routing_key": "k", "mandatory": True, "properties": {}}
    return {"connection_url": "amqp://u:secret@h/", "exchange": "e", "queue": "q", "queue_publish_kwargs": publish}


def handover(**changes: Any) -> bytes:
    data = {
        "amqp_creds": {
            "endpoint_id": ENDPOINT,
            "task_queue_info": target(),
            "result_queue_info": target(),
            "heartbeat_queue_info": target(),
        },
        "config": "engine: {}",
        "ep_info": {"posix_ppid": 1},
        **changes,
    }
    return json.dumps({key: value for key, value in data.items() if value != "absent"}).encode()
