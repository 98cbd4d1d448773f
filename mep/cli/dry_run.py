"""Stages of a request, tried without a request: who would become whom, what would be rendered.

`mep map`, `explain`, `render` and `check` call these; they call what the running manager calls, with a made-up command.
"""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from identity.decision import Decision
from identity.runner import MapperError
from mep.accounts import look_up
from mep.cli import home_probe
from mep.daemon import endpoint_check, helper_account, rehearsal, trial
from mep.daemon.endpoint_check import Verdict
from mep.mapper.mapping import IdentityMapper, first_banned, mapped
from mep.monitor.endpoints import record
from mep.monitor.stages import admission, plan
from mep.monitor.stages.mapping_programs import MappingPrograms
from mep.monitor.stages.name_service import of_exactly_that_name
from mep.monitor.stages.orders import Orders
from mep.monitor.stages.quota import Quota
from mep.processes.sealed_file import SealedFile
from mep.profile.profile import Profile
from mep.request import mapped_identity
from mep.request.account import Account
from mep.request.credentials import Credentials
from mep.request.launch_plan import LaunchPlan
from mep.request.mapped_identity import MappedIdentity
from mep.request.mapping_program import ProgramFailed
from mep.request.refusal import Refused
from mep.request.rendered_config import RenderedConfig
from mep.request.start_endpoint import StartEndpoint

_NOBODY = str(uuid.UUID(int=0))


def identity_record(username: str, known: str | None = None) -> dict[str, Any]:
    """A record of an identity set, as Globus Auth has it, for a user name. known: its id; else one is made up from the
    name."""
    its_id = known or str(uuid.uuid5(uuid.NAMESPACE_URL, username))
    return {"id": its_id, "sub": its_id, "username": username, "email": username, "name": username, "status": "used"}


async def decide(profile: Profile, identity_set: Sequence[Mapping[str, Any]]) -> Decision:
    """What the mapping documents say of these identities, of which the first makes the request.

    Raises:
        Refused: at stage `identity`; a mapping program failed.
    """
    return await _decide(profile, _command(identity_set, {}))


async def identify(profile: Profile, identity_set: Sequence[Mapping[str, Any]]) -> tuple[MappedIdentity, Account]:
    """Whom the first of these identities, which are linked, would become.

    Raises:
        Refused: at stage `identity`, `account` or `admission`.
    """
    command = _command(identity_set, {})
    decision = await _decide(profile, command)
    identity = mapped(decision)
    if identity is None:
        raise mapped_identity.nobody(command, str(decision.refusal))
    return identity, _admitted(profile, identity.username)


async def take(profile: Profile, username: str) -> tuple[MappedIdentity, Account]:
    """The account of this name, for an identity that is made up; the mapping is not asked.

    Raises:
        Refused: at stage `account` or `admission`.
    """
    record = identity_record(username)
    return MappedIdentity(username, record["id"], "none; made up", []), _admitted(profile, username)


def _admitted(profile: Profile, username: str) -> Account:
    owner, policy = _account(username), profile.config.accounts
    admission.admit(owner, policy, look_up.group_ids(policy.group_names()))
    return owner


async def obey(orders_folder: Path, identity_set: Sequence[Mapping[str, Any]], owner: Account) -> None:
    """Returns unless an order of an admin, which stays, keeps them from having a new user endpoint.

    Raises:
        Refused: at stage `orders`.
    """
    command, orders = _command(identity_set, {}), Orders(orders_folder, lambda: None)
    await orders.load()
    try:
        banned = orders.banned_identities()
        if (number := first_banned(command.identity_set, tuple(banned))) is not None:
            raise Refused.of(list(banned.values())[number])
        orders.check_start(command, owner)
    finally:
        orders.close()


async def launch_plan(
    profile: Profile,
    identity_set: Sequence[Mapping[str, Any]],
    options: Mapping[str, Any],
    become: tuple[MappedIdentity, Account],
) -> LaunchPlan:
    """What would be started for these identities, which become that account, with these options.

    Raises:
        Refused: at any stage before the launch.
        HelperUnavailable: no render server can be started.
    """
    identity, owner = become
    command = _command(identity_set, options)
    return plan.make(profile, command, identity, owner, await _render(profile, command, identity, owner))


async def launch(profile: Profile, planned: LaunchPlan, run_directory: Path) -> None:
    """Returns if a new user endpoint of this plan would be launched now, as far as that can be seen.

    Raises:
        Refused: a limit on their number is reached, or the home of the account cannot be used.
    """
    running = record.owners(run_directory)
    now = asyncio.get_running_loop().time()
    with Quota().start("dry-run", planned.account.uid, profile.config.limits, running, now):
        await home_probe.look(planned)


async def ask_endpoint(profile: Profile, planned: LaunchPlan) -> Verdict:
    """What the user endpoint's own program says of a plan's configuration, when it takes it: notes, and the script that
    it would submit to a batch system.

    Raises:
        Refused: stage `running`; it does not.
        HelperUnavailable: there is no account to ask it as.
    """
    account, config = helper_account.find(profile.config).render, planned.handover["config"]
    try:
        (verdict,) = await endpoint_check.ask(planned.argv[:-1], planned.environment, [config], account, scripts=True)
    except endpoint_check.NotAsked as e:
        return Verdict(None, (str(e),))
    if verdict.problem is not None:
        admin = f"{rehearsal.place(profile, verdict.problem)}: {verdict.problem}"
        raise Refused("running", admin, verdict.problem)
    return verdict


async def render(profile: Profile, username: str, options: Mapping[str, Any]) -> RenderedConfig:
    """The configuration of a user endpoint of account `username` with these options.

    Raises:
        Refused: at stage `account`, `options` or `template`.
        HelperUnavailable: no render server can be started.
    """
    owner = _account(username)
    record = identity_record(username)
    identity = MappedIdentity(username, record["id"], "none; made up", [])
    return await _render(profile, _command([record], options), identity, owner)


async def _decide(profile: Profile, command: StartEndpoint) -> Decision:
    """As the mapper decides. Raises Refused."""

    async def run(number: int, question: bytes) -> bytes:
        return await _run_program(profile, number, question)

    mapper = IdentityMapper(profile.mapping.text, str(profile.mapping.path), _NOBODY)
    try:
        names = profile.documents.directory_names
        return await mapper.decide(command.identity_set, command.requester, run, directory_names=names)
    except MapperError as e:
        raise mapped_identity.undecided(command, str(e)) from None


async def _run_program(profile: Profile, number: int, question: bytes) -> bytes:
    """As the manager runs it. Raises ProgramFailed."""
    if os.geteuid() != 0:
        raise ProgramFailed("mapping programs run as another account; be root to have them asked")

    async def find(username: str) -> Account | None:
        return look_up.account(username)

    usual = helper_account.find(profile.config).mapping
    return await MappingPrograms(find, usual).ask(profile.mapping.programs[number], _NOBODY, question)


def _account(username: str) -> Account:
    """As the manager finds it, but waiting for the name service. Raises Refused."""
    return of_exactly_that_name(username, look_up.account(username))


async def _render(profile: Profile, command: StartEndpoint, identity: MappedIdentity, owner: Account) -> RenderedConfig:
    async with trial.rendering(helper_account.find(profile.config).render) as renderer:
        return await renderer.render(profile, command, identity, owner)


def _command(identity_set: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> StartEndpoint:
    requester = identity_set[0] if identity_set else {}
    try:
        text = json.dumps(options)
    except RecursionError:
        reason = "user_endpoint_config is nested too deeply"
        raise Refused("options", reason, f"Your {reason}.") from None
    return StartEndpoint(
        request_id="dry-run",
        name="dry-run",
        endpoint_id=_NOBODY,
        user_options=text,
        user_runtime="{}",
        credentials=Credentials(SealedFile.of(b"{}")),
        requester=str(requester.get("id")),
        requester_name=str(requester.get("username")),
        identity_set=json.dumps(list(identity_set)),
    )
