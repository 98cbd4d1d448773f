"""The file of mapping documents: which files are read at all, and what is looked at besides their text."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from identity.mapper import Mapper
from mep.profile.errors import ConfigError
from mep.profile.mapping_documents import MappingProgram
from mep.reader import apart
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


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("nosuchaccount", "line 2: document 2: run_as: there is no account 'nosuchaccount'; name"),
        ("a\0b", r"line 2: [1].run_as: 'a\x00b' holds '\x00'"),
        ("", "line 2: [1].run_as: the name is empty"),
        ("root", "line 2: [1].run_as: 'root' is the administrator's account"),
        ("1000", "line 2: [1].run_as: '1000' is a number"),
    ],
)
def test_an_account_that_does_not_exist_is_refused_at_load(path: Path, tmp_path: Path, name: str, why: str) -> None:
    program = write_program(tmp_path, "")
    path.write_text(text(expression(), external(program, run_as=name)).replace("[", "[\n", 1))
    assert why in refusal(path)
    path.write_text(text(external(program, run_as="nobody")))
    assert read_mapping(path).programs == (MappingProgram((str(program),), "nobody"),)


def test_programs_are_listed_in_the_order_of_their_documents(path: Path, tmp_path: Path) -> None:
    first, second = write_program(tmp_path, "", name="one"), write_program(tmp_path, "", name="two")
    path.write_text(text(external(first, "x y"), expression(), external(second, run_as="nobody"), external(first)))
    found = read_mapping(path).programs
    assert found == (
        MappingProgram((str(first), "x y")),
        MappingProgram((str(second),), "nobody"),
        MappingProgram((str(first),)),
    )


PROGRAM = {"argv": ["/bin/true"], "run_as": None, "rule": "", "line": 1, "document": 1}


@pytest.mark.parametrize(
    "said",
    [
        None,
        {"hints": [], "programs": 5},
        {"hints": [["a", "b"]], "programs": []},
        {"hints": [["a", "b", 5]], "programs": []},
        *[
            {"hints": [], "programs": [{**PROGRAM, key: value}]}
            for key, value in [
                ("argv", []),
                ("argv", ["relative"]),
                ("argv", ["/bin/true", 5]),
                ("argv", ["/bin/true", "a\0b"]),
                ("run_as", 0),
                ("line", "x"),
                ("rule", []),
            ]
        ],
        {"hints": [], "programs": [{}]},
    ],
)
def test_what_the_parsing_process_says_is_read_as_a_strangers(
    path: Path, said: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_text(text(expression()))
    monkeypatch.setattr(apart, "parse", lambda *_: said)
    assert "makes no sense" in refusal(path)


def test_whoever_reads_documents_has_not_loaded_what_parses_them(path: Path) -> None:
    path.write_text(text(expression(), external("/bin/true")))
    script = (
        "import pathlib, sys; from mep.reader.files import read_mapping; read_mapping(pathlib.Path(sys.argv[1]));"
        " print(*(name for name in sys.modules if name.partition('.')[0] == 'identity'))"
    )
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_a_program_that_ordinary_accounts_cannot_execute_is_hinted_at(path: Path, tmp_path: Path) -> None:
    program = write_program(tmp_path, "")
    program.chmod(0o700)
    path.write_text(text(external(program)))
    (hint,) = read_mapping(path).hints
    assert "cannot be executed by ordinary users" in hint.text
    assert "run_as" in hint.suggestion
    path.write_text(text(external(program, run_as="nobody")))
    assert read_mapping(path).hints == ()


def test_the_example_of_the_public_package_is_passed_over_with_a_warning(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_text(text({**external(), "command": ["/bin/false", "--some", "flag"]}, expression()))
    documents = read_mapping(path)
    assert documents.programs == ()
    assert f"{path}:1" in caplog.text
    assert "passed over" in caplog.text
    assert any("passed over" in hint.text for hint in documents.hints)
