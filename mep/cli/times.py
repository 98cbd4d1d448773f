"""Reads times that people type: `--until 18:00`, `--until 2026-12-01T08:00`, `--until +2h`."""

from __future__ import annotations

import datetime
import re

_SOON = re.compile(r"\+(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_CLOCK = re.compile(r"(\d\d?):(\d\d)")
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
FORMS = "18:00, 2026-12-01, 2026-12-01T08:00, 2026-12-01T08:00Z, or +2h, +1d12h, +90m"
MOST = 2**32 - 1
"""Seconds since the epoch that a message has room for."""


def until(text: str, now: datetime.datetime) -> int:
    """The time in seconds since the epoch: the next one at which a clock here shows that, unless a day is named.

    text: in the time zone of this system, unless it ends in one. A day is meant from its first minute on.

    Raises:
        ValueError: it is no time, or over.
    """
    moment = _moment(text.strip(), now)
    if moment is None:
        raise ValueError(f"{text!r} is no time; say {FORMS}")
    seconds = int(moment.timestamp())
    if moment <= now:
        raise ValueError(f"{text!r} is over: it is {now:%Y-%m-%d %H:%M:%S %Z} now")
    if seconds > MOST:
        raise ValueError(f"{text!r} is too late; leave the end out for none")
    return seconds


def _moment(text: str, now: datetime.datetime) -> datetime.datetime | None:
    try:
        if (soon := _SOON.fullmatch(text)) and any(soon.groups()):
            days, hours, minutes, seconds = (int(part or 0) for part in soon.groups())
            return now + datetime.timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        if clock := _CLOCK.fullmatch(text):
            return _next(now, int(clock[1]), int(clock[2]))
        if _DAY.match(text):
            read = datetime.datetime.fromisoformat(f"{text[:-1]}+00:00" if text.endswith("Z") else text)
            return read.astimezone()
    except (ValueError, OverflowError):
        pass
    return None


def _next(now: datetime.datetime, hour: int, minute: int) -> datetime.datetime:
    """Today or tomorrow."""
    here = now.replace(tzinfo=None)
    at = here.replace(hour=hour, minute=minute, second=0, microsecond=0)
    return (at if at > here else at + datetime.timedelta(days=1)).astimezone()  # it may be summer by then
