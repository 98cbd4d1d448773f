"""`LaunchPlan`: one user endpoint to be started. Made by `monitor.stages.plan`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mep.request.account import Account
from mep.request.credentials import Unread
from mep.request.group_rule import GroupRule

CREDENTIALS_FD = 3
"""Where the program finds its credential file; the number that the public package uses."""
REPORT_FD = 5
"""Where the program writes `ready` after its first heartbeat, `working` after its first result, `stopping` when it
takes no more tasks, and `stopped` before a clean end; ours, and optional."""
AUDIT_FD = 4
"""Where the program of a high-assurance endpoint writes a record for whatever happens to a task."""


@dataclass(frozen=True)
class LaunchPlan:
    """One user endpoint to be started.

    handover: the JSON object that it reads from standard input, but for its credentials and what concerns descriptors.
    credentials: what belongs there as `amqp_creds`, as JSON; not for the monitor to read.
    directory: the working directory; None for the account's home.
    pam: the PAM service that the account goes through, if any. audited: it tells of each task (high assurance).
    umask: of the program; None leaves it to PAM, or means 077. group_rule: by which the account was admitted.
    configuration: the beginning of the digest of the profile that it was made from. functions: tells apart which
    functions it may run.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    account: Account
    log: tuple[str, str]
    handover: Mapping[str, Any] = field(repr=False)
    credentials: Unread = field(repr=False)
    pam: str | None
    audited: bool
    configuration: str
    functions: str = ""
    umask: int | None = None
    directory: str | None = None
    group_rule: GroupRule = field(default_factory=GroupRule)
