"""Why a task waits, in words, as far as the hub knows: what its endpoints have said, and when they were commanded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hub.page.views import UserEndpointView
from hub.page.words import ago

_MOST = 10**9


def why(endpoint: UserEndpointView, now: float) -> str:
    """Says what tasks of this user endpoint wait for."""
    if endpoint.online:
        return _at_work(endpoint.report)
    manager = _manager(endpoint, now)
    start = endpoint.last_start
    if start is None or start.commanded_at == 0:
        return f"Its user endpoint has not been commanded to start. {manager}"
    commanded = f"commanded {ago(endpoint.commanded_at, now)}"
    if start.commands > 1:
        commanded += f", {start.commands} times in all"
    if start.ended_at is not None:
        how = f"ended {ago(start.ended_at, now)}"
        return f"Its user endpoint {how} and is commanded to start again while tasks wait for it. {manager}"
    if start.first_heartbeat_at is None:
        return f"The start of its user endpoint was {commanded}; it has not reported yet. {manager}"
    seen = "" if endpoint.seen_at is None else f" since {ago(endpoint.seen_at, now)}"
    return f"Its user endpoint has not been heard of{seen}; a start was {commanded}. {manager}"


def _manager(endpoint: UserEndpointView, now: float) -> str:
    if endpoint.endpoint_online:
        return "The endpoint is online."
    if endpoint.endpoint_seen_at is None:
        return "The endpoint is offline: it has never been heard of. Tasks wait until it is there."
    return f"The endpoint is offline, last heard of {ago(endpoint.endpoint_seen_at, now)}. Tasks wait until it is back."


def _at_work(report: Mapping[str, Any]) -> str:
    """Reads an engine's figures; programs differ in which they tell, and may tell anything."""
    workers, outstanding = _count(report, "total_workers"), _count(report, "outstanding_tasks")
    if workers is None:
        return "Its user endpoint runs and has been given the task."
    if workers == 0:
        return "Its user endpoint runs and waits for nodes: it has no worker yet."
    them = "1 worker" if workers == 1 else f"{workers} workers"
    if outstanding is not None and outstanding > workers:
        return f"Its user endpoint runs, with {outstanding} tasks for {them}: it is running, or waits for a free one."
    return f"It is running, or about to: its user endpoint has {them}."


def _count(report: Mapping[str, Any], key: str) -> int | None:
    value = report.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST else None
