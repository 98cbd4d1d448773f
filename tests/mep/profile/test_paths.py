from __future__ import annotations

import fcntl
import os
import socket
import subprocess
from pathlib import Path

import pytest

from lab.manager import MEP
from mep.profile.paths import Paths, find_paths


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without a word about paths."""
    for name in ("MEP_CONFIG_DIR", "MEP_STATE_DIR", "MEP_RUN_DIR", "GLOBUS_COMPUTE_USER_DIR"):
        monkeypatch.delenv(name, raising=False)


SYSTEM = Paths(Path("/etc/mep"), Path("/var/lib/mep"), Path("/run/mep"), Path("/var/log/mep"))


def test_roots_installation_is_spread_over_the_system(root: None) -> None:
    found = find_paths(None)
    assert found == SYSTEM
    assert found.kept("prod") == Path("/var/lib/mep/user-endpoints/prod")
    assert found.log_file(Path("/etc/mep/prod")) == Path("/var/log/mep/prod/endpoint.log")


@pytest.mark.parametrize("by_option", [True, False])
def test_a_folder_that_is_named_keeps_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_option: bool
) -> None:
    if not by_option:
        monkeypatch.setenv("MEP_CONFIG_DIR", str(tmp_path))
    found = find_paths(tmp_path if by_option else None)
    assert found == Paths(tmp_path, tmp_path, Path("/run/mep"), None)
    assert found.log_file(tmp_path / "prod") == tmp_path / "prod" / "endpoint.log"


def test_the_option_comes_before_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEP_CONFIG_DIR", "/elsewhere")
    assert find_paths(tmp_path).config == tmp_path


def test_the_public_packages_variable_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOBUS_COMPUTE_USER_DIR", str(tmp_path))
    assert find_paths(None) == Paths(tmp_path, tmp_path, Path("/run/mep"), None)
    monkeypatch.setenv("MEP_CONFIG_DIR", "/elsewhere")
    assert find_paths(None).config == Path("/elsewhere")


def test_an_empty_variable_names_no_folder(monkeypatch: pytest.MonkeyPatch, root: None) -> None:
    monkeypatch.setenv("MEP_CONFIG_DIR", "")
    assert find_paths(None) == SYSTEM


@pytest.mark.parametrize("name", ["MEP_RUN_DIR", "MEP_STATE_DIR"])
def test_other_empty_variables_name_no_folder_either(monkeypatch: pytest.MonkeyPatch, root: None, name: str) -> None:
    monkeypatch.setenv(name, "")
    assert find_paths(None) == SYSTEM


def test_run_and_state_have_variables_of_their_own(monkeypatch: pytest.MonkeyPatch, root: None) -> None:
    monkeypatch.setenv("MEP_RUN_DIR", "/r")
    monkeypatch.setenv("MEP_STATE_DIR", "/s")
    assert find_paths(None) == Paths(Path("/etc/mep"), Path("/s"), Path("/r"), Path("/var/log/mep"))
    assert find_paths(Path("/c")) == Paths(Path("/c"), Path("/s"), Path("/r"), None)


def test_a_relative_folder_stays_where_it_was_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--detach` changes the working directory."""
    monkeypatch.chdir(tmp_path)
    found = find_paths(Path("profiles"))
    monkeypatch.chdir("/")
    assert found.config == found.state == tmp_path / "profiles"


@pytest.mark.parametrize(("variable", "place"), [("MEP_RUN_DIR", "run"), ("MEP_STATE_DIR", "state")])
def test_so_do_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, place: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, "there")
    assert getattr(find_paths(tmp_path), place) == tmp_path / "there"


def test_other_users_have_theirs_at_home(tmp_path: Path, root: None) -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.environ["HOME"] = str(tmp_path)
            os.setgid(65534)
            os.setuid(65534)
            os.write(writing, repr(find_paths(None)).encode())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading) as answer:
        home = tmp_path / ".globus_compute"
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
        host = socket.gethostname()
        own = Paths(home, home, home / ".run" / f"{host}-{boot}", None, host)
        assert answer.read() == repr(own)
    assert own.kept("prod") == home / "user-endpoints" / "prod" / host, "no host recovers what runs on another"
    assert own.kept("prod").parent == own.kept_by_all("prod")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_file_environment_can_name_paths(tmp_path: Path, root: None) -> None:
    (tmp_path / "environment").write_text(f"MEP_RUN_DIR={tmp_path}/elsewhere\n")
    (tmp_path / "prod").mkdir(mode=0o755)
    (tmp_path / "prod" / "config.yaml").write_text("")
    (tmp_path / "elsewhere" / "prod").mkdir(mode=0o755, parents=True)
    (tmp_path / "elsewhere" / "prod" / "manager.pid").write_text(f"{os.getpid()}\n")
    with (tmp_path / "elsewhere" / "prod" / "manager.pid").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(
            [MEP, "--config-dir", tmp_path, "list"], capture_output=True, text=True, check=True, timeout=20
        )
    assert "starting" in done.stdout, "somebody has the lock there, and does not answer yet"
