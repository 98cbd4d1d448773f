"""What the commands of `mep` share: where things lie, and how a command fails.

`main` chooses the paths, which the option --config-dir may change, before a command runs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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


class Failed(Exception):
    """Ends a command: a text for standard error, and the exit code."""

    def __init__(self, exit_code: int, text: str) -> None:
        super().__init__(text)
        self.exit_code = exit_code


@contextmanager
def exit_codes() -> Iterator[None]:
    """Ends the command with text and exit code when a profile is wrong, or the service does not take us.

    Raises:
        Failed: in place of ConfigError and RegistrationError.
    """
    from mep.profile.errors import ConfigError
    from mep.registration.errors import RegistrationError

    try:
        yield
    except ConfigError as e:
        raise Failed(os.EX_CONFIG, str(e)) from None
    except RegistrationError as e:
        raise Failed(e.exit_code, str(e)) from None


def profile_directory(name: str) -> Path:
    """The folder of profile `name`, whether there is one or not. Raises Failed."""
    from mep.profile.profile import check_name

    try:
        check_name(name)
    except ValueError as e:
        raise Failed(os.EX_USAGE, str(e)) from None
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


def need_root(why: str) -> None:
    """Raises Failed unless this is root."""
    if os.geteuid() != 0:
        raise Failed(os.EX_NOPERM, f"must be root: {why}")
