"""Environments that uv makes, offline, out of a folder of packages: once, whole, and with an error that can be used."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab import pythons
from lab.waiting import aiountil, until
from tests.uep.environments.conftest import OURS, VERSION, Make
from uep import shell_command
from uep.config import ConfigError
from uep.environments import making
from uep.environments.wanted import read
from uep.storage import file_lock

pytestmark = pytest.mark.system

SEEN = "import globus_compute_sdk, parsl, sys; print(sys.prefix, *sys.version_info[:2], globus_compute_sdk.__version__)"


def there(folder: Path) -> set[str]:
    """The names in it, but for locks."""
    return {each.name for each in folder.iterdir() if not each.name.endswith(".lock")}


def seen(environment: Path | None) -> list[str]:
    assert environment is not None
    done = subprocess.run(
        [environment / "bin" / "python", "-I", "-c", SEEN], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_another_python(make: Make) -> None:
    environment = make(version=VERSION)
    sdk = metadata.version("globus-compute-sdk")
    assert seen(environment) == [str(environment), *VERSION.split("."), sdk]


def test_made_once(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    first = make(told, version=VERSION, requirements="tinypackage")
    need = f"Python {VERSION} with globus-compute-sdk {metadata.version('globus-compute-sdk')} and the requirements"
    assert told == [f"making the environment of tasks, {need}"]
    assert first is not None
    assert {path.stat().st_mode & 0o077 for path in (first.parent, first, first / making.REQUIREMENTS)} == {0}
    assert there(first.parent) == {first.name}
    monkeypatch.setattr(shell_command, "run_program", None)
    assert make(told, version=VERSION, requirements="tinypackage") == first
    assert len(told) == 1


def test_requirements_of_the_own_python(make: Make) -> None:
    environment = make(version="endpoint", requirements="tinypackage ; python_version >= '3'  # why")
    assert environment is not None
    asked = [environment / "bin" / "python", "-I", "-c", "import tinypackage; print(tinypackage.ANSWER)"]
    assert subprocess.run(asked, capture_output=True, text=True, check=True).stdout == "42\n"


def test_one_whose_python_is_gone_is_made_anew(make: Make) -> None:
    environment = make(version=VERSION)
    assert environment is not None
    (environment / "bin" / "python").unlink()
    (environment / "bin" / "python").symlink_to("/nosuch/python")
    assert make(version=VERSION) == environment
    assert seen(environment)[0] == str(environment)


def test_one_that_has_lost_a_package_is_made_anew(make: Make) -> None:
    """As in scratch folders, where old files are removed."""
    environment = make(version=VERSION)
    assert environment is not None
    (environment / "lib" / f"python{VERSION}" / "site-packages" / "parsl" / "__init__.py").unlink()
    assert make(version=VERSION) == environment
    assert seen(environment)[0] == str(environment)


def test_a_python_that_there_is_not(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    there_are = ", ".join(sorted({OURS, *pythons.VERSIONS}, key=lambda version: int(version[2:])))
    says = f"There is no Python 3.99 on this host for your tasks; there are {there_are}. Use another"
    with pytest.raises(ConfigError, match=re.escape(says)) as e:
        make(version="3.99")
    assert "python.version: endpoint" in str(e.value)
    assert "/" not in str(e.value)


def test_what_uv_says_is_in_the_error(make: Make, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as e:
        make(version=VERSION, requirements="tinypackage>=2")
    text = str(e.value)
    assert f"The environment of tasks, python{VERSION}-" in text
    assert "cannot be made: uv pip install failed with exit code 1; the end of its output:\n" in text
    assert "tinypackage" in text.partition("its output:")[2]
    assert "python_version" not in text
    until(lambda: there(tmp_path / "environments") == set(), "what was half made to go")


@pytest.mark.parametrize(
    "requirements",
    [
        "--extra-index-url http://127.0.0.1:9/simple ; touch {mark}\nnosuchpackage",
        "tinypackage; touch {mark}",
        "$(touch {mark})",
        "`touch {mark}`",
        "tinypackage\n; touch {mark}",
        "'; touch {mark}; '",
        "-r /dev/null; touch {mark}",
        "--python /bin/sh\ntouch {mark}",
    ],
)
def test_requirements_meet_no_shell(requirements: str, make: Make, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="uv pip install failed"):
        make(version=VERSION, requirements=requirements.format(mark=tmp_path / "mark"))
    assert not (tmp_path / "mark").exists()


def test_a_password_reaches_no_command_line(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    run_program = shell_command.run_program

    async def noted(what: str, arguments: list[str], seconds: float) -> None:
        said.extend(arguments)
        await run_program(what, arguments, seconds)

    monkeypatch.setattr(shell_command, "run_program", noted)
    with pytest.raises(ConfigError) as e:
        make(version=VERSION, requirements="tinypackage @ https://me:s3cret@127.0.0.1:9/t.whl")
    assert len(said) > 10
    assert not any("s3cret" in word for word in [*said, str(e.value)])


def _other_start(block: dict[str, Any], made: Any) -> None:
    with ThreadPoolExecutor(1) as thread:
        made.put(str(asyncio.run(making.ready(read({**block, "version": VERSION}), thread, made.put))))


def test_two_starts_at_once_make_one(block: dict[str, Any], tmp_path: Path) -> None:
    """Of processes that begin together one makes it, and the others wait for it, or find it."""
    processes = multiprocessing.get_context("spawn")
    made: Any = processes.Queue()
    starts = [processes.Process(target=_other_start, args=(block, made)) for _ in range(3)]
    for start in starts:
        start.start()
    for start in starts:
        start.join(120)
    said = [made.get(timeout=10) for _ in range(made.qsize())]
    assert sum(text.startswith("making") for text in said) == 1
    (name,) = there(tmp_path / "environments")
    assert [text for text in said if text.startswith("/")] == [str(tmp_path / "environments" / name)] * 3


def _hold(path: str, ready: Any) -> None:
    ready.put(file_lock.take(file_lock.open_file(Path(path))))
    time.sleep(600)


def test_one_that_another_makes_without_end(make: Make, tmp_path: Path) -> None:
    """Who has it is named; what is told is told while one waits."""
    environment = make(version=VERSION)
    assert environment is not None
    environment.rename(tmp_path / "away")
    processes = multiprocessing.get_context("spawn")
    ready: Any = processes.Queue()
    holder = processes.Process(target=_hold, args=(f"{environment}.lock", ready))
    holder.start()
    try:
        assert ready.get(timeout=30) == ""
        told: list[str] = []
        with pytest.raises(ConfigError, match=f"{environment.name}, is still being made by process {holder.pid} on"):
            make(told, version=VERSION, timeout=1)
        assert set(told) == {"waiting for the environment of tasks, which another start of yours makes"}
    finally:
        holder.kill()
        holder.join()
    assert make(version=VERSION) == environment


def _slow_uv(folder: Path) -> Path:
    """A uv that tells its process id and does not end."""
    program = folder / "uv"
    lines = ["#!/bin/sh", f"echo $$ >{folder}/pid.new", f"mv {folder}/pid.new {folder}/pid", "echo slow", "sleep 600"]
    program.write_text("\n".join(lines))
    program.chmod(0o755)
    return program


def _is_running(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_the_time_is_bounded(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "_uv", lambda: str(_slow_uv(tmp_path)))
    with pytest.raises(
        ConfigError, match=r"cannot be made: uv venv was ended after .* s: not done; .*\nslow\n.*option python_version"
    ):
        make(version=VERSION, timeout=1)
    until(lambda: not _is_running(int((tmp_path / "pid").read_text())), "uv to end")


def test_a_start_that_is_given_up_leaves_nothing(
    block: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(making, "_uv", lambda: str(_slow_uv(tmp_path)))

    async def given_up(thread: ThreadPoolExecutor) -> None:
        wanted = read({**block, "version": VERSION})
        starting = asyncio.ensure_future(making.ready(wanted, thread, lambda _: None))
        await aiountil((tmp_path / "pid").exists, "uv to run")
        starting.cancel()
        await asyncio.wait((starting,))
        assert starting.cancelled()

    with ThreadPoolExecutor(1) as thread:
        asyncio.run(given_up(thread))
    until(lambda: not _is_running(int((tmp_path / "pid").read_text())), "uv to end")
    assert there(tmp_path / "environments") == set()


def test_what_killed_starts_have_left_is_removed(make: Make, tmp_path: Path) -> None:
    folder = tmp_path / "environments"
    for name, age in (("python3.9-x.new-old", 2 * making.LEFT_BEHIND), ("python3.9-x.new-now", 0)):
        (folder / name).mkdir(parents=True, mode=0o700)
        os.utime(folder / name, (time.time() - age,) * 2)
    folder.chmod(0o700)
    environment = make(version=VERSION)
    assert environment is not None
    assert there(folder) == {environment.name, "python3.9-x.new-now"}


@pytest.mark.parametrize("change", ["chmod", "chown"])
def test_a_folder_where_others_may_write_is_not_used(change: str, make: Make, tmp_path: Path, root: None) -> None:
    """Whoever puts an environment there has its code run by the endpoint's user."""
    folder = tmp_path / "environments"
    folder.mkdir(mode=0o700)
    folder.chmod(0o777) if change == "chmod" else os.chown(folder, 65534, 65534)
    with pytest.raises(ConfigError, match=r"python\.folder: it belongs to somebody else, or others may write to it"):
        make(version=VERSION)
    assert there(folder) == set()


def test_a_folder_in_a_variable_that_is_not_set(make: Make) -> None:
    with pytest.raises(ConfigError, match=r"python.folder: '\$NOSUCH/x' is no absolute path"):
        make(version=VERSION, folder="$NOSUCH/x")


def test_settings_of_a_project_around_do_not_count(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.uv.pip]\nno-binary = ['tinypackage']\npython-version = 'x'\n")
    monkeypatch.chdir(tmp_path)
    assert make(version=VERSION, requirements="tinypackage") is not None


def test_what_another_start_has_put_in_place_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was listed as half made, and has its own name when it is looked at."""
    gone, environment = tmp_path / "python3.12-other.new-x", tmp_path / "python3.12-this"
    monkeypatch.setattr(Path, "glob", lambda *_: iter([gone]))
    assert making._half_made(environment).is_dir()


def test_two_that_are_put_in_place_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file system has no locks: the other one comes between the look and the name."""
    made, environment = tmp_path / "made", tmp_path / "environment"
    for folder in (made, environment):
        (folder / "bin").mkdir(parents=True)
        (folder / "bin" / "python").symlink_to(sys.executable)
    (environment / "others").touch()
    looks = iter([False, True])
    monkeypatch.setattr(making, "_is_whole", lambda _: next(looks))
    monkeypatch.setattr(making.shutil, "rmtree", lambda path, **_: removed.append(path))
    removed = list[Path]()
    making._put_in_place(made, environment)
    assert (environment / "others").exists() and removed == [environment, made]


@pytest.mark.parametrize("content", [None, b"no program\n\0"])
def test_a_uv_that_does_not_run(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_without_packages: Make
) -> None:
    uv = tmp_path / "uv"
    if content is not None:
        uv.write_bytes(content)
        uv.chmod(0o755)
    monkeypatch.setattr(making, "_uv", lambda: str(uv))
    with pytest.raises(ConfigError, match="uv, which is installed beside mep, does not run: ") as e:
        make_without_packages(version="endpoint", requirements="tinypackage")
    assert str(tmp_path) not in str(e.value)
    until(lambda: there(tmp_path / "environments") == set(), "what was half made to go")


@pytest.mark.parametrize(
    "requirements",
    [
        "nosuchpackage @ http://bob:sesame@127.0.0.1:9/nosuch-1.0-py3-none-any.whl",
        "nosuch@@@http://bob:sesame@a",
        "http://bob:sesame@127.0.0.1:9/\x01",
        {"http://bob:sesame@127.0.0.1:9/": 1},
    ],
)
def test_an_error_has_no_password(requirements: Any, make_without_packages: Make) -> None:
    """It goes to the service, and to the admin's journal; uv shows addresses that do not fit as they are."""
    with pytest.raises(ConfigError) as e:
        make_without_packages(version="endpoint", requirements=requirements)
    assert "sesame" not in str(e.value)
