"""What the process that is root for months has loaded, and what it has not."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from mep.daemon.main import _Waiting
from mep.monitor import last_run
from tests.mep.loading import loaded_by, rooms

OTHERS = {
    "typer",
    "pydantic",
    "globus_sdk",
    "requests",
    "urllib3",
    "jwt",
    "click",
    "rich",
    "yaml",
    "jinja2",
    "jsonschema",
    "cryptography",
}
"""A command line's, the service's client's, the parsers of the profile's files, what reads credentials: each is in a
process of its own."""
OF_THE_SYSTEM = {"ssl", "_ssl", "_hashlib", "bz2", "_bz2", "lzma", "_lzma"}
"""Modules of the standard library with a library of C behind them that nothing here needs."""
OURS = {"mep", "wire", "identity"}
NAMES = {"identity", "identity.account_name", "identity.printable"}
"""Of `identity` what may be the name of an account, and nothing else: who looks at what strangers wrote, and at the
site's patterns, has no rights."""


def test_the_manager_loads_no_command_line_no_client_no_parser_and_no_reader() -> None:
    modules = loaded_by("mep.daemon.serve")
    loaded = {name.split(".")[0] for name in modules}
    assert not loaded & (OTHERS | OF_THE_SYSTEM)
    assert not loaded - sys.stdlib_module_names - OURS
    assert of_identity(modules) <= NAMES
    assert not rooms(modules) & {"reader", "registration", "cli", "renderer"}


def test_what_is_done_before_and_beside_it_loads_no_more_than_it_must() -> None:
    for program in ("mep.daemon.main", "mep.daemon.anew"):
        modules = loaded_by(program)
        assert not {name.split(".")[0] for name in modules} & OTHERS, program
        assert of_identity(modules) <= NAMES, program


def of_identity(modules: set[str]) -> set[str]:
    return {name for name in modules if name.split(".")[0] == "identity"}


def test_that_a_start_waits_is_logged_once_and_told_systemd_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        waiting = _Waiting(tmp_path / "run")
        for why in ("locked", "locked", "still locked"):
            waiting.tell(why)
            assert f"STATUS=waiting: {why}" in systemd.recv(4096).decode()
    assert [record.getMessage().partition(";")[0] for record in caplog.records] == [
        "waiting: locked",
        "waiting: still locked",
    ]
    assert "still locked" in last_run.describe_wait(tmp_path / "run")
