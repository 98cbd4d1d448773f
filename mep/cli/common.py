"""What the commands of `mep` share: where things lie, which profile is meant, and with which login it is registered.

`main` chooses the paths, which the option --config-dir may change, before a command runs.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mep.daemon.failed import Failed, check_name, exit_codes, is_id, profile_name
from mep.profile.paths import Paths, find_paths

if TYPE_CHECKING:
    import globus_sdk

    from mep.profile.config import ManagerConfig
    from mep.profile.profile import Profile

DEFAULT = "default"
"""The name of the profile that is meant when none is given, as in the public package."""

_paths = find_paths(None)


def paths() -> Paths:
    """Where things lie for this call of `mep`."""
    return _paths


def choose_paths(config_dir: Path | None) -> None:
    """Finds the paths anew, with the option --config-dir and the environment as they are now."""
    global _paths  # one for each process: a command line has one option --config-dir
    _paths = find_paths(config_dir)


def set_up(config_dir: Path | None) -> None:
    """Finds the paths, and sets the variables of the file `environment`, which may name paths. Raises ConfigError."""
    from mep.reader import environment

    choose_paths(config_dir)
    environment.load(_paths.config / "environment")
    choose_paths(config_dir)


def _named(given: str) -> str:
    return profile_name(_paths.config, given)


def _new_name(given: str) -> str:
    if is_id(given):
        raise Failed(os.EX_USAGE, f"{given} looks like the id of an endpoint; give the new profile another name")
    return given


def completed(incomplete: str) -> list[str]:
    """Names of profiles that begin so, for the shell."""
    return [path.name for path in profiles() if path.name.startswith(incomplete)]


def profiles() -> list[Path]:
    """The folders that are profiles, also one without config.yaml, or with the public package's config.py of old.

    User endpoints of one's own may lie beside them.
    """
    marks = ("config.yaml", "config.py", "user_config_template.yaml.j2", "user_config_template.yaml")
    root = _paths.config
    return sorted({path.parent for mark in marks for path in root.glob(f"*/{mark}")}) if root.is_dir() else []


_HELP = "The endpoint's name, a folder in the configuration folder; or its id."
Name = Annotated[str, typer.Argument(help=_HELP, callback=_named, autocompletion=completed)]
GivenName = Annotated[str, typer.Argument(help=_HELP, autocompletion=completed)]
"""As it was typed, perhaps an id."""
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
NewName = Annotated[
    str, typer.Argument(help="The endpoint's name: a new folder in the configuration folder.", callback=_new_name)
]


def profile_directory(name: str) -> Path:
    """The folder of profile `name`, whether there is one or not. Raises Failed."""
    return _paths.config / check_name(name)


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


@contextlib.contextmanager
def acting(name: str, what: str) -> Iterator[Path]:
    """The run folder of a manager that runs, for a command that has it act. what: what only root may have it do.

    Raises:
        Failed: none runs, or it cannot be asked; also in place of NoAnswer and PermissionError of what is done inside.
    """
    from mep.cli import asking
    from mep.monitor import run_lock

    try:
        run_directory = trusted_run_directory(name)
        if run_lock.holder(run_directory) is None:
            need_profile(profile_directory(name))
            raise Failed(os.EX_UNAVAILABLE, f"endpoint {name} is not running")
        yield run_directory
    except PermissionError:
        raise Failed(os.EX_NOPERM, f"must be root to {what}") from None
    except run_lock.NoPlace as e:
        raise Failed(os.EX_CONFIG, str(e)) from None
    except asking.NoAnswer as e:
        raise Failed(os.EX_TEMPFAIL, str(e)) from None


def load(directory: Path) -> Profile:
    """The profile in a folder. Raises Failed."""
    from mep.reader import loader

    with exit_codes():
        return loader.load(directory)


def login_app_of(config: ManagerConfig) -> globus_sdk.GlobusApp:
    """The login that a profile with this configuration is registered with. Raises Failed."""
    from mep.profile import own_code, places
    from mep.profile.errors import ConfigErrors
    from mep.reader import client_credentials
    from mep.registration.login import login_app

    with exit_codes():
        places.check_state(_paths)
        if os.geteuid() == 0 and (problems := list(own_code.variable_problems(os.environ))):
            raise ConfigErrors(problems)
        return login_app(_paths.state, config, client_credentials.find(config.client_credentials_path))
