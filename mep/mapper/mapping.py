"""From a Globus identity set to a local user name: asks the site's mapping documents (package `identity`)."""

from __future__ import annotations

import json
from collections.abc import Sequence

from identity import identities
from identity.decision import Decision
from identity.mapper import Mapper
from identity.runner import MapperError
from mep.request.mapped_identity import MappedIdentity
from mep.request.mapping_program import ProgramFailed, RunProgram, command_line


class IdentityMapper:
    """The mapping documents in `text`, which was read from `source`. endpoint_id: the manager's; mapping programs are
    told it.

    Raises:
        DocumentError: they are not in order.
    """

    def __init__(self, text: str, source: str, endpoint_id: str) -> None:
        self._mapper = Mapper.parse(text, source)
        self._endpoint_id = endpoint_id
        self._numbers = {
            (command_line(program.command, endpoint_id), program.run_as): number
            for number, program in enumerate(self._mapper.programs)
        }

    async def decide(
        self, identity_set: str, requester: str, run: RunProgram | None, *, directory_names: bool = False
    ) -> Decision:
        """What the documents say, with all that was passed over.

        identity_set: as JSON text. run: what has mapping programs run; without it none may be needed.
        directory_names: whether names may be as only directories have them.

        Raises:
            MapperError: a mapping program failed, or would have to be asked.
        """

        async def asked(argv: Sequence[str], stdin: bytes, account: str | None) -> bytes:
            assert run is not None
            try:
                return await run(self._numbers[tuple(argv), account], stdin)
            except ProgramFailed as e:
                raise MapperError(str(e)) from None

        return await self._mapper.amap(
            _parsed(identity_set),
            requester=requester,
            gateway_id=self._endpoint_id,
            run=None if run is None else asked,
            directory_names=directory_names,
        )


def mapped(decision: Decision) -> MappedIdentity | None:
    """Whom a decision is for; None when it is for nobody."""
    if decision.account is None or decision.identity is None:
        return None
    return MappedIdentity(decision.account, decision.identity, str(decision.rule), decision.candidates)


def first_banned(identity_set: str, banned: Sequence[str]) -> int | None:
    """Which of these identities (ids and user names, in lower case) is in the set, by its number; None: none of them.

    An identity that counts for no mapping rule, since its owner has never logged in with it, does not count here.
    """
    if not banned:
        return None
    try:
        usable, _ = identities.read(_parsed(identity_set))
    except identities.SetRefused:
        return None  # which the mapping says
    theirs = {name for each in usable for name in (each.id, str(each.fields.get("username")).lower())}
    return next((number for number, name in enumerate(banned) if name in theirs), None)


def _parsed(identity_set: str) -> object:
    try:
        return json.loads(identity_set)
    except (ValueError, RecursionError):
        return None  # which is no identity set, and refused as such
