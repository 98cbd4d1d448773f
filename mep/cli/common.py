"""What the commands of `mep` share: where things lie, and which profile is meant.

`main` chooses the paths, which the option --config-dir may change, before a command runs.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mep.daemon.failed import Failed, check_name, exit_codes
from mep.profile.paths import Paths, find_paths

if TYPE_CHECKING:
    from mep.profile.profile import Profile

Name = Annotated[str, typer.Argument(help="The endpoint's name: a folder in the configuration folder.")]

_paths = find_paths(None)


def paths() -> Paths:
    """Where things lie for this call of `mep`."""
    return _paths


def choose_paths(config_dir: Path | None) -> None:
    """Finds the paths anew, with the option --config-dir and the environment as they are now."""
    global _paths  # one for each process: a command line has one option --config-dir
    _paths = find_paths(config_dir)


def profile_directory(name: str) -> Path:
    """The folder of profile `name`, whether there is one or not. Raises Failed."""
    check_name(name)
    return _paths.config / name


def trusted_run_directory(name: str) -> Path:
    """Where the state of the manager of profile `name` lies, which nobody else can have written.

    Raises:
        Failed: others can put something there, or it is no name.
        PermissionError: only root may look.
    """
    from mep.profile import places

    directory = profile_directory(name)
    with exit_codes():
        places.check_run(_paths, directory.name)
    return _paths.run / directory.name


def need_profile(directory: Path) -> None:
    """Raises Failed unless there is a profile in the folder."""
    if not directory.is_dir():
        remedy = f"make it with `mep configure {directory.name}`, or look at `mep list`"
        raise Failed(os.EX_CONFIG, f"{directory}: no profile of this name; {remedy}")


def load(directory: Path) -> Profile:
    """The profile in a folder. Raises Failed."""
    from mep.reader import loader

    with exit_codes():
        return loader.load(directory)
