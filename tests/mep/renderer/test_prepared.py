"""What the render server prepares for a profile is there once, and goes with it."""

from __future__ import annotations

import gc
import json
import socket
import weakref
from collections.abc import Iterator

import jinja2
import pytest

from mep.processes.sealed_file import SealedFile
from mep.renderer import answer, server, template


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_templates_of_earlier_profiles_are_not_kept() -> None:
    """A profile that is reloaded every day must not make the process grow for as long as it lives."""
    made: list[weakref.ref[jinja2.Environment]] = []

    def prepare(profile: bytes) -> None:
        answer.prepare(profile)
        made.append(weakref.ref(template._environment(json.loads(profile)["templates"])))

    ours, theirs = socket.socketpair()
    with ours, theirs:
        serving = server._Server(ours, prepare, answer.answer)
        for number in range(4):
            serving._know(SealedFile.of(json.dumps({"template": "t", "templates": {"t": f"a: {number}"}}).encode()))
    assert [reference() is not None for reference in made] == [False, False, False, True]
