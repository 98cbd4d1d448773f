"""A process that has given up the network: real system calls in a forked child."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from collections.abc import Callable

import pytest

from mep.privileged import network

IO_URING_SETUP = 425


def in_a_child(work: Callable[[], object]) -> int:
    """The exit code of a process that does the work: 0, or 1 when it raises."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def no_socket() -> None:
    for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):
            with pytest.raises(PermissionError):
                socket.socket(family, kind)
    libc = ctypes.CDLL(None, use_errno=True)
    for number in (IO_URING_SETUP, 0x40000000 | 41):
        assert libc.syscall(number, 1, 1, 0) == -1
        assert ctypes.get_errno() == errno.EPERM


def test_no_socket_of_any_kind_is_to_be_had() -> None:
    def work() -> None:
        with socket.socket():
            pass
        network.forbid()
        no_socket()

    assert in_a_child(work) == 0


def test_nor_for_what_it_starts_and_there_is_no_way_back() -> None:
    def work() -> None:
        network.forbid()
        network.forbid()
        assert in_a_child(no_socket) == 0

    assert in_a_child(work) == 0


def test_connected_pairs_and_all_else_go_on() -> None:
    def work() -> None:
        network.forbid()
        one, other = socket.socketpair()
        one.sendall(b"x")
        assert other.recv(1) == b"x"
        os.close(os.memfd_create("x"))
        assert os.listdir("/")

    assert in_a_child(work) == 0


def test_where_nobody_knows_how_it_is_said_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(network, "_ARCHITECTURES", {})
    network.forbid()
    assert "the network cannot be given up: nobody knows here how to on " in capsys.readouterr().err
    socket.socket().close()
