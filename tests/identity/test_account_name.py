"""Names that may and may not become accounts."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from identity.account_name import problem
from identity.printable import shown


@pytest.mark.parametrize("name", ["alice", "_svc", "a.b-c_d", "x" * 32, "a1", "_1", "_", "e5"])
def test_acceptable(name: str) -> None:
    assert problem(name) is None
    assert problem(name, directory_names=True) is None


@pytest.mark.parametrize(
    "name",
    [
        *("Alice", "ALICE", "dR.aLICE", "1alice", "12a", "7-zip", "3e", "0xavier", "0bob", "2nd.of.2026"),
        *("alice@ad.example.org", "Alice.Smith-2@AD.EXAMPLE.ORG", "a@", "root@ad.example.org", "x" * 33, "X" * 255),
    ],
)
def test_what_only_directories_have_is_for_who_says_so(name: str) -> None:
    assert problem(name, directory_names=True) is None
    assert "directory_names" in (problem(name) or "")


@pytest.mark.parametrize(
    "name",
    [
        *("1000", "0", "01", "1.5", "1_000", "1-2", "1e5", "1E5", "1.5e-3", "0x1f", "0X1F", "0o17", "0b11"),
        *("2026-01-31", "2026-01-31t10", "2026-01-31T10.00Z", "1.2.3.4", "1."),
    ],
)
def test_what_other_programs_read_as_a_number_never_is(name: str) -> None:
    assert "number" in (problem(name, directory_names=True) or "")
    assert "directory_names" not in (problem(name) or "")


@pytest.mark.parametrize(
    "name",
    [
        "root",
        "Root",
        "ROOT",
        "",
        "X" * 256,
        "-a",
        "-1",
        ".a",
        ".",
        "..",
        "@hpc",
        "+a",
        "#0",
        "~a",
        "AD\\alice",
        "o'neil",
    ],
)
def test_what_no_directory_makes_a_name(name: str) -> None:
    assert problem(name, directory_names=True)
    assert "directory_names" not in (problem(name) or "")


@given(st.text(max_size=40))
def test_a_name_holds_nothing_that_is_more_than_a_name_elsewhere(name: str) -> None:
    """Whatever it is, what is accepted is one word to a shell, one file, and a text to YAML, also within others."""
    if problem(name, directory_names=True) is None:
        assert name.isascii() and name.isprintable()
        assert shlex.split(f"x{name}x {name}") == [f"x{name}x", name]
        assert Path("/scratch", name).name == name
        with pytest.raises(ValueError):
            int(name, 0)


@given(st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,20}", fullmatch=True))
def test_a_name_with_a_digit_in_front_is_a_text_to_yaml(name: str) -> None:
    if name[0].isdigit() and problem(name, directory_names=True) is None:
        assert yaml.safe_load(f"a: {name}") == {"a": name}


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
    assert (problem(name, directory_names=True) is None) == (name == "a@b")


def test_row_09_root() -> None:
    assert "administrator" in (problem("root") or "")


@pytest.mark.parametrize("name", ["0", "1000", "-1", "#0", "-a", "+a"])
def test_row_10_numbers_and_options(name: str) -> None:
    assert problem(name)
    assert problem(name, directory_names=True)


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
    assert problem(name, directory_names=True)


def test_row_32_shown_is_one_short_ascii_line() -> None:
    assert shown("a\nb\x1b\u202e") == r"'a\nb\x1b\u202e'"
    assert len(shown("x" * 10_000)) < 100
