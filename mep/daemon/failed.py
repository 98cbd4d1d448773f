"""`Failed`: how a command of `mep`, or the manager's start, fails: one text, and an exit code of <sysexits.h>.

The functions here turn the errors of other rooms into it. They import these when they are called: most commands need
few of them.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Failed(Exception):
    """Ends a program: a text for standard error, and the exit code."""

    def __init__(self, exit_code: int, text: str) -> None:
        super().__init__(text)
        self.exit_code = exit_code


@contextmanager
def exit_codes() -> Iterator[None]:
    """Ends the program with text and exit code when a profile is wrong, or the service does not take us.

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


def check_name(name: str) -> str:
    """The name of the profile that is meant. Raises Failed when that cannot be one."""
    from mep.profile import profile

    try:
        return profile.check_name(name)
    except ValueError as e:
        raise Failed(os.EX_USAGE, str(e)) from None


def profile_name(config: Path, given: str) -> str:
    """The name of the profile that is meant: by its name, or by its endpoint's id. config: the folder of profiles.

    Raises Failed: it can be neither, or not just one profile here has that id.
    """
    from mep.reader import registered

    name = check_name(given)
    if not is_id(name) or (config / name).is_dir():
        return name
    found = [directory.name for directory in registered.profiles_of(config, name)]
    if not found:
        raise Failed(os.EX_CONFIG, f"no profile in {config} is registered as endpoint {name}; look at `mep list`")
    if len(found) > 1:
        raise Failed(os.EX_USAGE, f"{', '.join(found)} are all registered as endpoint {name}; say which one is meant")
    return found[0]


def is_id(text: str) -> bool:
    """Whether it is the id of an endpoint, and not a name."""
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True


@contextmanager
def running_once(run_directory: Path, name: str) -> Iterator[None]:
    """Inside this nobody else is the manager of profile `name`. Raises Failed."""
    from mep.monitor import run_lock

    try:
        with run_lock.hold(run_directory):
            yield
    except run_lock.AlreadyRunning as e:
        raise Failed(os.EX_TEMPFAIL, f"endpoint {name} is running already (pid {e.pid}); stop it first") from None
    except run_lock.NoPlace as e:
        raise Failed(os.EX_CANTCREAT, str(e)) from None
