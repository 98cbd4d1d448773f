"""Programs to paste: Python that says just what was typed, whatever that is."""

from __future__ import annotations

import ast
import json

import pytest

from hub.page import snippet

ID = "6b1d4c7e-7d1c-4f43-a3b2-0f0e5b7a6f01"
OPTIONS = [
    {},
    {"a": 1, "b": 1.5, "c": True, "d": None, "e": "x"},
    {"quotes": "it's", "both": 'it\'s "so"', "lines": "a\nb", "odd": "\u202e\ud800\0\\", "": ""},
    {'"); import os; ("': "'); import os; ('", "{": "}"},
    {"list": [1, "x"], "long": ["x" * 50] * 3, "empty": [], "none": {}, "deep": {"a": [{"b": {"c": [[]]}}]}},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_the_program_passes_the_options_that_were_typed(options):
    call = next(
        node
        for node in ast.walk(ast.parse(snippet.python(ID, options)))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Executor"
    )
    passed = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    assert passed == {"endpoint_id": ID, **({"user_endpoint_config": options} if options else {})}


@pytest.mark.parametrize("options", OPTIONS)
def test_it_can_be_read_and_sent(options):
    text = snippet.python(ID, options)
    assert text.isascii() and all(line.isprintable() for line in text.splitlines())
    assert json.loads(snippet.as_json(options)) == options and snippet.as_json(options).isascii()


def test_it_looks_as_people_write_it():
    shown = snippet.python(ID, {"workers": 4, "nodes": ["a", "b"]})
    assert '    user_endpoint_config={\n        "workers": 4,\n        "nodes": ["a", "b"],\n    },\n' in shown
