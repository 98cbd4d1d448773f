"""The dangerous cases of identity mapping that concern documents and the files that they are read from.

One test for each row of the table in the specification that we were given. A row says what the official library does,
and what a stricter engine should do; the latter is asserted here, from outside, as a request meets it. The details of
each part are tested beside it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.metadata
import logging
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from identity.jsontext import DocumentError
from identity.mapper import Mapper
from mep.monitor import manager
from mep.profile.config import ConfigError
from mep.reader import loader as profile

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
            profile.read_mapping(tmp_path / "m.json")


def test_row_34_file_replaced_while_running(
    tmp_path: Path, root: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(manager, "MAPPING_PERIOD", 0.01)
    path = tmp_path / "mapping.json"
    path.write_text(text(expression({"output": "old"})))
    config = SimpleNamespace(identity_mapping_config_path=path)
    running = Running(config, profile.read_mapping(path))
    said: list[str] = []
    site: Any = SimpleNamespace(_profile=running, _status=SimpleNamespace(mapping=said.append))
    site._reload_mapping = lambda: manager._Manager._reload_mapping(site)

    async def edits() -> None:
        watching = asyncio.ensure_future(manager._Manager._watch_mapping(site))
        await asyncio.sleep(0.05)
        for content, mode, owner in (("[", 0o644, 0), ("[]", 0o644, 0), (GOOD, 0o664, 0), (GOOD, 0o644, 12345)):
            path.write_text(content)
            path.chmod(mode)
            os.chown(path, owner, -1)
            await asyncio.sleep(0.05)
            assert (await site._profile.mapper.amap([record()])).account == "old"
            assert "old one is in force" in said[-1]
        os.chown(path, 0, -1)
        await asyncio.sleep(0.05)
        watching.cancel()

    asyncio.run(edits())
    assert (decide(site._profile.mapper, [record()]).account, said[-1]) == ("new", "")
    assert site._profile.mapper.digest[:12] in caplog.text


GOOD = text(expression({"output": "new"}))


@dataclasses.dataclass
class Running:
    """What the manager has of its profile, as far as the mapping needs it."""

    config: Any
    mapper: Mapper


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
