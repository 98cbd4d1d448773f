"""Code that the service has is shown without running anything of it."""

from __future__ import annotations

import base64
import hashlib
import inspect
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
from globus_compute_sdk import Client
from globus_compute_sdk.serialize import (
    CombinedCode,
    ComputeSerializer,
    DillCode,
    DillCodeSource,
    DillCodeTextInspect,
    PureSourceDill,
    PureSourceTextInspect,
)

from mep.cli import function_code
from mep.daemon.failed import Failed

FUNCTION = "6d0b5a52-7d5b-4a4e-9f5a-0c7d3b1f5e01"


def area(width, height):
    secret_factor = "one word"
    return width * height if secret_factor else None


def shown(code: str, **more: Any) -> function_code.Shown:
    return function_code.shown({"function_code": code, "function_name": "area", "serialized": True, **more}, FUNCTION)


def packed(part: str) -> str:
    return ComputeSerializer.pack_buffers([part])


@pytest.mark.parametrize("strategy", [PureSourceTextInspect, PureSourceDill, DillCodeSource, DillCodeTextInspect])
def test_text_is_shown_as_it_was_written(strategy: Any) -> None:
    part = strategy().serialize(area)
    found = shown(packed(part))
    assert found.sha256 == hashlib.sha256(part.encode()).hexdigest()
    assert "        return width * height if secret_factor else None" in found.text
    assert "    # area of this text is called:" in found.text.splitlines()
    assert found.text.startswith(f"Function {FUNCTION}, 'area', SHA-256 {found.sha256}:\n")


def test_of_bytecode_names_and_texts_are_shown() -> None:
    here: dict[str, Any] = {}
    exec("def area(width):\n    secret_factor = 'one word'\n    return width", here)  # of no module, as a script's
    text = shown(packed(DillCode().serialize(here["area"]))).text
    assert "cannot be shown as it was written" in text
    assert {"    secret_factor", "    one word", "    width"} <= set(text.splitlines())


def test_what_is_recommended_for_bytecode_is_a_parameter_of_the_client() -> None:
    text = shown(packed(DillCode().serialize(area))).text
    (named,) = re.findall(r"globus_compute_sdk\.Client\((\w+)=PureSourceTextInspect\(\)\)", text)
    assert named in inspect.signature(Client).parameters


def test_other_forms_are_hashed_and_not_shown() -> None:
    assert "the form '10', which cannot be shown" in shown(packed(CombinedCode().serialize(area))).text


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("strategy", ["01", "03", "04"])
def test_nothing_of_it_runs(strategy: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    body = base64.encodebytes(pickle.dumps(("f", Evil(tmp_path / "ran")))).decode()
    shown(packed(f"{strategy}\n{body}"))
    assert not (tmp_path / "ran").exists()


def test_it_steers_no_terminal() -> None:
    text = shown(packed("st\nf:def f():\n    '\x1b[2J\u202e'\n"), function_name="\x1b]0;x\x07").text
    assert "\x1b" not in text
    assert "\u202e" not in text


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (None, "knows no function"),
        ({}, "not kept as the SDK packs it"),
        ({"function_code": "def f(): pass", "serialized": False}, "not kept as the SDK packs it"),
        ({"function_code": "def f(): pass"}, "not packed as the SDK does: no length at character 0"),
        ({"function_code": packed("st\nf:") * 2}, "2 parts instead of one"),
        ({"function_code": packed("st\n\ud800")}, "lone surrogate"),
    ],
)
def test_what_cannot_be_pinned_is_told(function: Any, says: str) -> None:
    with pytest.raises(Failed, match=says):
        function_code.shown(function, FUNCTION)
