"""The file of mapping documents: which files are read at all, and what is looked at besides their text."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from identity.mapper import Mapper
from mep.profile.errors import ConfigError
from mep.reader.files import read_mapping
from tests.identity.samples import expression, external, text, write_program


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mapping.json"


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_mapping(path)
    return str(caught.value)


@pytest.mark.parametrize("data", [text(expression()).encode("utf-16"), b'[\n"\xff"]'])
def test_row_33_encoding_of_files(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    assert "not UTF-8" in refusal(path)


def test_row_34_files(path: Path, tmp_path: Path, root: None) -> None:
    path.write_text(text(expression()))
    assert read_mapping(path).digest == Mapper.parse(path.read_text()).digest
    path.chmod(0o664)
    assert "others than root may write" in refusal(path)
    path.chmod(0o644)
    os.chown(path, 12345, -1)
    assert "belongs to uid 12345" in refusal(path)
    for other in (tmp_path, tmp_path / "none"):
        assert refusal(other)


def test_a_fifo_is_refused_and_not_waited_for(path: Path) -> None:
    os.mkfifo(path, 0o600)
    assert "not a file" in refusal(path)


def test_an_error_in_the_text_has_its_line(path: Path) -> None:
    path.write_text('[\n{"DATA_TYPE": 5}]')
    assert refusal(path).startswith(f"{path}: line 2: [0].DATA_TYPE: this must be a string; ")


@pytest.mark.parametrize("name", ["nosuchaccount", "a\0b", ""])
def test_an_account_that_does_not_exist_is_refused_at_load(path: Path, tmp_path: Path, name: str) -> None:
    program = write_program(tmp_path, "")
    path.write_text(text(expression(), external(program, run_as=name)).replace("[", "[\n", 1))
    assert f"line 2: document 2: run_as: there is no account {name!r}; name" in refusal(path)
    path.write_text(text(external(program, run_as="nobody")))
    assert Mapper.parse(read_mapping(path).text).programs[0].run_as == "nobody"


def test_a_program_that_ordinary_accounts_cannot_execute_is_hinted_at(path: Path, tmp_path: Path) -> None:
    program = write_program(tmp_path, "")
    program.chmod(0o700)
    path.write_text(text(external(program)))
    (hint,) = read_mapping(path).hints
    assert "cannot be executed by ordinary users" in hint.text
    assert "run_as" in hint.suggestion
    path.write_text(text(external(program, run_as="nobody")))
    assert read_mapping(path).hints == ()
