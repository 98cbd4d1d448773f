"""A list in config.yaml is edited in place: what it says then, and that nothing else has changed."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mep.profile.errors import ConfigError
from mep.reader.edited_list import with_list

PATH = Path("/etc/mep/prod/config.yaml")
NEW = ["a@sha256:0f", "b@sha256:1e", "c@sha256:2d"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("public: true\n", "public: true\nkey:\n  - {0}\n  - {1}\n  - {2}\n"),
        ("public: true", "public: true\nkey:\n  - {0}\n  - {1}\n  - {2}\n"),
        ("", "key:\n  - {0}\n  - {1}\n  - {2}\n"),
        (
            "# ours\nkey:  # who may\n- a  # first\n\n- 'b'\n# end\npublic: true  # yes\n",
            "# ours\nkey:  # who may\n- {0}  # first\n\n- {1}\n- {2}\n# end\npublic: true  # yes\n",
        ),
        ("key:\n    - a\n    - b   # last", "key:\n    - {0}\n    - {1}   # last\n    - {2}"),
        ("key: [a, 'b']  # short\nx: 1\n", 'key: ["{0}", "{1}", "{2}"]  # short\nx: 1\n'),
        ("key: [a,\n  b\n]\n", 'key: ["{0}",\n  "{1}", "{2}"\n]\n'),
        ("key: [a, b, c]\n", 'key: ["{0}", "{1}", "{2}"]\n'),
        ("key: []\n", 'key:  ["{0}", "{1}", "{2}"]\n'),
        ("key:\nx: 1\n", 'key: ["{0}", "{1}", "{2}"]\nx: 1\n'),
        ("x: ä\u20ac\nkey: [a]\n", 'x: ä\u20ac\nkey: ["{0}", "{1}", "{2}"]\n'),
    ],
)
def test_nothing_else_changes(before: str, after: str) -> None:
    found = with_list(PATH, before, "key", NEW)
    assert found == after.format(*NEW)
    old = yaml.safe_load(before) or {}
    assert yaml.safe_load(found) == {**old, "key": NEW}


def test_what_is_no_yaml_is_told() -> None:
    with pytest.raises(ConfigError, match="not valid YAML"):
        with_list(PATH, "a: b: c", "key", NEW)
