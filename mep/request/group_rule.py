"""`GroupRule`: which groups may have user endpoints. Made in `monitor.stages` from the site's policy."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class GroupRule:
    """The names of the groups that are kept out, and of those of which one must be had (None: no such rule).

    Decided twice, by other ids of the same groups: in `monitor.stages.admission` by those that a helper tells, and in
    the child that becomes the account by those that it has asked for itself.
    """

    deny: tuple[str, ...] = ()
    allow: tuple[str, ...] | None = None

    def names(self) -> tuple[str, ...]:
        """The groups whose ids `objection` needs; each once."""
        return tuple(dict.fromkeys((*self.deny, *(self.allow or ()))))

    def objection(self, member_of: Collection[int], ids: Mapping[str, int | None]) -> str | None:
        """Why a member of these groups may not; None when it may. ids: of each name; None for one without a group."""
        for name in self.deny:
            if ids[name] is None:  # whom it was meant to keep out cannot be known, so nobody comes in
                return f"the name service knows no group {name!r}, so nobody is admitted; mend it {_key('deny_groups')}"
            if ids[name] in member_of:
                return f"it is in group {name!r}, which is denied {_key('deny_groups')}"
        if self.allow is None or any(ids[name] in member_of for name in self.allow):
            return None
        unknown = [name for name in self.allow if ids[name] is None]
        also = f"; of these the name service does not know {', '.join(map(repr, unknown))}" if unknown else ""
        return f"it is in none of the groups that are allowed {_key('allow_groups')}{also}"


def _key(name: str) -> str:
    return f"(key accounts.{name} of config.yaml)"
