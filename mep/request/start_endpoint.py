"""`StartEndpoint`: what the service asks for. Made by `worker.commands` from a message, kept by `monitor.endpoints`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from mep.request.credentials import Credentials

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""The form of a user endpoint's name: it becomes a folder name and an argument."""
MAX_REQUESTER = 1024
"""Characters of an identity, and of its user name; Globus allows fewer."""
MAX_OPTIONS = 2**20
"""Bytes of the user options, as JSON."""


@dataclass(frozen=True)
class StartEndpoint:
    """A request to start a user endpoint, or to refresh the credentials of a running one.

    request_id: ours, for logs and refusals.
    name: the user endpoint's name, safe as a folder name.
    user_options, user_runtime: objects as JSON text: parsed they may take twenty times the memory, and they are kept
        for as long as the user endpoint runs.
    credentials: passed on to the user endpoint, and good for a failure notice; they hold passwords.
    requester, requester_name: Globus identity that made the request (UUID, user name).
    identity_set: that identity and those linked to it, a list as JSON text; `mapper` alone looks into it.
    """

    request_id: str
    name: str
    endpoint_id: str
    user_options: str
    user_runtime: str
    credentials: Credentials = field(repr=False)
    requester: str
    requester_name: str
    identity_set: str
