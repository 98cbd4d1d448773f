"""Puts the manager's parts together and runs it: the only place that knows both the monitor and its neighbours."""

from __future__ import annotations

from pathlib import Path

import setproctitle

from mep.cli import helper_account
from mep.mapper.mapping import IdentityMapper
from mep.monitor.manager import Manager, Neighbours
from mep.monitor.stages.mapping_programs import MappingPrograms
from mep.monitor.stages.name_service import NameService
from mep.monitor.stages.renderer import Renderer
from mep.profile.mapping_documents import MappingLook, Stamp
from mep.profile.profile import Profile
from mep.reader import loader, mapping_watch, outside
from mep.registration.registration import Registration
from mep.request.account import Account
from mep.worker.consumer import CommandConsumer
from mep.worker.event_loop import EventLoop
from mep.worker.heartbeats import Heartbeats
from mep.worker.notices import Notices
from mep.worker.worker import Worker


def run(profile: Profile, registration: Registration, run_directory: Path) -> None:
    """Serves requests until a signal stops the manager. `run_directory` is this endpoint's folder below /run.

    Raises:
        BrokerError: the broker could not be reached at the start; nothing was consumed. Later losses are mended.
        HelperUnavailable: user endpoints could not be configured; nothing was consumed.
        OSError: the audit trail cannot be opened.
    """
    setproctitle.setproctitle(f"mep: manager of {profile.name} ({registration.endpoint_id})")
    account = helper_account.find(profile.config.render_account)
    loop = EventLoop()
    try:
        loop.run_until_complete(_serve(profile, registration, run_directory, account))
    finally:
        loop.close()


async def _serve(profile: Profile, registration: Registration, run_directory: Path, account: Account) -> None:
    endpoint_id, amqp_port = registration.endpoint_id, profile.config.amqp_port
    name_service = NameService(account)
    mapper = IdentityMapper(endpoint_id, MappingPrograms(name_service.look_up, account).run)
    neighbours = Neighbours(name_service, mapper, Renderer(account), Notices(amqp_port), _Reader())
    manager = Manager(profile, endpoint_id, run_directory, neighbours)
    worker = Worker(
        registration.commands.connection_url,
        CommandConsumer(registration.commands, amqp_port, manager.pipeline),
        registration.heartbeats.connection_url,
        Heartbeats(endpoint_id, registration.heartbeats, manager.heartbeat_period),
    )
    await manager.serve(worker)


class _Reader:
    """What the monitor has read in a child of its own."""

    def load(self, directory: Path) -> Profile:
        profile = loader.load(directory)
        outside.check(profile)
        return profile

    def next_mapping(self, path: Path, seen: Stamp) -> MappingLook:
        return mapping_watch.next_mapping(path, seen)
