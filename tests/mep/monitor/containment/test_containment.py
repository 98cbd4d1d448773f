"""Containment where systemd does not run, or cannot be asked. With systemd: tests/box."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from mep.monitor.containment import containment, systemd
from mep.monitor.containment.containment import Containment
from mep.monitor.containment.systemd import ContainmentError
from mep.profile.sections.resources import Resources

LIMITS = Resources(memory_max=8 * 2**30, tasks_max=512, cpu_quota=1.5)


def test_without_systemd_it_is_said_what_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containment, "available", lambda: False)
    one = Containment("prod")
    assert asyncio.run(one.contain(os.getpid(), "uep", 1001, LIMITS)) is None
    with pytest.raises(ContainmentError, match="cpu_quota is not enforced") as error:
        asyncio.run(one.probe(LIMITS))
    assert "memory_max holds for the data of each process" in str(error.value)
    assert "tasks_max counts all processes of an account" in str(error.value)
    said = asyncio.run(one.probe(Resources()))
    assert "without scopes" in said and "_max" not in said
    one.close()


def test_without_its_socket_it_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(systemd, "SOCKET", str(tmp_path / "nobody"))
    monkeypatch.setattr(containment, "available", lambda: True)
    with pytest.raises(ContainmentError, match=r"no connection to systemd at /.*/nobody: No such file"):
        asyncio.run(Containment("prod").probe(LIMITS))
