"""From a Globus identity set to a local user name: asks the site's mapping documents (package `identity`)."""

from __future__ import annotations

import json
from collections.abc import Sequence

from identity.decision import Decision
from identity.mapper import Mapper
from identity.runner import MapperError, Runner
from mep.profile.mapping_documents import MappingDocuments
from mep.request.mapped_identity import MappedIdentity
from mep.request.mapping_program import ProgramFailed, RunProgram
from mep.request.refusal import Refused
from mep.request.start_endpoint import StartEndpoint


class IdentityMapper:
    """Maps requesters. endpoint_id: the manager's; mapping programs are told it. run: what runs those.

    The documents that were asked last stay parsed.
    """

    def __init__(self, endpoint_id: str, run: RunProgram) -> None:
        self._endpoint_id = endpoint_id
        self._run_program = run
        self._parsed: tuple[str, Mapper] | None = None

    async def identify(self, command: StartEndpoint, documents: MappingDocuments) -> MappedIdentity:
        """Maps the requester.

        Raises:
            Refused: stage `identity`; no account, more than one, or a mapping program failed.
        """
        return _mapped(command, await self.decide(command, documents))

    async def identify_without_programs(self, command: StartEndpoint, documents: MappingDocuments) -> MappedIdentity:
        """Maps the requester by documents alone.

        Raises:
            Refused: stage `identity`; no account, or more than one, or, without `ends_right`, a mapping program would
                have to be asked.
        """
        return _mapped(command, await self._decide(command, documents, None))

    async def decide(self, command: StartEndpoint, documents: MappingDocuments) -> Decision:
        """What the documents say, with all that was passed over.

        Raises:
            Refused: stage `identity`; a mapping program failed.
        """
        return await self._decide(command, documents, self._run)

    async def _decide(self, command: StartEndpoint, documents: MappingDocuments, run: Runner | None) -> Decision:
        try:
            return await self._mapper(documents).amap(
                json.loads(command.identity_set), requester=command.requester, gateway_id=self._endpoint_id, run=run
            )
        except MapperError as e:
            raise Refused(
                "identity",
                f"mapping {command.requester_name!r} (identity {command.requester}) failed: {e}",
                "Your identity could not be mapped to a local account because of a temporary failure. Try again later.",
            ) from None

    async def _run(self, argv: Sequence[str], stdin: bytes, account: str | None) -> bytes:
        try:
            return await self._run_program(argv, stdin, account)
        except ProgramFailed as e:
            raise MapperError(str(e)) from None

    def _mapper(self, documents: MappingDocuments) -> Mapper:
        if self._parsed is None or self._parsed[0] != documents.digest:
            self._parsed = (documents.digest, Mapper.parse(documents.text, str(documents.path)))
        return self._parsed[1]


def _mapped(command: StartEndpoint, decision: Decision) -> MappedIdentity:
    if decision.account is None or decision.identity is None:
        who = f"{command.requester_name!r} (identity {command.requester})"
        raise Refused(
            "identity",
            f"{who} maps to no account: {decision.refusal}",
            f"Your Globus identity {command.requester_name} is not mapped to an account on this system. If you have"
            " an account here under another identity, link it to your Globus account and submit again.",
            ends_right=True,
        )
    return MappedIdentity(decision.account, decision.identity, str(decision.rule), decision.candidates)
