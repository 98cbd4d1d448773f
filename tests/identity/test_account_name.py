"""Names that may and may not become accounts."""

from __future__ import annotations

import pytest

from identity.account_name import problem
from identity.printable import shown


@pytest.mark.parametrize("name", ["alice", "_svc", "a.b-c_d", "x" * 32, "a1"])
def test_acceptable(name: str) -> None:
    assert problem(name) is None


@pytest.mark.parametrize(
    "name",
    [
        "a\0",
        "a\n",
        "a\r",
        "a\t",
        "\x1b[31m",
        "a/b",
        "..",
        "a:b",
        "$(id)",
        "a'b",
        'a"b',
        "a@b",
        "a\\b",
        "a$",
        "a,b",
        "a b",
    ],
)
def test_row_08_and_37_hostile_output(name: str) -> None:
    assert problem(name)


def test_row_09_root() -> None:
    assert "administrator" in (problem("root") or "")


@pytest.mark.parametrize("name", ["0", "1000", "-1", "#0", "-a", "+a"])
def test_row_10_numbers_and_options(name: str) -> None:
    assert problem(name)


@pytest.mark.parametrize("name", ["ROOT", "Alice", "alice ", " alice", ""])
def test_row_11_case_and_spaces(name: str) -> None:
    assert problem(name)


def test_row_12_long_names() -> None:
    assert problem("x" * 33)
    assert len(problem("x" * 2_000_000) or "") < 200


@pytest.mark.parametrize(
    "name", ["\u0430lice", "\uff41lice", "al\u200bice", "al\u202eice", "\ufeffalice", "al\u00a0ice", "ali\u0301ce"]
)
def test_rows_06_07_unicode(name: str) -> None:
    assert problem(name)


def test_row_32_shown_is_one_short_ascii_line() -> None:
    assert shown("a\nb\x1b\u202e") == r"'a\nb\x1b\u202e'"
    assert len(shown("x" * 10_000)) < 100
