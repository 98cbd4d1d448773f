"""The account that helpers, and mapping programs without `run_as`, run as: looked up once, before any event loop."""

from __future__ import annotations

import os

from mep.accounts import look_up
from mep.processes.helper import HelperUnavailable
from mep.request.account import Account


def find(render_account: str) -> Account:
    """The account that config.yaml names. Waits for the name service.

    Raises:
        HelperUnavailable: there is no such account.
    """
    found = look_up.account(render_account)
    if found is None:
        reason = f"no account {render_account!r} on this system; set render_account in config.yaml"
        raise HelperUnavailable(reason, os.EX_CONFIG)
    return found
