"""What is read of large records: their beginning."""

from __future__ import annotations

import json

import pytest

from hub.page.queries import leading

RECORD = {"endpoint_name": 'a "b" \u202e', "display_name": None, "multi_user": True, "metadata": {"x": [1, "y" * 50]}}


@pytest.mark.parametrize("size", range(len(json.dumps(RECORD)) + 1))
def test_members_before_the_cut_are_read(size):
    found = leading(json.dumps(RECORD)[:size])
    assert found.items() <= RECORD.items()
    if size > 60:
        assert found["endpoint_name"] == RECORD["endpoint_name"]
    if size == len(json.dumps(RECORD)):
        assert found == RECORD


@pytest.mark.parametrize("text", ["", "{", "{}", "[1, 2]", "[" * 100_000, '{"a"', '{"a": ', "null", '{"a": 1x'])
def test_what_is_no_record_has_none(text):
    assert leading(text) in ({}, {"a": 1})
