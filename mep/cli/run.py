"""The commands about what runs: `mep start`, `restart`, `reload`, `stop`, `list`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from mep.cli.common import (
    DEFAULT,
    GivenName,
    Json,
    Name,
    acting,
    load,
    login_app_of,
    need_profile,
    paths,
    profile_directory,
    profiles,
    set_up,
    trusted_run_directory,
)
from mep.daemon.failed import Failed, exit_codes, profile_name, running_once

Debug = Annotated[bool, typer.Option("--debug", help="Log details that mostly developers need.")]
LogToConsole = Annotated[bool, typer.Option("--log-to-console", help="Also log to standard error when detached.")]
Detach = Annotated[bool, typer.Option("--detach", help="Go into the background once registered.")]
EndpointId = Annotated[
    uuid.UUID | None,
    typer.Option("--endpoint-uuid", help="Register under this id; it must be one that the service knows as ours."),
]


def start(
    context: typer.Context,
    name: GivenName = DEFAULT,
    debug: Debug = False,
    log_to_console: LogToConsole = False,
    detach: Detach = False,
    endpoint_uuid: EndpointId = None,
) -> None:
    """Start the manager of an endpoint. Runs in the foreground unless --detach."""
    environment = dict(os.environ)  # as it is now: to ask for the login takes the client's secret out
    flags = {"--debug": debug, "--log-to-console": log_to_console, "--detach": detach}
    _log_in_first(_config_dir(context), name)
    _become_manager(_config_dir(context), name, flags, endpoint_uuid, environment)


def restart(
    context: typer.Context,
    name: Name = DEFAULT,
    debug: Debug = False,
    log_to_console: LogToConsole = False,
    detach: Detach = False,
    endpoint_uuid: EndpointId = None,
) -> None:
    """Start the manager anew, in the foreground unless --detach; user endpoints go on. One of systemd's stays that."""
    from mep.cli import boot
    from mep.monitor import run_lock

    need_profile(profile_directory(name))
    environment = dict(os.environ)
    flags = {"--debug": debug, "--log-to-console": log_to_console, "--detach": detach}
    with _telling_of_a_stop(name):
        run_directory = trusted_run_directory(name)
        if boot.is_run_by_systemd(run_directory, name):
            if endpoint_uuid or any(flags.values()):
                text = f"systemd runs endpoint {name}, with the options of the unit"
                raise Failed(os.EX_USAGE, f"{text}; say: systemctl restart mep@{name}")
            boot.restart(name)
        _log_in_first(_config_dir(context), name)  # the one that runs needs none yet
        run_lock.stop(run_directory, signal.SIGUSR1)
    _become_manager(_config_dir(context), name, flags, endpoint_uuid, environment)


def _config_dir(context: typer.Context) -> Path | None:
    return None if context.parent is None else context.parent.params.get("config_dir")


def _become_manager(
    config_dir: Path | None,
    name: str,
    flags: dict[str, bool],
    endpoint_id: uuid.UUID | None,
    environment: Mapping[str, str],
) -> NoReturn:
    from mep.processes import helper

    options = [] if config_dir is None else ["--config-dir", str(config_dir)]
    options += [flag for flag, given in flags.items() if given]
    options += [] if endpoint_id is None else ["--endpoint-uuid", str(endpoint_id)]
    program = [sys.executable, "-I", "-m", "mep.daemon.main", *options, "--", name]
    os.execve(sys.executable, program, {**environment, helper.MARK: "1"})  # noqa: S606 - no shell, as meant


def _log_in_first(config_dir: Path | None, name: str) -> None:
    """Has whoever is at a terminal log in, where the endpoint needs that: there is no login, or it is not good any
    more. What else is wrong the start itself tells, which may do without."""
    if not sys.stdin.isatty():
        return
    import globus_sdk

    from mep.profile.errors import ConfigError
    from mep.reader import loader
    from mep.registration.errors import told
    from mep.registration.login import ask_for_linked, is_good

    with exit_codes():
        set_up(config_dir)
    try:
        config = loader.load(profile_directory(profile_name(paths().config, name))).config
    except (Failed, ConfigError):
        return
    with exit_codes(), login_app_of(config) as app:
        if isinstance(app, globus_sdk.UserApp) and not is_good(app, config):
            print("Nobody is logged in, or the login is not good any more.")
            ask_for_linked(app)
            with told("run `mep login`"):
                app.login(force=True)


def reload(name: Name = DEFAULT) -> None:
    """Have the running manager read its edited profile; says, also by its exit code, whether that is in force now."""
    from mep.cli import asking

    with acting(name, "reload a manager") as run_directory:
        answer = asking.reload(run_directory)
    if not answer.taken:
        raise Failed(os.EX_CONFIG, f"the edited profile is refused, the old one stays in force:\n{answer.text}")
    print(f"The edited profile of {name} is in force{f'; {answer.text}' if answer.text else ''}.")


def stop(
    name: Name = DEFAULT,
    user_endpoints: Annotated[
        bool, typer.Option("--user-endpoints", help="End user endpoints whatever `on_stop` says.")
    ] = False,
    remote: Annotated[
        bool, typer.Option("--remote", help="Have the service cut off all instances of it first, on other hosts too.")
    ] = False,
) -> None:
    """Stop the running manager of an endpoint and wait; its user endpoints end, unless `on_stop: keep`."""
    from mep.cli import unmanaged
    from mep.daemon import other_hosts
    from mep.monitor import run_lock
    from mep.profile import places

    directory = profile_directory(name)
    ended = 0
    if remote:
        _cut_off(directory)
    with _telling_of_a_stop(name):
        run_directory = trusted_run_directory(name)
        with exit_codes():
            places.check_all(paths().kept(name))
        if run_lock.holder(run_directory) is None and not unmanaged.count(run_directory):
            need_profile(directory)
        stopped = run_lock.stop(run_directory)
        if unmanaged.count(run_directory) and (user_endpoints or not (stopped or _keeps(directory))):
            with running_once(run_directory, name):
                ended = unmanaged.end(run_directory, paths().kept(name))
    elsewhere = "" if stopped else other_hosts.running_on(paths(), name)
    is_not = f"is not running here, but {elsewhere}." if elsewhere else "is not running."
    print(f"Endpoint {name} {'stopped.' if stopped else is_not}")
    if ended:
        print(f"Ended {ended} user endpoints that no manager looked after.")
    if kept := unmanaged.count(run_directory):
        print(f"{kept} user endpoints go on; the next manager adopts them.")


@contextlib.contextmanager
def _telling_of_a_stop(name: str) -> Iterator[None]:
    """Raises Failed in place of what keeps a manager from being stopped."""
    from mep.monitor import run_lock
    from mep.monitor.containment.systemd import ContainmentError

    try:
        yield
    except PermissionError:
        raise Failed(os.EX_NOPERM, "must be root to stop a manager") from None
    except run_lock.NoPlace as e:
        raise Failed(os.EX_CONFIG, str(e)) from None
    except ContainmentError as e:
        raise Failed(os.EX_TEMPFAIL, f"not everything has ended: {e}") from None
    except TimeoutError as e:
        raise Failed(os.EX_TEMPFAIL, f"{e}; see {paths().log_file(profile_directory(name))}") from None


def _cut_off(directory: Path) -> None:
    """Has the service end the connections of all instances of the endpoint. Raises Failed."""
    from mep.reader import registered
    from mep.registration import remote

    config = load(directory).config
    with exit_codes():
        if (endpoint_id := registered.endpoint_id(directory)) is None:
            raise Failed(os.EX_DATAERR, f"endpoint {directory.name} has never been registered: start it first")
        with login_app_of(config) as app:
            if not remote.cut_off(config, app, endpoint_id):
                raise Failed(os.EX_DATAERR, f"the service does not know endpoint {endpoint_id}, or not any more")
    print(f"The service has cut off all instances of endpoint {endpoint_id}.")


def list_(as_json: Json = False) -> None:
    """List the profiles: name, whether a manager runs, endpoint id, user endpoints."""
    from mep.cli import unmanaged
    from mep.monitor import run_lock

    rows, untrusted = list[dict[str, object]](), list[str]()
    for path in profiles():
        state, count = "?", None
        try:
            run_directory = trusted_run_directory(path.name)
            state, count = _state(run_directory), unmanaged.count(run_directory)
        except (PermissionError, run_lock.NoPlace):
            pass
        except Failed as e:
            untrusted.append(str(e))
        rows.append({"profile": path.name, "manager": state, "endpoint": _shown_id(path), "user_endpoints": count})
    if as_json:
        print(json.dumps(rows, indent=2))
    elif not rows:
        print(f"No profiles in {paths().config}; make one with `mep configure NAME`.")
    else:
        print(f"{'PROFILE':<32} {'MANAGER':<8} {'ENDPOINT ID':<36} USER ENDPOINTS")
        for row in rows:
            running = "?" if row["user_endpoints"] is None else row["user_endpoints"]
            print(f"{row['profile']:<32} {row['manager']:<8} {row['endpoint']:<36} {running}")
    if untrusted:
        raise Failed(os.EX_CONFIG, "\n".join(dict.fromkeys(untrusted)))


def _state(run_directory: Path) -> str:
    """How the manager is, in a word. Raises PermissionError, NoPlace."""
    from mep.cli import asking
    from mep.monitor import last_run, run_lock

    if run_lock.holder(run_directory) is None:
        return "failed" if last_run.ended_badly(run_directory) else "stopped"
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
