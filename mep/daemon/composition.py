"""Puts the manager's parts together and runs it: the only place that knows both the monitor and its neighbours."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import setproctitle

from mep import __version__
from mep.daemon import helper_account, known_names, trial
from mep.daemon.helper_account import HelperAccounts
from mep.daemon.registering import Registrar
from mep.mapper.mapping import IdentityMapper
from mep.monitor.manager import Manager, Neighbours
from mep.monitor.stages import rehearsal
from mep.monitor.stages.mapping_programs import MappingPrograms
from mep.monitor.stages.name_service import NameService
from mep.monitor.stages.rehearsal import Findings
from mep.monitor.stages.renderer import Renderer
from mep.monitor.worker_process import NotNow, WorkerProcess
from mep.privileged import session
from mep.processes.sealed_file import SealedFile
from mep.profile.errors import ConfigError, ConfigErrors
from mep.profile.mapping_documents import MappingLook, Stamp
from mep.profile.profile import CONFIG, Profile
from mep.reader import accepted as kept
from mep.reader import loader, mapping_watch, outside, registered
from mep.reader.accepted import Accepted
from mep.registration.answer import Registration
from mep.registration.errors import RegistrationError
from mep.request.account import Account
from mep.request.unwanted import EndpointUnwanted

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Chosen:
    """The profile to run. refused: what is wrong with the edited one, when this is the one that was accepted last."""

    profile: Profile
    refused: str = ""


def choose(directory: Path, state: Path) -> Chosen:
    """The edited profile, if all that can be tried works; else, loudly, the one that was accepted last, if it does.

    Raises:
        ConfigError: neither can be used.
        HelperUnavailable: they cannot be tried.
    """
    accepted = None
    with contextlib.suppress(ConfigError):  # without it the edited profile must do
        accepted = kept.find(state, directory.name, registered.endpoint_id(directory))
    try:
        edited = loader.load(directory)
        return Chosen(_usable(edited, tried=accepted is not None and _is_tried(accepted, edited)))
    except ConfigError as e:
        if accepted is None:
            raise
        try:
            profile = _usable(kept.load(accepted, directory), tried=accepted.version == __version__)
        except ConfigError as other:
            raise ConfigErrors(
                [str(e), f"the profile accepted on {accepted.at} cannot be used either: {other}"]
            ) from None
        refused = f"edited profile refused, the one accepted on {accepted.at} is in force: {e}"
        return Chosen(profile, refused)


def _is_tried(accepted: Accepted, edited: Profile) -> bool:
    return accepted.version == __version__ and accepted.is_of(edited)


def _usable(profile: Profile, *, tried: bool) -> Profile:
    """The profile, with what it relies on in order. Raises ConfigError, HelperUnavailable."""
    outside.check(profile)
    if profile.config.pam.enable and (problem := session.problem()):
        raise ConfigErrors([problem])
    if not tried:
        findings = asyncio.run(trial.rehearse(profile))
        if findings.problems:
            raise ConfigErrors(findings.problems)
    return profile


@dataclass(frozen=True)
class Folders:
    """Of this endpoint. run: below /run, in memory. kept: on disk, for what has to outlive a crash of the host.

    state: on disk, of all endpoints.
    """

    run: Path
    kept: Path
    state: Path


def run(
    chosen: Chosen, registrar: Registrar, registration: Registration, folders: Folders, accounts: HelperAccounts
) -> None:
    """Serves requests until a signal stops the manager.

    registration: the first one; `registrar` is asked for another one when the broker refuses us. accounts: those of the
    helpers.

    Raises:
        HelperUnavailable: the broker could not be reached at the start, or user endpoints could not be configured;
            nothing was consumed. Later losses are mended.
        EndpointUnwanted: the broker refuses us, and so does the service.
        OSError: the audit trail cannot be opened.
    """
    profile = chosen.profile
    setproctitle.setproctitle(f"{helper_account.TITLE}{profile.name} ({registration.endpoint_id})")
    if chosen.refused:
        log.critical("%s", chosen.refused)
    else:
        _keep(folders.state, profile, registration.endpoint_id)
    loop = asyncio.SelectorEventLoop()
    try:
        loop.run_until_complete(_serve(chosen, registrar, registration, folders, accounts))
    finally:
        loop.close()


def _keep(state: Path, profile: Profile, endpoint_id: str) -> None:
    try:
        kept.save(state, profile, endpoint_id)
    except (ConfigError, OSError) as e:
        log.error("the profile in force cannot be kept for the next start: %s", e)


async def _serve(
    chosen: Chosen,
    registrar: Registrar,
    registration: Registration,
    folders: Folders,
    accounts: HelperAccounts,
) -> None:
    profile = chosen.profile
    endpoint_id, amqp_port = registration.endpoint_id, profile.config.amqp_port
    name_service = NameService(accounts.name_service)
    mapper = IdentityMapper(endpoint_id, MappingPrograms(name_service.look_up, accounts.mapping).run)
    renderer = Renderer(accounts.render)
    reader = _Reader(renderer, accounts.render, folders.state, endpoint_id)
    renew = functools.partial(_renewed, registrar)
    addresses, debug = _addresses(registration), logging.getLogger().isEnabledFor(logging.DEBUG)
    worker = WorkerProcess(accounts.worker, endpoint_id, amqp_port, addresses, renew, debug=debug)
    neighbours = Neighbours(name_service, mapper, renderer, worker, reader)
    manager = Manager(profile, endpoint_id, folders.run, folders.kept, neighbours, chosen.refused)
    await manager.serve(worker)


def _addresses(registration: Registration) -> SealedFile:
    commands, heartbeats = registration.commands, registration.heartbeats
    addresses = {"commands": dataclasses.asdict(commands), "heartbeats": dataclasses.asdict(heartbeats)}
    return SealedFile.of(json.dumps(addresses).encode())


async def _renewed(registrar: Registrar) -> SealedFile:
    """Registers once more.

    Raises:
        NotNow: it is to be tried again.
        EndpointUnwanted: the service, or the profile's login, will not do.
    """
    try:
        return _addresses(await registrar.register())
    except RegistrationError as e:
        if not e.passes:
            raise EndpointUnwanted(e.exit_code, str(e)) from None
        raise NotNow(str(e)) from None
    except ConfigError as e:
        raise EndpointUnwanted(os.EX_CONFIG, str(e)) from None
    except OSError as e:
        raise NotNow(f"the service could not be asked: {e}") from None


class _Reader:
    """What the monitor has read, tried and kept."""

    def __init__(self, renderer: Renderer, account: Account, state: Path, endpoint_id: str) -> None:
        self._renderer = renderer
        self._account = account
        self._state = state
        self._endpoint_id = endpoint_id

    def load(self, directory: Path) -> Profile:
        profile = loader.load(directory)
        outside.check(profile)
        if unknown := known_names.problems(profile.config.accounts):
            raise ConfigError(directory / CONFIG, unknown)
        return profile

    async def rehearse(self, profile: Profile) -> Findings:
        return await rehearsal.rehearse(profile, self._renderer, self._account)

    def keep(self, profile: Profile) -> None:
        kept.save(self._state, profile, self._endpoint_id)

    def next_mapping(self, path: Path, seen: Stamp) -> MappingLook | None:
        return mapping_watch.next_mapping(path, seen)
