"""Applies one mapping of an expression document to one identity.

apply(mapping, identity, value, problem) -> Applied(name="alice") | Applied(name=None, reason=..., final=...) | None
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from identity import account_name
from identity.documents import ExpressionMapping
from identity.identities import Identity
from identity.lookup import Filled
from identity.nfa import TooMuchWork
from identity.template import Unfillable

Problem: TypeAlias = "Callable[[str], str | None]"
"""Says what is wrong with the name of an account: `account_name.problem`."""


@dataclass(frozen=True)
class Applied:
    """What came of it: a name, or the reason why there is none.

    final: the identity gets no account, whatever later mappings say. A mapping that matched has decided, even if its
    answer is of no use; a later, broader one must not stand in for it.
    """

    name: str | None
    reason: str = ""
    final: bool = True


def apply(
    mapping: ExpressionMapping, identity: Identity, value: Filled, problem: Problem = account_name.problem
) -> Applied | None:
    """The outcome, or None when the pattern does not match. value: as from `lookup`."""
    if not isinstance(value, str):  # what is too long must not get past a mapping that was to decide about it
        return Applied(None, str(value), final=isinstance(value, TooMuchWork))
    try:
        groups = mapping.match.fullmatch(value)
        return None if groups is None else accepted(mapping.output.fill(identity.fields, groups), problem)
    except (TooMuchWork, Unfillable) as e:
        return Applied(None, str(e))


def accepted(name: str, problem: Problem = account_name.problem) -> Applied:
    """The name, or why it may not be an account."""
    reason = problem(name)
    return Applied(name) if reason is None else Applied(None, f"the name it gives is refused: {reason}")
