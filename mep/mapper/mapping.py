"""From a Globus identity set to a local user name: asks the site's mapping documents (package `identity`)."""

from __future__ import annotations

from dataclasses import dataclass

from identity.mapper import Mapper
from identity.runner import MapperError
from mep.mapper import program
from mep.request.refusal import Refused
from mep.worker.commands import StartEndpoint


@dataclass(frozen=True)
class MappedIdentity:
    """The identity that decided, the user name it maps to, and the rule that says so.

    candidates: one list per document of {identity: [names]}, as user endpoints report it in their heartbeats.
    """

    username: str
    identity: str
    rule: str
    candidates: list[list[dict[str, list[str]]]]


async def identify(command: StartEndpoint, mapper: Mapper, endpoint_id: str) -> MappedIdentity:
    """Maps the requester. `endpoint_id` is the manager's; external mapping programs are told it.

    Raises:
        Refused: stage `identity`; no account, more than one, or a mapping program failed.
    """
    who = f"{command.requester_name!r} (identity {command.requester})"
    try:
        decision = await mapper.amap(
            command.identity_set, requester=command.requester, gateway_id=endpoint_id, run=program.run
        )
    except MapperError as e:
        raise Refused(
            "identity",
            f"mapping {who} failed: {e}",
            "Your identity could not be mapped to a local account because of a temporary failure. Try again later.",
        ) from None
    if decision.account is None or decision.identity is None:
        raise Refused(
            "identity",
            f"{who} maps to no account: {decision.refusal}",
            f"Your Globus identity {command.requester_name} is not mapped to an account on this system. If you have"
            " an account here under another identity, link it to your Globus account and submit again.",
        )
    return MappedIdentity(decision.account, decision.identity, str(decision.rule), decision.candidates)
