"""What is remembered of a registration."""

from __future__ import annotations

import json
from pathlib import Path

from mep.profile.profile import OWNER
from mep.reader import registered


def test_an_owner_who_is_named_twice_has_one_rule(tmp_path: Path) -> None:
    """Globus Auth names the identity of the login among those that are linked to it, too."""
    registered.remember_owner(tmp_path, ["b", "a", "b"], "me")
    (document,) = json.loads((tmp_path / OWNER).read_text())
    assert [rule["match"] for rule in document["mappings"]] == ["a", "b"]
