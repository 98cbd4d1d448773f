"""Why a user endpoint is not there, in words: when it was commanded and heard of, and what of its endpoint."""

from __future__ import annotations

from hub.page.views import UserEndpointView
from hub.page.words import ago


def why(endpoint: UserEndpointView, now: float) -> str:
    """Says why tasks wait for this user endpoint, which is not online."""
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
    seen = "not been heard of" if endpoint.seen_at is None else f"last been heard of {ago(endpoint.seen_at, now)}"
    return f"Its user endpoint has {seen}; a start was {commanded}. {manager}"


def _manager(endpoint: UserEndpointView, now: float) -> str:
    if endpoint.endpoint_online:
        return "The endpoint is online."
    if endpoint.endpoint_seen_at is None:
        return "The endpoint is offline: it has never been heard of. Tasks wait until it is there."
    return f"The endpoint is offline, last heard of {ago(endpoint.endpoint_seen_at, now)}. Tasks wait until it is back."
