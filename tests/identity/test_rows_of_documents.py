"""The dangerous cases of identity mapping that concern documents and the files that they are read from.

One test for each row of the table in the specification that we were given. A row says what the official library does,
and what a stricter engine should do; the latter is asserted here, from outside, as a request meets it. The details of
each part are tested beside it.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from identity.jsontext import DocumentError
from identity.mapper import Mapper
from lab.waiting import aiountil
from mep.monitor import mapping_file
from mep.monitor.profile_in_force import ProfileInForce
from mep.profile.config import ManagerConfig
from mep.profile.errors import ConfigError
from mep.profile.mapping_documents import MappingDocuments
from mep.profile.profile import Profile
from mep.reader import files

from .asking import Write, ask, refused
from .samples import decide, expression, external, record, text


def test_row_22_documents_that_do_nothing() -> None:
    for content in ("{}", '""', "0", "false", "null", "[]", "[null]", "[[]]", "5"):
        with pytest.raises(DocumentError):
            Mapper.parse(content)
    nothing: list[object] = [{}, "", [], None]
    for mappings in nothing:
        with pytest.raises(DocumentError):
            Mapper.parse(text({**expression(), "mappings": mappings}))
    with pytest.raises(DocumentError, match="not known"):
        Mapper.parse(text(expression(), {"DATA_TYPE": "other#1.0.0"}))


def test_row_23_types_and_tokens_at_load(program: Write) -> None:
    for flag in ("literal", "ignore_case"):
        for value in ("false", "true", 0, 1, None, ""):
            assert "true or false" in refused({flag: value})
    for key in ("source", "match", "output"):
        values: list[object] = [None, 5, True, ["a"], {}]
        for odd in values:
            assert "string" in refused({key: odd})
    for token in ("{1}", "{-1}", "{ 1 }", "{+1}", "{01}", "{}", "{0_0}", "{\u0660}"):
        assert ".output" in refused({"output": token})
    assert ".source" in refused({"source": "{0}"})
    with pytest.raises(DocumentError, match="string"):
        Mapper.parse(text({**external(program("")), "command": [str(program("")), 5]}))


def test_row_33_json(tmp_path: Path) -> None:
    good = text(expression())
    for content in (
        good.replace('"source"', '"comment": 1, "comment": 2, "source"'),
        good.replace('"source"', '"comment": NaN, "source"'),
        good.replace('"source"', '"comment": Infinity, "source"'),
        "\ufeff\ufeff" + good,
        good + " " * (1 << 20),
    ):
        with pytest.raises(DocumentError):
            Mapper.parse(content)
    Mapper.parse("\ufeff" + good)
    for encoding in ("utf-16", "utf-32", "utf-16-le"):
        (tmp_path / "m.json").write_bytes(good.encode(encoding))
        with pytest.raises(ConfigError):
            files.read_mapping(tmp_path / "m.json")


def test_row_34_file_replaced_while_running(
    tmp_path: Path, root: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(mapping_file, "PERIOD", 0.01)
    path = tmp_path / "mapping.json"
    path.write_text(text(expression({"output": "old"})))
    loaded = Profile("prod", tmp_path, ManagerConfig(), "", {}, "t", None, {}, files.read_mapping(path))
    said = [""]
    status: Any = SimpleNamespace(mapping=said.append)

    async def read(edited: Path) -> MappingDocuments:
        return files.read_mapping(edited)

    reader: Any = SimpleNamespace(mapping=read, keep=lambda _profile: None)
    in_force = ProfileInForce(loaded, reader, status, lambda _taken, _text: None, lambda _before: None)

    async def edits() -> None:
        watching = asyncio.ensure_future(in_force.watch_mapping())
        for content, mode, owner in (("[", 0o644, 0), ("[]", 0o644, 0), (GOOD, 0o664, 0), (GOOD, 0o644, 12345)):
            before = len(said)
            path.write_text(content)
            path.chmod(mode)
            os.chown(path, owner, -1)
            await aiountil(lambda before=before: len(said) > before and "old one" in said[-1], "the edit to be refused")
            assert in_force.profile.mapping == loaded.mapping
        os.chown(path, 0, -1)
        await aiountil(lambda: said[-1] == "", "the last edit to be taken")
        watching.cancel()
        await in_force.close()

    asyncio.run(edits())
    mapper = Mapper.parse(in_force.profile.mapping.text)
    assert decide(mapper, [record()]).account == "new"
    assert in_force.profile.mapping.digest[:12] in caplog.text


GOOD = text(expression({"output": "new"}))


def test_row_36_two_types_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(**_: object) -> object:
        raise AssertionError("entry points are not looked at")

    monkeypatch.setattr(importlib.metadata, "entry_points", found)
    for kind in ("expression_identity_mapping", "expression_identity_mapping#1.0.1", "site#1.0.0", "#1.0.0"):
        with pytest.raises(DocumentError, match="not known"):
            Mapper.parse(text({**expression(), "DATA_TYPE": kind}))


def test_row_38_lone_surrogates() -> None:
    for key in ("source", "match", "output"):
        with pytest.raises(DocumentError, match="surrogate"):
            Mapper.parse(text(expression({key: "\ud800"})))
    with pytest.raises(DocumentError, match="surrogate"):
        Mapper.parse('[{"DATA_TYPE": "\ud800"}]')
    for fields in ({"name": "\ud800"}, {"\udfff": 1}, {"x": [{"y": "\udc00"}]}):
        assert "surrogate" in str(ask({}, record(**fields)).refusal)
