from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mep.monitor import notify
from mep.monitor.status import Status


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


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The other end of NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield sock


def heard(sock: socket.socket) -> list[str]:
    """What has been said since."""
    said = []
    try:
        while True:
            said.append(sock.recv(65536).decode())
    except BlockingIOError:
        return said


def test_a_value_is_one_line(systemd: socket.socket) -> None:
    notify.notify(STATUS=" refused:\n/a: x\n/b:\ty  \r\nREADY=1")
    assert heard(systemd) == ["STATUS=refused: /a: x /b: y READY=1"]


def test_an_abstract_socket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0mep-test{tmp_path}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@mep-test{tmp_path}")
        notify.notify(READY="1")
        assert sock.recv(100) == b"READY=1"


@pytest.mark.parametrize("address", ["", "/nosuch/socket", "/dev/null", "/" + "x" * 500, "vsock:2:1234", "@"])
def test_nobody_at_the_other_end_is_no_trouble(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify.notify(READY="1")


def test_a_name_that_is_not_text_is_no_trouble(systemd: socket.socket) -> None:
    notify.notify(STATUS="/etc/mep/prod/\udcff.j2: line 1")
    assert len(heard(systemd)) == 1


def test_the_status_is_made_of_parts(systemd: socket.socket, tmp_path: Path) -> None:
    status = Status("ep", tmp_path / "status")
    assert heard(systemd) == [], "nothing has changed"
    status.connection("connected")
    status.user_endpoints(1)
    status.user_endpoints(2)
    status.profile("restart needed for: debug")
    status.profile("")
    status.user_endpoints(0)
    assert heard(systemd) == [
        "STATUS=endpoint ep: connected; 0 user endpoints",
        "STATUS=endpoint ep: connected; 1 user endpoint",
        "STATUS=endpoint ep: connected; 2 user endpoints",
        "STATUS=endpoint ep: connected; 2 user endpoints; restart needed for: debug",
        "STATUS=endpoint ep: connected; 2 user endpoints",
        "STATUS=endpoint ep: connected; 0 user endpoints",
    ]


def test_what_has_not_changed_is_not_sent_again(systemd: socket.socket, tmp_path: Path) -> None:
    status = Status("ep", tmp_path / "status")
    for _ in range(3):
        status.connection("connected")
        status.user_endpoints(1)
        status.profile("")
    assert len(heard(systemd)) == 2


@pytest.mark.parametrize(("microseconds", "period"), [("", None), ("x", None), ("-1", None), ("3000000", 1.0)])
def test_signs_of_life(monkeypatch: pytest.MonkeyPatch, microseconds: str, period: float | None) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", microseconds)
    assert notify.watchdog_period() == period


@pytest.mark.parametrize(("microseconds", "pid"), [("0", ""), ("3000000", "1")])
def test_signs_of_life_that_nobody_wants(monkeypatch: pytest.MonkeyPatch, microseconds: str, pid: str) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", microseconds)
    monkeypatch.setenv("WATCHDOG_PID", pid)
    assert notify.watchdog_period() is None


def test_the_status_is_also_a_file_while_there_is_something_to_tell(tmp_path: Path) -> None:
    status = Status("ep", tmp_path / "status")
    status.connection("connected")
    assert (tmp_path / "status").read_text() == "endpoint ep: connected; 0 user endpoints\n"
    status.remove()
    status.remove()
    assert not (tmp_path / "status").exists()
    Status("ep", tmp_path / "nosuch" / "status").connection("connected")  # no reason to fail
