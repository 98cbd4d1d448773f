"""Decides the account of a request: all documents, all identities of the set, one answer.

    mapper = Mapper.parse(text, "mapping.json")
    decision = await mapper.amap(identity_set, requester="...")  -> Decision(account="alice", ...)

For each identity the first document, and in it the first mapping, that matches decides. The identity that made the
request comes before the ones linked to it; without an answer for it, the others must agree.
"""

from __future__ import annotations

import functools
import hashlib
import types
from collections.abc import Generator, Iterator, Sequence

from identity import account_name, document_parser
from identity.decision import Decision, Found
from identity.documents import Document, ExternalDocument, Hint, Rule
from identity.expression import Applied, Problem, accepted, apply
from identity.external import Program
from identity.identities import Identity, PassedOver, SetRefused, canonical_id, read
from identity.jsontext import DocumentError
from identity.lookup import Lookup
from identity.printable import shown
from identity.runner import MapperError, Runner

POSIX_CONNECTOR = "145812c8-decc-41f1-83cf-bb2a85a2a70b"
"""The connector id that mapping programs are told: local accounts."""
ZERO_UUID = "00000000-0000-0000-0000-000000000000"


class Mapper:
    """All mapping documents of a site. Of earlier requests only programs' answers are kept, where a document says so.

    programs: the documents that name a program. hints: what is legal but probably not meant. digest: SHA-256 of the
    text, for the log.
    """

    def __init__(self, documents: Sequence[Document], hints: tuple[Hint, ...], digest: str) -> None:
        self._documents = tuple(
            Program(document) if isinstance(document, ExternalDocument) else Lookup(document.mappings)
            for document in documents
        )
        self.programs = tuple(document for document in documents if isinstance(document, ExternalDocument))
        self.hints = hints
        self.digest = digest

    @classmethod
    def parse(cls, text: str, source: str = "<text>") -> Mapper:
        """Reads mapping documents from JSON text: a list of documents or one bare document.

        source: the file that the text comes from, for messages.

        Raises:
            DocumentError: any document is not acceptable; nothing is loaded.
        """
        try:
            data = text.encode("utf-8")
        except UnicodeEncodeError:
            raise DocumentError(source, None, "", "the text holds half a surrogate pair", "save it as UTF-8") from None
        documents, hints = document_parser.parse(text, source)
        return cls(documents, hints, hashlib.sha256(data).hexdigest())

    async def amap(
        self,
        identity_set: object,
        *,
        requester: str | None = None,
        connector_id: str = POSIX_CONNECTOR,
        gateway_id: str = ZERO_UUID,
        run: Runner | None = None,
        directory_names: bool = False,
    ) -> Decision:
        """Maps a set: a list of identity records (objects with `id`, `username`, `status`, ...).

        requester: id of the identity that made the request. connector_id, gateway_id: passed to mapping programs.
        run: what runs those. directory_names: whether names may be as only directories have them.

        Raises:
            MapperError: a mapping program failed, or is to be asked without a runner; nothing is decided.
        """
        if requester is not None and canonical_id(requester) is None:
            return self._refused(f"the requester {shown(requester)} is not an identity id")
        try:
            identities, skipped = read(identity_set)
        except SetRefused as e:
            return self._refused(str(e))
        problem = functools.partial(account_name.problem, directory_names=directory_names)
        search = _Search(identities, skipped, canonical_id(requester), problem)
        for document in self._documents:
            if not search.is_open:
                break
            if isinstance(document, Lookup):
                await search.look_up(document)
            elif run is None:
                raise MapperError(f"{document.document.rule} cannot be asked: nothing is given here that runs programs")
            else:
                await search.ask(document, connector_id, gateway_id, run)
        return search.decision(len(self._documents))

    def _refused(self, reason: str) -> Decision:
        return Decision(None, None, None, reason, documents=len(self._documents))


class _Search:
    """One request on its way through the documents."""

    def __init__(
        self, identities: Sequence[Identity], skipped: list[PassedOver], requester: str | None, problem: Problem
    ) -> None:
        self._undecided = {identity.id: identity for identity in identities}
        self._requester = requester
        self._passed_over = skipped
        self._problem = problem
        self._found: dict[str, Found] = {}

    @property
    def is_open(self) -> bool:
        """Whether a further document could change the answer."""
        return bool(self._undecided) and self._requester not in self._found

    async def look_up(self, lookup: Lookup) -> None:
        """Tries the mappings of one document."""
        for identity in list(self._undecided.values()):
            await _others_go_on()  # a large pattern takes hundredths of a second; others are served between identities
            for rule, applied in _attempts(lookup, identity, self._problem):
                self._enter(identity.id, rule, applied)

    async def ask(self, program: Program, connector_id: str, gateway_id: str, run: Runner) -> None:
        """Asks the program of one document."""
        undecided, document = list(self._undecided.values()), program.document
        try:
            names = await program.ask(undecided, connector_id, gateway_id, run)
        except MapperError as e:
            if not document.may_fail:
                raise
            self._passed_over += [PassedOver(each.id, str(document.rule), f"failed: {e}") for each in undecided]
            return
        for identity_id, name in names.items():
            self._enter(identity_id, document.rule, accepted(name, self._problem))

    def _enter(self, identity_id: str, rule: Rule, applied: Applied) -> None:
        if applied.name is not None:
            self._found[identity_id] = Found(identity_id, applied.name, rule)
        else:
            self._passed_over.append(PassedOver(identity_id, str(rule), applied.reason))
        if applied.final:
            del self._undecided[identity_id]

    def decision(self, documents: int) -> Decision:
        best, refusal = self._choose()
        return Decision(
            account=best.account if best else None,
            identity=best.identity if best else None,
            rule=best.rule if best else None,
            refusal=refusal,
            passed_over=tuple(self._passed_over),
            found=tuple(self._found.values()),
            documents=documents,
        )

    def _choose(self) -> tuple[Found | None, str | None]:
        if self._requester in self._found:
            return self._found[self._requester], None
        if not self._found:
            return None, self._nothing()
        if len({found.account for found in self._found.values()}) > 1:
            pairs = ", ".join(f"{found.identity} to {found.account}" for found in self._found.values())
            return None, f"ambiguous: linked identities lead to different accounts ({pairs}), the requester's to none"
        return next(iter(self._found.values())), None

    def _nothing(self) -> str:
        reasons = "; ".join(f"{p.identity}: {p.where}: {p.reason}" for p in self._passed_over[:5])
        return f"no mapping gives an account{f' ({reasons})' if reasons else ''}"


@types.coroutine
def _others_go_on() -> Generator[None, None, None]:
    """Waits until it is this request's turn again, in any event loop."""
    yield


def _attempts(lookup: Lookup, identity: Identity, problem: Problem) -> Iterator[tuple[Rule, Applied]]:
    """What the mappings say about the identity, until one of them has the last word."""
    for mapping, value in lookup.candidates(identity.fields):
        applied = apply(mapping, identity, value, problem)
        if applied is not None:
            yield mapping.rule, applied
            if applied.final:
                return
