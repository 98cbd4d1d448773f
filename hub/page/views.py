"""What each page shows: plain values, made by `queries`, put into HTML by `templates`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hub.page.schema import Form


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who looks. `csrf` goes into each form that changes something."""

    username: str
    csrf: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class LoginLink:
    """Where people log in with the site's provider, and what that is called."""

    name: str
    address: str


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list: from which entry on, and the numbers at which the parts before and after it begin."""

    first: int
    earlier: int | None
    later: int | None


@dataclass(frozen=True, slots=True)
class EndpointView:
    """An endpoint that the visitor may use. Times are in seconds since the epoch."""

    id: str
    name: str
    display_name: str
    hostname: str
    online: bool
    seen_at: float | None
    is_own: bool
    public: bool
    multi_user: bool

    @property
    def title(self) -> str:
        """What it is called."""
        return self.display_name or self.name


@dataclass(frozen=True, slots=True)
class Options:
    """What an endpoint takes, and what was typed: `digest` tells whether that is what the form was made for."""

    form: Form
    digest: str
    schema: str | None
    template: str | None
    typed: Mapping[str, str] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)
    changed: bool = False
    python: str | None = None
    json: str | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """A start of a user endpoint, as the hub has noted it."""

    commanded_at: float
    commands: int
    first_heartbeat_at: float | None
    first_result_at: float | None
    ended_at: float | None
    error: str | None


@dataclass(frozen=True, slots=True)
class UserEndpointView:
    """A user endpoint of the visitor's. `report` is what it said last, with values of any kind."""

    id: str
    endpoint_id: str
    endpoint: str
    endpoint_online: bool
    endpoint_seen_at: float | None
    options: str
    online: bool
    commanded_at: float
    seen_at: float | None
    report: Mapping[str, Any]
    waiting: int
    last_start: Start | None
    stop_asked_at: float | None = None

    @property
    def may_be_stopped(self) -> bool:
        """Whether there is anything to stop: it runs, it may be starting, or tasks wait for it. Once is enough."""
        if self.stop_asked_at is not None:
            return False
        start = self.last_start
        starting = start is not None and start.ended_at is None and start.first_heartbeat_at is None
        return self.online or starting or self.waiting > 0


@dataclass(frozen=True, slots=True)
class TaskView:
    """A task of the visitor's. `why` says what one waits for that has not ended.

    `state` is success, failed, ended where the result is too large to be looked into, or one of `hub.task_states`.
    """

    id: str
    function: str
    endpoint_id: str
    endpoint: str
    submitted_at: float
    ended_at: float | None
    state: str
    why: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class OwnedUserEndpoint:
    """A user endpoint on an endpoint of the visitor's, with its newest starts, newest first."""

    id: str
    username: str
    options: str
    online: bool
    starts: tuple[Start, ...]
