"""The profile that requests are served by, and how an edited one takes its place: as a whole or not at all.

Files are read and tried by a program of its own (`daemon.anew`): they may lie on a file system that hangs, and then the
profile in force stays, and requests go on. What is in force is kept for the next start. Whoever asked for the reload is
told what it came to (`reload_requests`).
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from mep.monitor import mapping_file
from mep.monitor.reload_requests import Told
from mep.monitor.status import Status
from mep.privileged import session
from mep.processes import forked
from mep.processes.helper import HelperUnavailable
from mep.profile.config import reloaded
from mep.profile.errors import ConfigError
from mep.profile.mapping_documents import NEVER_SEEN, MappingDocuments, Stamp
from mep.profile.profile import Profile

log = logging.getLogger(__name__)

KEEP_LIMIT = 60.0
"""Seconds in which a profile must be kept; then that is given up, loudly."""
WATCH_LIMIT = 60.0
"""Seconds for one look at the mapping file; later, its file system hangs."""
PAUSE = 5.0
"""Seconds until the mapping file is looked at again after no process could be had for it."""


class Tried(Protocol):
    """A profile that can be put in force."""

    @property
    def profile(self) -> Profile:
        """The profile."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What is worth knowing of it."""


class Reader(Protocol):
    """Who reads the files, and tries what has been read: `daemon.serve` has a fresh program do it."""

    async def profile(self, directory: Path) -> Tried:
        """The profile in a folder. Raises ConfigError: something is wrong with it, or with what it relies on."""

    async def mapping(self, path: Path) -> MappingDocuments:
        """The mapping documents in a file. Raises ConfigError."""

    def keep(self, profile: Profile) -> None:
        """Keeps a profile for the next start, in a forked child. Raises ConfigError and OSError."""


class ProfileInForce:
    """Holds the profile. told: of each reload's outcome. changed: called after a change, with the profile before it."""

    def __init__(
        self,
        profile: Profile,
        reader: Reader,
        status: Status,
        told: Told,
        changed: Callable[[Profile], None],
    ) -> None:
        self.profile = profile
        self._reader = reader
        self._status = status
        self._told = told
        self._changed = changed
        self._keeping = asyncio.Lock()
        self._mapping_refused = ""
        self._reloading: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None
        self._keeps: set[asyncio.Task[None]] = set()

    def reload(self) -> None:
        """Reads the files again, in the background. A later call takes the place of one that is under way."""
        if self._reloading is not None:
            self._reloading.cancel()
        self._reloading = asyncio.ensure_future(self._reload())

    async def watch_mapping(self) -> None:
        """Takes over an edited mapping file by itself: who may become whom must not wait for somebody to remember.

        Never ends, unless something is broken in this program.
        """
        while True:
            self._following = asyncio.ensure_future(self._follow_mapping(self.profile.mapping.path))
            await asyncio.wait({self._following})
            if not self._following.cancelled():
                self._following.result()

    async def close(self) -> None:
        """Ends what is under way. `watch_mapping` has been cancelled before: it would begin anew."""
        tasks = [task for task in (self._reloading, self._following, *self._keeps) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _reload(self) -> None:
        try:
            edited = await self._accepted()
        except (ConfigError, HelperUnavailable, session.PamError, OSError) as e:
            log.error("the edited profile is refused, the old one stays in force:\n%s", e)
            self._refuse(str(e))
            return
        except Exception as e:
            log.exception("the edited profile cannot be read, the old one stays in force")
            self._refuse(f"{type(e).__name__}, see the log")
            return
        before = self.profile
        settings, waiting = reloaded(before.config, edited.config)
        self.profile = replace(edited, config=settings)
        if self._following is not None:
            self._following.cancel()  # it may be another file now
        self._changed(before)
        self._status.mapping("")
        needs = f"restart needed for: {', '.join(waiting)}" if waiting else ""
        self._status.profile(needs)
        await self._keep()
        log.info("profile reloaded%s", f"; a {needs.replace('needed', 'is needed')}" if waiting else "")
        self._told(True, needs)

    async def _accepted(self) -> Profile:
        """The edited profile, when all that can be tried works. Raises whatever does not."""
        tried = await self._reader.profile(self.profile.directory)
        if tried.profile.config.pam.enable:
            session.load()
        for note in tried.notes:
            log.info("%s", note)
        return tried.profile

    def _refuse(self, why: str) -> None:
        self._status.mapping("")  # told again if it is not what has just been read
        self._status.profile(f"edited profile refused, the old one is in force: {why}")
        self._told(False, why)

    async def _keep(self) -> None:
        """Keeps what is in force for the next start, also when another reload takes the place of who waits here."""
        task = asyncio.ensure_future(self._kept())
        self._keeps.add(task)
        task.add_done_callback(self._keeps.discard)
        await asyncio.shield(task)

    async def _kept(self) -> None:
        """One after the other: the newest is kept last."""
        async with self._keeping:
            profile = self.profile
            try:
                await forked.run(functools.partial(self._reader.keep, profile), KEEP_LIMIT)
            except (ConfigError, OSError) as e:
                log.error("the profile in force cannot be kept for the next start: %s", e)

    async def _follow_mapping(self, path: Path) -> None:
        seen = NEVER_SEEN  # the first look compares with what the profile was loaded with
        hangs = fails = False
        self._mapping_refused = ""
        while True:
            try:
                seen, found = await self._look(path, seen)
            except forked.GivenUp as e:
                if not hangs:
                    log.error(
                        "the identity mapping %s cannot be looked at: nothing came of it in %g s, its file system does"
                        " not answer; the mapping in force stays, and no edit of it is noticed",
                        path,
                        WATCH_LIMIT,
                    )
                hangs = True
                self._status.mapping("the mapping's file system does not answer, the old mapping is in force")
                await asyncio.wait({e.ended})  # another one would hang beside it
                continue
            except OSError as e:
                log.error("the identity mapping %s cannot be watched: %s", path, e)
                fails = True
                self._status.mapping(f"the mapping cannot be watched, the old one is in force: {e}")
                await asyncio.sleep(PAUSE)
                continue
            if hangs or fails:
                log.warning("the identity mapping %s can be looked at again", path)
                hangs = fails = False
                self._status.mapping(self._mapping_refused)
            if isinstance(found, ConfigError):
                log.error("the edited identity mapping is refused, the old one stays in force: %s", found)
                self._mapping_refused = f"edited mapping refused, the old one is in force: {found}"
                self._status.mapping(self._mapping_refused)
            elif found is not None and self._take(found):
                await self._keep()

    async def _look(self, path: Path, seen: Stamp) -> tuple[Stamp, MappingDocuments | ConfigError | None]:
        """Looks after a while; the stamp of the file, and what is in it if it is not the one that was seen."""
        if seen != NEVER_SEEN:  # the first look is at once: a reload may have read an older text than was in force
            await asyncio.sleep(mapping_file.PERIOD)
        now = await forked.run(functools.partial(mapping_file.stamp, path), WATCH_LIMIT)
        if now == seen:
            return seen, None
        try:
            return now, await self._reader.mapping(path)
        except ConfigError as e:
            return now, e

    def _take(self, documents: MappingDocuments) -> bool:
        """Whether other documents are in force now."""
        self._mapping_refused = ""
        self._status.mapping("")
        if documents.digest == self.profile.mapping.digest:
            return False
        before = self.profile
        self.profile = replace(before, mapping=documents)
        self._changed(before)
        log.info("identity mapping %s is in force (digest %.12s)", documents.path, documents.digest)
        return True
