"""How a user endpoint has ended, as far as can be known: from its exit status, from its words, or not at all."""

from __future__ import annotations

import resource
import signal
import time

from mep.monitor.containment.limits_met import LimitMet
from mep.monitor.endpoints import lifecycle
from mep.monitor.endpoints.user_endpoint import ExitReport, UserEndpoint
from mep.profile.config import ManagerConfig

_USELESS = 60.0
"""Seconds before which a program that does not tell of its results has been of no use."""
_LAST_WORDS = 1500
"""Characters of each part of a user endpoint's last words."""


def tells(config: ManagerConfig) -> bool:
    """Only our own user endpoint tells of its first heartbeat and result; of another program that is not expected."""
    return config.uep_command == ManagerConfig().uep_command


def reaped(endpoint: UserEndpoint, code: int, usage: resource.struct_rusage, config: ManagerConfig) -> ExitReport:
    """Of a child of this process. code: as os.waitstatus_to_exitcode says."""
    seconds = time.monotonic() - endpoint.started
    return ExitReport(
        ending=_ending(code),
        clean=code == 0,
        seconds=seconds,
        before_check_in=endpoint.state in lifecycle.UNSEEN,
        useless=_was_useless(endpoint, seconds, config),
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_memory=usage.ru_maxrss,
    )


def adopted(endpoint: UserEndpoint, config: ManagerConfig) -> ExitReport:
    """Of one that an earlier manager started: nobody is told its exit status, its word `stopped` stands for it."""
    seconds, clean = time.monotonic() - endpoint.started, b"stopped" in endpoint.said
    return ExitReport(
        ending="stopped by itself" if clean else "ended without a word; it may have been killed",
        clean=clean,
        seconds=seconds,
        before_check_in=endpoint.state in lifecycle.UNSEEN,
        useless=_was_useless(endpoint, seconds, config),
    )


def last_words(said: bytes) -> tuple[str, str]:
    """What it says of its end, for its user and for the admin only: a stranger's text, made printable and bounded."""
    parts = said.decode(errors="replace").split("\t")[:2]
    clean = ["".join(c if c.isprintable() else " " for c in part)[:_LAST_WORDS].strip() for part in parts]
    return clean[0], "".join(clean[1:])


def explain(endpoint: UserEndpoint, met: list[LimitMet]) -> None:
    """Puts all that is known of a bad end into its reason and detail: a kill of the manager's, its words, limits."""
    if endpoint.killed_for or endpoint.reason or endpoint.exit.ending.startswith("exit status"):
        met = [limit for limit in met if not limit.guess]  # what is known needs no guess
    killed = f"the manager killed it: {endpoint.killed_for}" if endpoint.killed_for else ""
    endpoint.reason = _joined(killed, endpoint.reason, *[limit.reason for limit in met])
    endpoint.detail = _joined(endpoint.detail, *[limit.detail for limit in met])


def unwatched(endpoint: UserEndpoint) -> ExitReport:
    """Of one that ended while no manager ran."""
    return ExitReport("ended while no manager ran", clean=False, seconds=time.monotonic() - endpoint.started)


def _was_useless(endpoint: UserEndpoint, seconds: float, config: ManagerConfig) -> bool:
    return not endpoint.worked if tells(config) else seconds < _USELESS


def _joined(*parts: str) -> str:
    return "; ".join(part.rstrip(".") for part in parts if part)


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit status {code}"
    known = -code in signal.Signals.__members__.values()
    return f"signal {-code} ({signal.Signals(-code).name})" if known else f"signal {-code}"
