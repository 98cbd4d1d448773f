"""What a profile of the public package still has of it: its manager, its old place, its login. For `mep check`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mep.profile.config import ManagerConfig
from mep.profile.keys import Key, Takes, declared
from mep.profile.paths import Paths
from mep.profile.profile import CONFIG

PID_FILE = "daemon.pid"
"""The public manager touches it every 15 s, and removes it at its end."""
OLD_FOLDER = ".globus_compute"
STORAGE = "storage.db"
_MISSED = 3
"""Heartbeats for which the file may be untouched while its manager runs, as the public package has it."""


@dataclass(frozen=True)
class Remains:
    """what: was looked at. in_the_way: two managers of one endpoint take each other's commands."""

    what: str
    text: str
    in_the_way: bool = False


def remains(directory: Path, config: ManagerConfig, paths: Paths) -> Iterator[Remains]:
    """What there is of it. Only looks."""
    yield from _manager(directory, config)
    yield from _old_paths(directory, config)
    yield from _login(config, paths)


def _manager(directory: Path, config: ManagerConfig) -> Iterator[Remains]:
    file = directory / PID_FILE
    try:
        age, pid = time.time() - file.stat().st_mtime, file.read_text(errors="replace").split()[:1]
    except OSError:
        return
    if age <= _MISSED * max(config.heartbeat_period, 30):
        who = f"process {pid[0]}, on this host or another one" if pid else "on this host or another one"
        text = f"the public package's manager of this profile runs ({who}): stop it with its own `stop` first"
        yield Remains(str(file), text, in_the_way=True)
    else:
        yield Remains(str(file), "was left by the public package's manager, which runs no more; remove it")


def _old_paths(directory: Path, config: ManagerConfig) -> Iterator[Remains]:
    if OLD_FOLDER in directory.parts:
        return
    for name, key in declared(ManagerConfig).items():
        path = getattr(config, name) if isinstance(key, Key) and key.takes == Takes.PATH else None
        if path is not None and OLD_FOLDER in path.parts:
            text = f"{name}: {path} is in the old folder; move the file to {directory}, and correct the key"
            yield Remains(CONFIG, text)


def _login(config: ManagerConfig, paths: Paths) -> Iterator[Remains]:
    """The file has the same form there and here: it can be copied, and then the login is ours."""
    old, ours = Path.home() / OLD_FOLDER / STORAGE, paths.state / STORAGE
    if config.client_credentials_path is None and old != ours and old.exists() and not ours.exists():
        text = f"that of the public package, {old}, is good here, too: install -D -m 600 {old} {ours}; or `mep login`"
        yield Remains("login", text)
