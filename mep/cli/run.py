"""The commands about what runs: `mep start`, `reload`, `stop`, `list`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from mep.cli.common import Name, need_profile, paths, profile_directory, trusted_run_directory
from mep.daemon.failed import Failed, exit_codes, running_once


def start(
    context: typer.Context,
    name: Name,
    debug: Annotated[bool, typer.Option("--debug", help="Log details that mostly developers need.")] = False,
    log_to_console: Annotated[
        bool, typer.Option("--log-to-console", help="Also log to standard error when detached from it.")
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Go into the background once registered.")] = False,
) -> None:
    """Start the manager of an endpoint. Runs in the foreground unless --detach."""
    from mep.processes import helper

    config_dir = None if context.parent is None else context.parent.params.get("config_dir")
    options = [] if config_dir is None else ["--config-dir", str(config_dir)]
    flags = {"--debug": debug, "--log-to-console": log_to_console, "--detach": detach}
    options += [flag for flag, given in flags.items() if given]
    program = [sys.executable, "-I", "-m", "mep.daemon.main", *options, "--", name]
    os.execve(sys.executable, program, {**os.environ, helper.MARK: "1"})  # noqa: S606 - no shell, as meant


def reload(name: Name) -> None:
    """Have the running manager read its edited profile; says, also by its exit code, whether that is in force now."""
    from mep.cli import asking
    from mep.monitor import run_lock

    try:
        run_directory = trusted_run_directory(name)
        if run_lock.holder(run_directory) is None:
            raise Failed(os.EX_UNAVAILABLE, f"endpoint {name} is not running")
        answer = asking.reload(run_directory)
    except PermissionError:
        raise Failed(os.EX_NOPERM, "must be root to reload a manager") from None
    except run_lock.NoPlace as e:
        raise Failed(os.EX_CONFIG, str(e)) from None
    except asking.NoAnswer as e:
        raise Failed(os.EX_TEMPFAIL, str(e)) from None
    if not answer.taken:
        raise Failed(os.EX_CONFIG, f"the edited profile is refused, the old one stays in force:\n{answer.text}")
    print(f"The edited profile of {name} is in force{f'; {answer.text}' if answer.text else ''}.")


def stop(
    name: Name,
    user_endpoints: Annotated[
        bool, typer.Option("--user-endpoints", help="End user endpoints whatever `on_stop` says.")
    ] = False,
) -> None:
    """Stop the running manager of an endpoint and wait; its user endpoints end, unless `on_stop: keep`."""
    from mep.cli import unmanaged
    from mep.monitor import run_lock
    from mep.monitor.containment.systemd import ContainmentError
    from mep.profile import places

    directory = profile_directory(name)
    ended = 0
    try:
        run_directory = trusted_run_directory(name)
        with exit_codes():
            places.check_all(paths().kept(name))
        if run_lock.holder(run_directory) is None and not unmanaged.count(run_directory):
            need_profile(directory)
        stopped = run_lock.stop(run_directory)
        if unmanaged.count(run_directory) and (user_endpoints or not (stopped or _keeps(directory))):
            with running_once(run_directory, name):
                ended = unmanaged.end(run_directory, paths().kept(name))
    except PermissionError:
        raise Failed(os.EX_NOPERM, "must be root to stop a manager") from None
    except run_lock.NoPlace as e:
        raise Failed(os.EX_CONFIG, str(e)) from None
    except ContainmentError as e:
        raise Failed(os.EX_TEMPFAIL, f"not everything has ended: {e}") from None
    except TimeoutError as e:
        raise Failed(os.EX_TEMPFAIL, f"{e}; see {paths().log_file(directory)}") from None
    print(f"Endpoint {name} stopped." if stopped else f"Endpoint {name} is not running.")
    if ended:
        print(f"Ended {ended} user endpoints that no manager looked after.")
    if kept := unmanaged.count(run_directory):
        print(f"{kept} user endpoints go on; the next manager adopts them.")


def list_() -> None:
    """List the profiles: name, whether a manager runs, endpoint id, user endpoints."""
    from mep.cli import unmanaged
    from mep.monitor import run_lock

    root = paths().config
    profiles = sorted(path.parent for path in root.glob("*/config.yaml")) if root.is_dir() else []
    if not profiles:
        print(f"No profiles in {root}; make one with `mep configure NAME`.")
    else:
        print(f"{'PROFILE':<32} {'MANAGER':<8} {'ENDPOINT ID':<36} USER ENDPOINTS")
    untrusted = []
    for path in profiles:
        try:
            run_directory = trusted_run_directory(path.name)
            state, count = _state(run_directory), str(unmanaged.count(run_directory))
        except (PermissionError, run_lock.NoPlace):
            state = count = "?"
        except Failed as e:
            state = count = "?"
            untrusted.append(str(e))
        print(f"{path.name:<32} {state:<8} {_shown_id(path):<36} {count}")
    if untrusted:
        raise Failed(os.EX_CONFIG, "\n".join(dict.fromkeys(untrusted)))


def _state(run_directory: Path) -> str:
    """How the manager is, in a word. Raises PermissionError, NoPlace."""
    from mep.cli import asking
    from mep.monitor import last_run, run_lock

    if run_lock.holder(run_directory) is None:
        return "failed" if last_run.describe(run_directory).startswith("It failed") else "stopped"
    try:
        return "running" if asking.status(run_directory) is not None else "starting"
    except asking.NoAnswer:
        return "hangs"


def _keeps(directory: Path) -> bool:
    """Whether user endpoints are to outlive a stop; not when the profile cannot be read any more."""
    from mep.profile.errors import ConfigError
    from mep.reader import accepted, loader, registered

    try:
        return loader.load(directory).config.on_stop == "keep"
    except ConfigError:
        pass
    try:  # what the last manager ran with
        kept = accepted.find(paths().state, directory.name, registered.endpoint_id(directory))
        return kept is not None and accepted.load(kept, directory).config.on_stop == "keep"
    except ConfigError:
        return False


def _shown_id(directory: Path) -> str:
    """The id of a profile for people to read: a dash before the first registration, `?` when it cannot be read."""
    from mep.profile.errors import ConfigError
    from mep.reader import registered

    try:
        return registered.endpoint_id(directory) or "-"
    except ConfigError:
        return "?"
