"""Puts the manager's parts together and runs it: the only place that knows both the monitor and its neighbours."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import setproctitle

from mep.cli import helper_account
from mep.mapper.mapping import IdentityMapper
from mep.monitor.manager import Manager, Neighbours
from mep.monitor.stages.mapping_programs import MappingPrograms
from mep.monitor.stages.name_service import NameService
from mep.monitor.stages.renderer import Renderer
from mep.processes import forked
from mep.profile.errors import ConfigError
from mep.profile.mapping_documents import MappingLook, Stamp
from mep.profile.profile import Profile
from mep.reader import loader, mapping_watch, outside
from mep.registration.errors import RegistrationError
from mep.registration.registration import Registration
from mep.request.account import Account
from mep.request.unwanted import EndpointUnwanted
from mep.worker.consumer import CommandConsumer
from mep.worker.event_loop import EventLoop
from mep.worker.heartbeats import Heartbeats
from mep.worker.notices import Notices
from mep.worker.worker import Addresses, Worker
from wire.errors import Unreachable

REGISTER_TIMEOUT = 180.0
"""Seconds for one registration while the manager runs: `globus_sdk` tries several times."""


def run(
    profile: Profile, register: Callable[[], Registration], registration: Registration, run_directory: Path
) -> None:
    """Serves requests until a signal stops the manager. `run_directory` is this endpoint's folder below /run.

    registration: what `register` has returned; it is called again when the broker refuses us.

    Raises:
        BrokerError: the broker could not be reached at the start; nothing was consumed. Later losses are mended.
        HelperUnavailable: user endpoints could not be configured; nothing was consumed.
        EndpointUnwanted: the broker refuses us, and so does the service.
        OSError: the audit trail cannot be opened.
    """
    setproctitle.setproctitle(f"mep: manager of {profile.name} ({registration.endpoint_id})")
    account = helper_account.find(profile.config.render_account)
    loop = EventLoop()
    try:
        loop.run_until_complete(_serve(profile, register, registration, run_directory, account))
    finally:
        loop.close()


async def _serve(
    profile: Profile,
    register: Callable[[], Registration],
    registration: Registration,
    run_directory: Path,
    account: Account,
) -> None:
    endpoint_id, amqp_port = registration.endpoint_id, profile.config.amqp_port
    name_service = NameService(account)
    mapper = IdentityMapper(endpoint_id, MappingPrograms(name_service.look_up, account).run)
    neighbours = Neighbours(name_service, mapper, Renderer(account), Notices(amqp_port), _Reader())
    manager = Manager(profile, endpoint_id, run_directory, neighbours)

    async def renew() -> Addresses:
        return await _renewed(register)

    worker = Worker(
        _addresses(registration),
        renew,
        CommandConsumer(amqp_port, manager.pipeline),
        Heartbeats(endpoint_id, manager.heartbeat_period),
    )
    await manager.serve(worker)


def _addresses(registration: Registration) -> Addresses:
    return Addresses(registration.commands, registration.heartbeats)


async def _renewed(register: Callable[[], Registration]) -> Addresses:
    """Registers once more, in a forked child: it waits for the network.

    Raises:
        Unreachable: not now; it is to be tried again.
        EndpointUnwanted: the service, or the profile's login, will not do.
    """
    try:
        return _addresses(await forked.run(register, REGISTER_TIMEOUT))
    except RegistrationError as e:
        if not e.passes:
            raise EndpointUnwanted(e.exit_code, str(e)) from None
        raise Unreachable(str(e)) from None
    except ConfigError as e:
        raise EndpointUnwanted(os.EX_CONFIG, str(e)) from None
    except OSError as e:
        raise Unreachable(f"the service could not be asked: {e}") from None


class _Reader:
    """What the monitor has read in a child of its own."""

    def load(self, directory: Path) -> Profile:
        profile = loader.load(directory)
        outside.check(profile)
        return profile

    def next_mapping(self, path: Path, seen: Stamp) -> MappingLook:
        return mapping_watch.next_mapping(path, seen)
