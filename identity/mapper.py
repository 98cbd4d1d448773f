"""Decides the account of a request: all documents, all identities of the set, one answer.

    mapper = parse(text, "mapping.json")
    decision = await mapper.amap(identity_set, requester="...")  -> Decision(account="alice", ...)

For each identity the first document, and in it the first mapping, that matches decides. The identity that made the
request comes before the ones linked to it; without an answer for it, the others must agree.
"""

from __future__ import annotations

import asyncio
import hashlib
import marshal
import os
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from identity import document_parser, external
from identity.account_name import shown
from identity.documents import Document, ExpressionDocument, ExternalDocument, Hint, Rule
from identity.expression import Applied, accepted, apply
from identity.identities import Identity, PassedOver, SetRefused, canonical_id, read
from identity.jsontext import DocumentError
from identity.lookup import Lookup
from identity.program import MapperError

POSIX_CONNECTOR = "145812c8-decc-41f1-83cf-bb2a85a2a70b"
"""The connector id that mapping programs are told: local accounts."""
ZERO_UUID = "00000000-0000-0000-0000-000000000000"
MAX_ANSWERS = 256
"""Answers that a mapper keeps."""
MAX_QUESTION = 8192
"""Bytes of an identity set whose answer is kept; a record has some four hundred."""


@dataclass(frozen=True)
class Found:
    """An identity, the account it leads to, and the rule that says so."""

    identity: str
    account: str
    rule: Rule


@dataclass(frozen=True)
class Decision:
    """The answer to one request: either account, identity and rule are set, or refusal (for the administrator) is.

    passed_over: what did not count and why, in the order it came up. found: every identity that led to an account.
    documents: how many documents the mapper has.
    """

    account: str | None
    identity: str | None
    rule: Rule | None
    refusal: str | None
    passed_over: tuple[PassedOver, ...] = ()
    found: tuple[Found, ...] = ()
    documents: int = 0

    @property
    def candidates(self) -> list[list[dict[str, list[str]]]]:
        """One list per document of {identity: [name]}, one object per mapping that led to an account."""
        return [self._of_document(number + 1) for number in range(self.documents)]

    def _of_document(self, number: int) -> list[dict[str, list[str]]]:
        by_mapping: dict[int, dict[str, list[str]]] = {}
        for found in self.found:
            if found.rule.document == number:
                by_mapping.setdefault(found.rule.mapping or 0, {})[found.identity] = [found.account]
        return [by_mapping[mapping] for mapping in sorted(by_mapping)]


class Mapper:
    """All mapping documents of a site. Safe to share: of earlier requests it keeps nothing but their answers.

    Users come again and again with the same identities, and without programs the answer depends on nothing else.

    hints: what is legal but probably not meant. digest: SHA-256 of the text, for the log.
    """

    def __init__(self, loaded: tuple[Document, ...], hints: tuple[Hint, ...], digest: str) -> None:
        self._documents = loaded
        self._steps = tuple(_step(document) for document in loaded)
        self._at_once = not any(isinstance(document, ExternalDocument) for document in loaded)
        self._answers: dict[bytes, Decision] = {}
        self.hints = hints
        self.digest = digest

    async def amap(
        self,
        identity_set: object,
        *,
        requester: str | None = None,
        connector_id: str = POSIX_CONNECTOR,
        gateway_id: str = ZERO_UUID,
    ) -> Decision:
        """Maps a set: a list of identity records (objects with `id`, `username`, `status`, ...).

        requester: id of the identity that made the request. connector_id, gateway_id: passed to mapping programs.

        Raises:
            MapperError: a mapping program failed; nothing is decided.
        """
        question = self._question(identity_set, requester)
        if question in self._answers:
            return self._answers[question]
        if requester is not None and canonical_id(requester) is None:
            return self._refused(f"the requester {shown(requester)} is not an identity id")
        try:
            identities, skipped = read(identity_set)
        except SetRefused as e:
            return self._refused(str(e))
        search = _Search(identities, skipped, canonical_id(requester))
        for step in self._steps:
            if search.open:
                await search.consider(step, connector_id, gateway_id)
        return self._keep(question, search.decision(len(self._documents)))

    def map(
        self,
        identity_set: object,
        *,
        requester: str | None = None,
        connector_id: str = POSIX_CONNECTOR,
        gateway_id: str = ZERO_UUID,
    ) -> Decision:
        """The same for programs without an event loop."""
        mapped = self.amap(identity_set, requester=requester, connector_id=connector_id, gateway_id=gateway_id)
        try:
            return _finish(mapped) if self._at_once else asyncio.run(mapped)
        finally:
            mapped.close()  # no effect unless a running loop refused it

    def _question(self, identity_set: object, requester: str | None) -> bytes | None:
        """What is asked, as the key of its answer; None when the answer is not to be kept."""
        if not self._at_once:
            return None
        try:
            question = marshal.dumps((identity_set, requester), 2)  # type: ignore[arg-type] # that it may not be is told
        except ValueError:  # what is no JSON
            return None
        return question if len(question) <= MAX_QUESTION else None

    def _keep(self, question: bytes | None, decision: Decision) -> Decision:
        if question is not None:
            if len(self._answers) >= MAX_ANSWERS:
                del self._answers[next(iter(self._answers))]
            self._answers[question] = decision
        return decision

    def _refused(self, reason: str) -> Decision:
        return Decision(None, None, None, reason, documents=len(self._documents))


def _finish(mapped: Coroutine[Any, Any, Decision]) -> Decision:
    """The result of a coroutine that waits for nothing, without an event loop."""
    while True:
        try:
            mapped.send(None)
        except StopIteration as e:
            decision: Decision = e.value
            return decision


def _step(document: Document) -> Lookup | ExternalDocument:
    return Lookup(document.mappings) if isinstance(document, ExpressionDocument) else document


class _Search:
    """One request on its way through the documents."""

    def __init__(self, identities: Sequence[Identity], skipped: list[PassedOver], requester: str | None) -> None:
        self._undecided = {identity.id: identity for identity in identities}
        self._requester = requester
        self._passed_over = skipped
        self._found: dict[str, Found] = {}

    @property
    def open(self) -> bool:
        """Whether a further document could change the answer."""
        return bool(self._undecided) and self._requester not in self._found

    async def consider(self, step: Lookup | ExternalDocument, connector_id: str, gateway_id: str) -> None:
        undecided = list(self._undecided.values())
        if isinstance(step, ExternalDocument):
            try:
                names = await external.ask(step, undecided, connector_id, gateway_id)
            except MapperError as e:
                if not step.may_fail:
                    raise
                self._passed_over += [PassedOver(each.id, str(step.rule), f"failed: {e}") for each in undecided]
                return
            for identity_id, name in names.items():
                self._enter(identity_id, step.rule, accepted(name))
            return
        for identity in undecided:
            await asyncio.sleep(0)  # a large pattern takes hundredths of a second; others are served between identities
            for rule, applied in _attempts(step, identity):
                self._enter(identity.id, rule, applied)

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


def _attempts(lookup: Lookup, identity: Identity) -> Iterator[tuple[Rule, Applied]]:
    """What the mappings say about the identity, until one of them has the last word."""
    for mapping, value in lookup.candidates(identity.fields):
        applied = apply(mapping, identity, value)
        if applied is not None:
            yield mapping.rule, applied
            if applied.final:
                return


def parse(text: str, source: str = "<text>") -> Mapper:
    """Reads mapping documents from JSON text: a list of documents or one bare document.

    Raises:
        DocumentError: any document is not acceptable; nothing is loaded.
    """
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError:
        raise DocumentError(source, None, "", "the text holds half a surrogate pair", "save it as UTF-8") from None
    loaded, hints = document_parser.parse(text, source)
    return Mapper(loaded, hints, hashlib.sha256(data).hexdigest())


def load(path: str | os.PathLike[str]) -> Mapper:
    """Reads mapping documents from a UTF-8 file that nobody but root or this process's user can write.

    Raises:
        DocumentError: as `parse`, or the file is not readable or not safe.
    """
    return parse(document_parser.read(path), os.fspath(path))
