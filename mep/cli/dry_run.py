"""Stages of a request, tried without a request: who would become whom, what would be rendered.

`mep map`, `explain`, `render` and `check` call these; they call what the running manager calls, with a made-up command.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from identity.decision import Decision
from identity.runner import MapperError
from mep.mapper import mapping, program
from mep.mapper.mapping import MappedIdentity
from mep.monitor.requests import admission
from mep.monitor.requests import name_service as account
from mep.monitor.requests import plan as planning
from mep.monitor.requests.name_service import Account
from mep.monitor.requests.plan import LaunchPlan
from mep.monitor.requests.renderer import RenderedConfig, Renderer
from mep.reader.loader import Profile
from mep.request.refusal import Refused
from mep.worker.commands import StartEndpoint
from wire.queues import Target

_NOBODY = str(uuid.UUID(int=0))


def identity_record(username: str) -> dict[str, Any]:
    """A record of an identity set, as Globus Auth has it, for a user name; its id is made up from the name."""
    made_up = str(uuid.uuid5(uuid.NAMESPACE_URL, username))
    return {"id": made_up, "sub": made_up, "username": username, "email": username, "name": username, "status": "used"}


async def decide(site: Profile, identity_set: Sequence[Mapping[str, Any]]) -> Decision:
    """What the mapping documents say of these identities, of which the first makes the request.

    Raises:
        Refused: at stage `identity`; a mapping program failed.
    """
    command = _command(identity_set, {})
    try:
        return await site.mapper.amap(command.identity_set, requester=command.requester, run=program.run)
    except MapperError as e:
        raise Refused("identity", str(e), "Your identity could not be mapped because of a temporary failure.") from None


async def identify(site: Profile, identity_set: Sequence[Mapping[str, Any]]) -> tuple[MappedIdentity, Account]:
    """Whom the first of these identities, which are linked, would become.

    Raises:
        Refused: at stage `identity`, `account` or `admission`.
    """
    identity = await mapping.identify(_command(identity_set, {}), site.mapper, _NOBODY)
    owner = account.find(identity.username)
    policy = site.config.accounts
    admission.admit(owner, policy, account.group_ids(policy.group_names()))
    return identity, owner


async def plan(site: Profile, identity_set: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> LaunchPlan:
    """What would be started for these identities with these options.

    Raises:
        Refused: at any stage before the launch.
        WorkerUnavailable: no render worker can be started.
    """
    identity, owner = await identify(site, identity_set)
    command = _command(identity_set, options)
    return planning.make(site, command, identity, owner, await _render(site, command, identity, owner))


async def render(site: Profile, username: str, options: Mapping[str, Any]) -> RenderedConfig:
    """The configuration of a user endpoint of account `username` with these options.

    Raises:
        Refused: at stage `account`, `options` or `template`.
        WorkerUnavailable: no render worker can be started.
    """
    owner = account.find(username)
    record = identity_record(username)
    identity = MappedIdentity(username, record["id"], "none; made up", [])
    return await _render(site, _command([record], options), identity, owner)


async def _render(site: Profile, command: StartEndpoint, identity: MappedIdentity, owner: Account) -> RenderedConfig:
    renderer = Renderer(site.config.render_account)
    await renderer.start()
    try:
        return await renderer.render(site, command, identity, owner)
    finally:
        await renderer.stop()


def _command(identity_set: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> StartEndpoint:
    requester = identity_set[0] if identity_set else {}
    return StartEndpoint(
        request_id="rehearsal",
        name="rehearsal",
        endpoint_id=_NOBODY,
        user_options=options,
        user_runtime={},
        credentials={},
        notices=Target("", "", ""),
        requester=str(requester.get("id")),
        requester_name=str(requester.get("username")),
        identity_set=list(identity_set),
    )
