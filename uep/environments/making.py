"""Finds the environment that tasks need in the user's own folder, or has `uv` make it there.

An environment is made once: it is made beside its place and gets its name when it is whole, while a lock on a file of
that name keeps out other starts, on other hosts too. Its name says which it is: the version of Python, and a digest of
all that it is made of. uv brings no Python along; it makes links to its own cache, where that is on the same disk.

`uep.preparation` calls `ready`, after check-in: heartbeats go on while uv works.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from pathlib import Path

from uep import shell_command
from uep.config import ConfigError
from uep.environments import pythons
from uep.environments.wanted import Needed, Wanted, needed, remedy
from uep.storage import file_lock

PAUSE = 0.5
"""Seconds between attempts at the lock."""
LEFT_BEHIND = 86400.0
"""Seconds after which something half made is taken for what an endpoint that was killed has left: none works longer."""
REQUIREMENTS = "requirements.txt"
"""The file that says what an environment was made of. Addresses in it may have passwords: only its user reads it."""
_HALF_MADE = ".new-"
_PASSWORD = re.compile(r"(?<=/)[^/@\s]*:[^/@\s]*@")
"""In an address, also one that uv shows as it has misread it; uv itself hides those only that it has understood."""


async def ready(wanted: Wanted, thread: Executor, tell: Callable[[str], None]) -> Path | None:
    """Returns the folder of the environment that tasks need; None when the endpoint's own Python suits.

    tell: is given the reason while there is one to wait.

    Raises:
        ConfigError: there is none and none can be made; the text names it and says why.
        OSError: the folder cannot be used.
    """
    need = needed(wanted)
    if need is None:
        return None
    run = functools.partial(asyncio.get_running_loop().run_in_executor, thread)
    base = await run(pythons.find, need.python, wanted.search)
    if base is None:
        there = await run(pythons.versions, wanted.search)
        raise ConfigError(
            f"There is no Python {need.python} on this host for your tasks; there are {', '.join(there)}."
            f" {remedy(wanted)}"
        )
    environment = await run(_folder, wanted) / _name(need, base)
    if not await run(_is_whole, environment):
        deadline = time.monotonic() + wanted.timeout
        async with _locked(environment, thread, deadline, tell):
            if not await run(_is_whole, environment):  # another start may have made it
                tell(f"making the environment of tasks, {need}")
                way_out = "" if need.has_requirements else f"\n{remedy(wanted)}"
                await _make(environment, need, base, thread, deadline, way_out)
    return environment


def _folder(wanted: Wanted) -> Path:
    """Finds the folder of environments, made if it is not there: code in it runs as its user, so it is nobody else's.

    Raises:
        ConfigError: it is, or is no absolute path.
        OSError: it cannot be used.
    """
    if wanted.folder is None:
        own = os.environ.get("GLOBUS_COMPUTE_USER_DIR")
        folder = (Path(own).absolute() if own else Path("~/.globus_compute").expanduser()) / ".environments"
    else:
        folder = Path(os.path.expandvars(wanted.folder)).expanduser()
    if not folder.is_absolute():
        raise ConfigError(f"python.folder: {wanted.folder!r} is no absolute path, once its variables are expanded")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise ConfigError("python.folder: it belongs to somebody else, or others may write to it: it is not used")
    return folder


def _name(need: Needed, base: Path) -> str:
    """Names the environment. Of hosts that share a home, those of other processors or systems have others."""
    parts = [str(base), platform.machine(), *platform.libc_ver(), need.packages]
    return f"python{need.python}-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:12]}"


def _is_whole(environment: Path) -> bool:
    """Tells whether it is there: its Python, which an upgrade of the host may have taken away, and what workers import,
    of which a file system that removes old files may have taken some."""
    packages = environment / "lib" / environment.name.partition("-")[0] / "site-packages"
    files = (packages / name / "__init__.py" for name in ("globus_compute_sdk", "parsl"))
    return os.access(environment / "bin" / "python", os.X_OK) and all(map(os.path.isfile, files))


@contextlib.asynccontextmanager
async def _locked(
    environment: Path, thread: Executor, deadline: float, tell: Callable[[str], None]
) -> AsyncIterator[None]:
    """Keeps out, inside, other starts that would make the same environment.

    Raises:
        ConfigError: another one has it until the deadline.
    """
    run = functools.partial(asyncio.get_running_loop().run_in_executor, thread)
    fd = await run(file_lock.open_file, environment.with_name(f"{environment.name}.lock"))
    try:
        while holder := await run(file_lock.take, fd):
            if time.monotonic() > deadline:
                raise ConfigError(f"The environment of tasks, {environment.name}, is still being made by {holder}.")
            tell("waiting for the environment of tasks, which another start of yours makes")
            await asyncio.sleep(PAUSE)
        yield
    finally:
        os.close(fd)


async def _make(environment: Path, need: Needed, base: Path, thread: Executor, deadline: float, way_out: str) -> None:
    """Makes it, or leaves nothing.

    Raises:
        ConfigError: uv could not; with the end of what it has said, and `way_out`.
    """
    run = functools.partial(asyncio.get_running_loop().run_in_executor, thread)
    made = await run(_half_made, environment)
    # Not in the folder where the endpoint began: uv would read settings of projects there and above.
    uv = [_uv(), "--color", "never", "--no-progress", "--no-python-downloads", "--directory", "/"]
    try:
        venv = ["venv", "--no-project", "--relocatable", "--allow-existing", "--python", str(base), str(made)]
        await shell_command.run_program("uv venv", [*uv, *venv], max(1.0, deadline - time.monotonic()))
        await run(_write_private, made / REQUIREMENTS, need.packages)
        packages = ["pip", "install", "--python", str(made / "bin" / "python"), "-r", str(made / REQUIREMENTS)]
        await shell_command.run_program("uv pip install", [*uv, *packages], max(1.0, deadline - time.monotonic()))
        await run(_put_in_place, made, environment)
    except BaseException as e:
        thread.submit(shutil.rmtree, made, ignore_errors=True)
        if isinstance(e, OSError) and e.filename == uv[0]:
            text = "The environment of tasks cannot be made: uv, which is installed beside mep, does not run"
            raise ConfigError(f"{text}: {e.strerror}. Please tell the endpoint's administrators.") from None
        if isinstance(e, ConfigError):
            text = f"The environment of tasks, {environment.name} ({need}), cannot be made: {e}{way_out}"
            raise ConfigError(_PASSWORD.sub("****@", text)) from None
        raise


def _uv() -> str:
    """Finds the program. Raises ConfigError: mep is installed without it."""
    try:
        from uv import find_uv_bin

        return os.fspath(find_uv_bin())
    except (ImportError, FileNotFoundError):
        text = "The environment of tasks cannot be made: the package uv is not installed beside mep."
        raise ConfigError(f"{text} Please tell the endpoint's administrators.") from None


def _half_made(environment: Path) -> Path:
    """Makes the folder to work in, and removes what endpoints that were killed have left of theirs."""
    for left in environment.parent.glob(f"*{_HALF_MADE}*"):
        with contextlib.suppress(FileNotFoundError):  # another start has given it its name, or removed it
            if time.time() - left.stat().st_mtime > LEFT_BEHIND:
                shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{environment.name}{_HALF_MADE}", dir=environment.parent))


def _write_private(path: Path, text: str) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:  # noqa: PTH123
        file.write(text)


def _put_in_place(made: Path, environment: Path) -> None:
    if _is_whole(environment):  # made by another, where the file system has no locks
        shutil.rmtree(made, ignore_errors=True)
        return
    shutil.rmtree(environment, ignore_errors=True)  # its Python is gone
    try:
        made.rename(environment)
    except OSError:
        if not _is_whole(environment):
            raise
        shutil.rmtree(made, ignore_errors=True)  # by another, a moment ago
