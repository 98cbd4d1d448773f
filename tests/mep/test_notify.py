from __future__ import annotations

import socket
from pathlib import Path

import pytest

from mep import notify


def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notify.notify(READY="1")  # not under systemd: nothing happens
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notify.notify(READY="1", STATUS="consuming")
        assert sock.recv(100) == b"READY=1\nSTATUS=consuming"
    monkeypatch.setenv("WATCHDOG_USEC", "60000000")
    assert notify.watchdog_period() == 20.0
    monkeypatch.delenv("WATCHDOG_USEC")
    assert notify.watchdog_period() is None
