"""Calls that are not served say so, in the form that clients read."""

from __future__ import annotations

import re

import pytest

from hub.routes import refused
from tests.hub.units import Rest, run


@pytest.mark.parametrize("call", refused.REFUSED, ids=" ".join)
def test_who_asks_is_told_why(call):
    method, path = call
    answer = run(Rest(refused.routes())(method, re.sub(r"\{\w+\}", "x", path)))
    assert answer.status in (410, 501)
    assert answer.json["message"] == refused.REFUSED[call][1]
