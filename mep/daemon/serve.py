"""The manager: the process that is root for months. Puts the monitor and its neighbours together, and runs it.

A program that `main` executes in its place once the profile has been read and the endpoint is registered: it has
nothing of what that took, neither in its memory nor loaded.
"""

from __future__ import annotations

import mep.processes.without_libraries  # noqa: F401 - first: what comes below imports them

# isort: split
import asyncio
import contextlib
import gc
import logging
import os
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from mep import __version__
from mep.daemon import logs
from mep.daemon.failed import Failed
from mep.daemon.handed import Handed, ReadMapping, ReadProfile, Register, Tried
from mep.monitor import last_run, run_lock
from mep.monitor.audit_file import AuditError
from mep.monitor.manager import Manager, Neighbours
from mep.monitor.stages.identification import Identification
from mep.monitor.stages.mapping_programs import MappingPrograms
from mep.monitor.stages.name_service import NameService
from mep.monitor.stages.renderer import Renderer
from mep.monitor.worker_process import NotNow, WorkerProcess
from mep.privileged import kernel, session
from mep.processes import executed
from mep.processes.helper import HelperUnavailable
from mep.processes.sealed_file import SealedFile
from mep.profile import accepted
from mep.profile.mapping_documents import MappingDocuments
from mep.profile.profile import Profile
from mep.request.unwanted import EndpointUnwanted

log = logging.getLogger(__name__)

_NAME = Path("/proc/self/comm")
"""What this process is called where its command line is not shown."""
ANEW = "mep.daemon.anew"
READING = 180.0
"""Seconds in which an edited profile must have been read and tried, or the mapping read."""
REGISTERING = 240.0
"""Seconds for a registration, in which the service is tried several times."""


def main(arguments: Sequence[str]) -> None:
    """Runs a manager.

    arguments: its name and id, for people, and the descriptor of a sealed `Handed`.
    """
    _NAME.write_text("mep-manager")
    kernel.set_dumpable(False)  # it will hold passwords: no core file, whatever the limits say
    _keep_to_ourselves()
    _name, _endpoint_id, descriptor = arguments
    with open(int(descriptor), "rb") as given:  # noqa: PTH123 - a descriptor
        handed: Handed = pickle.load(given)  # noqa: S301 - of `main`, in whose place we run
    run(handed)


def _keep_to_ourselves() -> None:
    """What came through the exec, secrets among it, and what the start was called with, goes through no other one."""
    for descriptor in (int(path.name) for path in Path("/proc/self/fd").iterdir()):
        if descriptor > 2:
            with contextlib.suppress(OSError):  # the one that the folder was read with
                os.set_inheritable(descriptor, False)


def run(handed: Handed) -> NoReturn:
    """Runs a manager until a signal stops it, and exits with a code."""
    run_lock.take_over(handed.lock)
    to = handed.log
    console: list[logging.Handler] = [logging.StreamHandler()] if to.console else []
    try:
        logs.send_to([logs.file(to.path, to.size, to.keep), *console], to.debug, to.form)
        code, reason = _served(handed)
    except Failed as e:
        code, reason = e.exit_code, str(e)
    directory = handed.profile.directory
    if directory.is_dir():  # not for one that has been deleted meanwhile
        if reason:
            last_run.failed(handed.folders.run, reason)
        else:
            last_run.stopped(handed.folders.run)
    if reason:
        print(f"mep: {reason}", file=sys.stderr)
    sys.exit(code)


def _served(handed: Handed) -> tuple[int, str]:
    """Serves requests until a signal stops the manager; the exit code, and why it failed, if it did."""
    if handed.refused:
        log.critical("%s", handed.refused)
    if handed.profile.config.pam.enable:
        session.load()
    gc.collect()
    gc.freeze()  # what is loaded stays: to look at it again and again would copy the pages that each fork shares
    loop = asyncio.SelectorEventLoop()
    try:
        loop.run_until_complete(_serve(handed))
    except (HelperUnavailable, EndpointUnwanted) as e:
        return e.exit_code, str(e)
    except (AuditError, session.PamError) as e:
        return os.EX_CONFIG, str(e)
    except OSError as e:
        return os.EX_OSERR, str(e)
    except Exception as e:
        log.exception("the manager ends")
        return os.EX_SOFTWARE, f"{type(e).__name__}: {e}; the log has more"
    finally:
        loop.close()
    return os.EX_OK, ""


async def _serve(handed: Handed) -> None:
    profile, folders, accounts = handed.profile, handed.folders, handed.accounts
    name_service = NameService(accounts.name_service)
    programs = MappingPrograms(name_service.look_up, accounts.mapping)
    mapper = Identification(accounts.mapping, handed.endpoint_id, programs.ask)
    anew = _Anew(handed)
    worker = WorkerProcess(
        accounts.worker,
        handed.endpoint_id,
        profile.config.amqp_port,
        SealedFile(handed.addresses),
        anew.addresses,
        debug=logging.getLogger().isEnabledFor(logging.DEBUG),
    )
    neighbours = Neighbours(name_service, mapper, Renderer(accounts.render), worker, anew)
    manager = Manager(
        profile,
        handed.endpoint_id,
        folders.run,
        folders.kept,
        folders.orders,
        neighbours,
        handed.refused,
        handed.readers,
    )
    await manager.serve(worker)


class _Anew:
    """What the manager has done by a fresh program (`anew`), which ends when it has answered."""

    def __init__(self, handed: Handed) -> None:
        self._handed = handed
        self._credentials = None if handed.credentials is None else SealedFile(handed.credentials)

    async def profile(self, directory: Path) -> Tried:
        """Raises ConfigError, HelperUnavailable, and OSError: nothing came of it, or a profile of another version."""
        tried: Tried = await executed.run(ANEW, ReadProfile(directory, self._handed.accounts.render), READING)
        if tried.version != __version__:  # it has other keys, which this program does not know, or lacks some
            raise OSError(f"version {tried.version} is installed, and {__version__} runs: restart this manager")
        return tried

    async def mapping(self, path: Path) -> MappingDocuments:
        documents: MappingDocuments = await executed.run(ANEW, ReadMapping(path), READING)
        return documents

    def keep(self, profile: Profile) -> None:
        accepted.save(self._handed.folders.state, profile, self._handed.endpoint_id)

    async def addresses(self) -> SealedFile:
        """Registers once more.

        Raises:
            NotNow: it is to be tried again.
            EndpointUnwanted: the service, or the profile's login, will not do.
        """
        handed, credentials = self._handed, self._credentials
        asked = Register(handed.profile, handed.accounts.worker, handed.folders, given=credentials is not None)
        try:
            addresses = SealedFile.empty()
            files = [each.descriptor for each in (addresses, credentials) if each is not None]
            await executed.run(ANEW, asked, REGISTERING, files)
            addresses.seal()
        except OSError as e:
            raise NotNow(str(e)) from None
        return addresses


if __name__ == "__main__":
    main(sys.argv[1:])
