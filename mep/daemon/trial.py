"""Tries what a profile starts, before it is in force: for the manager's start, and for `mep check`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from mep.daemon import helper_account
from mep.monitor.stages import rehearsal
from mep.monitor.stages.rehearsal import Findings
from mep.monitor.stages.renderer import Renderer
from mep.profile.profile import Profile
from mep.request.account import Account


async def rehearse(profile: Profile) -> Findings:
    """What is wrong with, or worth knowing of, what the profile starts: as the manager finds it.

    Raises:
        HelperUnavailable: no render server can be started.
    """
    account = helper_account.find(profile.config).render
    async with rendering(account) as renderer:
        return await rehearsal.rehearse(profile, renderer, account)


@contextlib.asynccontextmanager
async def rendering(account: Account) -> AsyncIterator[Renderer]:
    """A renderer for a moment. Raises HelperUnavailable."""
    renderer = Renderer(account)
    await renderer.start()
    try:
        yield renderer
    finally:
        await renderer.stop()
