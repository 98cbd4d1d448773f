"""What is remembered of a registration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mep.profile.errors import ConfigError
from mep.profile.profile import OWNER, REGISTERED
from mep.reader import registered

ID, OTHER = "ee9d42e2-85b1-487f-a350-9712bb321d5f", "ab9d42e2-85b1-487f-a350-9712bb321d5f"


def test_the_owner_is_known_by_name(tmp_path: Path) -> None:
    assert registered.owner_id(tmp_path, "me@example.org") is None
    registered.remember(tmp_path, ID, "amqps://broker.example.org:5671", {OTHER: "me@example.org", ID: ""})
    assert (registered.endpoint_id(tmp_path), registered.owner_id(tmp_path, "me@example.org")) == (ID, OTHER)
    assert registered.owner_id(tmp_path, "you@example.org") is None
    (tmp_path / REGISTERED).write_text(json.dumps({"endpoint_id": ID, "owners": [1]}))
    with pytest.raises(ConfigError, match="restore it"):
        registered.owner_id(tmp_path, "me@example.org")


def test_an_owner_who_is_named_twice_has_one_rule(tmp_path: Path) -> None:
    """Globus Auth names the identity of the login among those that are linked to it, too."""
    registered.remember_owner(tmp_path, ["b", "a", "b"], "me")
    (document,) = json.loads((tmp_path / OWNER).read_text())
    assert [rule["match"] for rule in document["mappings"]] == ["a", "b"]
