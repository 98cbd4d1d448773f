"""Packs what the endpoint says about itself in heartbeats.

A heartbeat is a status report whose `global_state` holds the engine's figures, the facts below, `heartbeat_period` in
seconds and `active`. The service knows an endpoint by its first heartbeat. `heartbeats` sends it. The notice of a
failed start is a status report too; it is in `wire.failure_notice`.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from wire.messages import StatusReport, pack
from wire.stop_request import KNOWS


def facts(config_raw: str, handed_over: Mapping[str, Any]) -> dict[str, Any]:
    """Collects what stays the same in every heartbeat of this process."""
    now = datetime.now().astimezone()
    return {
        **handed_over,
        "posix_username": _user_name(),
        "posix_uid": os.getuid(),
        "posix_gid": os.getgid(),
        "posix_groups": os.getgroups(),
        "posix_pid": os.getpid(),
        "posix_sid": os.getsid(0),
        "config_raw": config_raw,
        "start_iso": now.isoformat(),
        "start_unix": now.timestamp(),
        KNOWS: True,
    }


def heartbeat(
    endpoint_id: str, engine: Mapping[str, Any], constant: Mapping[str, Any], period: float, *, active: bool
) -> bytes:
    """Packs a heartbeat. `active` is False in an endpoint's last one."""
    return pack(StatusReport(endpoint_id, {**engine, **constant, "heartbeat_period": period, "active": active}))


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return os.environ.get("USER", str(os.getuid()))
