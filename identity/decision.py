"""The answer to one request: an account and the rule that gives it, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass

from identity.documents import Rule
from identity.identities import PassedOver


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
