"""What the commands of `mep` share: where things lie, and how a command fails.

`cli` and `questions` use it; `cli.common` sets the places, which the option --config-dir may change.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from mep.profile import paths as places
from mep.profile.paths import Places

if TYPE_CHECKING:
    from mep.profile.profile import Profile

T = TypeVar("T")
Name = Annotated[str, typer.Argument(help="The endpoint's name: a folder in the configuration folder.")]

_places = places.find(None)


def here() -> Places:
    """The places of this call."""
    return _places


def settle(config_dir: Path | None) -> None:
    """Finds the places anew, with the option --config-dir and the environment as they are now."""
    global _places  # one for each process: a command line has one option --config-dir
    _places = places.find(config_dir)


class Failed(Exception):
    """Ends a command: a text for standard error, and the exit code."""

    def __init__(self, exit_code: int, text: str) -> None:
        super().__init__(text)
        self.exit_code = exit_code


def profile_directory(name: str) -> Path:
    """The folder of profile `name`, whether there is one or not. Raises Failed."""
    from mep.profile import profile

    try:
        profile.check_name(name)
    except ValueError as e:
        raise Failed(os.EX_USAGE, str(e)) from None
    return _places.config / name


def load(directory: Path) -> Profile:
    """The profile in a folder. Raises Failed."""
    from mep.reader import loader

    return orderly(lambda: loader.load(directory))


def orderly(action: Callable[[], T]) -> T:
    """Runs `action`; an error that the admin can mend becomes its text and its exit code."""
    from mep.profile.errors import ConfigError
    from mep.registration.errors import RegistrationError

    try:
        return action()
    except ConfigError as e:
        raise Failed(os.EX_CONFIG, str(e)) from None
    except RegistrationError as e:
        raise Failed(e.exit_code, str(e)) from None


def need_root(why: str) -> None:
    """Raises Failed unless this is root."""
    if os.geteuid() != 0:
        raise Failed(os.EX_NOPERM, f"must be root: {why}")
