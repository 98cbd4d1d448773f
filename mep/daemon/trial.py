"""Tries what a profile starts, before it is in force: for the manager's start, and for `mep check`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from mep.daemon import helper_account, rehearsal
from mep.daemon.rehearsal import Findings
from mep.monitor.stages.renderer import Renderer
from mep.profile.profile import Profile
from mep.request.account import Account


async def rehearse(profile: Profile) -> Findings:
    """What is wrong with, or worth knowing of, what the profile starts: as the manager finds it.

    Raises:
        HelperUnavailable: no render server can be started.
    """
    helper_account.readers(profile.config)
    return await rehearse_as(profile, helper_account.find(profile.config).render)


async def rehearse_as(profile: Profile, account: Account) -> Findings:
    """The same with an account of the helpers that is known. Raises HelperUnavailable."""
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
