"""The commands about what runs: `mep start`, `reload`, `stop`, `list`."""

from __future__ import annotations

import functools
import gc
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mep.cli.common import Failed, Name, exit_codes, need_profile, need_root, paths, profile_directory

if TYPE_CHECKING:
    from mep.profile.client_credentials import ClientCredentials
    from mep.profile.profile import Profile
    from mep.registration.registration import Registration

_SHORT = 2.0
"""Seconds that `mep list` waits for each manager's answer."""


def _remembered(start: Callable[..., None]) -> Callable[..., None]:
    """The command, of whose end `mep status` knows; not when another manager runs, whose end that is not."""

    def note(name: str, write: Callable[[Path], None]) -> None:
        from mep.monitor import run_lock

        run_directory = paths().run / name
        if os.geteuid() == 0 and (paths().config / name).is_dir() and run_lock.holder(run_directory) is None:
            write(run_directory)

    @functools.wraps(start)
    def remembered(*, name: str, **options: object) -> None:
        from mep.monitor import last_run

        try:
            start(name=name, **options)
        except Failed as e:
            reason = str(e)
            note(profile_directory(name).name, lambda folder: last_run.failed(folder, reason))
            raise
        except Exception as e:
            reason = f"{type(e).__name__}: {e}; the log has more"
            note(name, lambda folder: last_run.failed(folder, reason))
            raise
        note(name, last_run.stopped)

    return remembered


@_remembered
def start(
    name: Name,
    debug: Annotated[bool, typer.Option("--debug", help="Log details that mostly developers need.")] = False,
    log_to_console: Annotated[
        bool, typer.Option("--log-to-console", help="Also log to standard error when detached from it.")
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Go into the background once registered.")] = False,
) -> None:
    """Start the manager of an endpoint. Runs in the foreground unless --detach."""
    from mep.cli import composition, logs
    from mep.privileged import kernel
    from mep.reader import client_credentials

    directory = profile_directory(name)
    need_root("the manager becomes the users that it starts endpoints for")
    os.umask(0o077)
    kernel.set_dumpable(False)  # it will hold everybody's passwords: no core file, whatever the limits say
    logs.send_to([logging.StreamHandler()], debug)
    with exit_codes(), _exit_codes_of_the_manager():
        chosen = composition.choose(directory, paths().state)
    profile = chosen.profile
    debug, form = debug or profile.config.debug, profile.config.log_format
    logs.send_to([logging.StreamHandler()], debug, form)
    run_directory = paths().run / name
    with _running_once(run_directory, name):
        with exit_codes():
            credentials = client_credentials.find(profile.config.client_credentials_path)
            register = functools.partial(_register, profile, credentials)
            registration = register()
        if form == "text":  # else what reads the log would meet a line that is no JSON
            print(f"Endpoint {name} is registered: {registration.endpoint_id}", flush=True)
        handlers = [logs.file(paths().log_file(directory))]
        if log_to_console or not detach:
            handlers.append(logging.StreamHandler())
        if detach:
            _detach(run_directory, handlers)
        logs.send_to(handlers, debug, form)
        with _exit_codes_of_the_manager():
            folders = composition.Folders(run_directory, paths().kept(name), paths().state)
            composition.run(chosen, register, registration, folders)


def reload(name: Name) -> None:
    """Have the running manager read its edited profile; says, also by its exit code, whether that is in force now."""
    from mep.monitor import reload_answer, run_lock

    run_directory = paths().run / name
    profile_directory(name)
    try:
        pid = run_lock.holder(run_directory)
        if not pid:
            raise Failed(os.EX_UNAVAILABLE, f"endpoint {name} is not running")
        answer = reload_answer.ask(run_directory, pid)
    except PermissionError:
        raise Failed(os.EX_NOPERM, "must be root to reload a manager") from None
    except run_lock.NoPlace as e:
        raise Failed(os.EX_CONFIG, str(e)) from None
    except reload_answer.NoAnswer as e:
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

    directory = profile_directory(name)
    run_directory = paths().run / name
    ended = 0
    try:
        if run_lock.holder(run_directory) is None and not unmanaged.count(run_directory):
            need_profile(directory)
        stopped = run_lock.stop(run_directory)
        if unmanaged.count(run_directory) and (user_endpoints or not (stopped or _keeps(directory))):
            with _running_once(run_directory, name):
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
    for path in profiles:
        try:
            state = _state(paths().run / path.name)
            count = str(unmanaged.count(paths().run / path.name))
        except (PermissionError, run_lock.NoPlace):
            state = count = "?"
        print(f"{path.name:<32} {state:<8} {_shown_id(path):<36} {count}")


def _state(run_directory: Path) -> str:
    """How the manager is, in a word. Raises PermissionError, NoPlace."""
    from mep.monitor import last_run, run_lock, status_socket

    if run_lock.holder(run_directory) is None:
        return "failed" if last_run.describe(run_directory).startswith("It failed") else "stopped"
    try:
        return "running" if status_socket.ask(run_directory, _SHORT) is not None else "starting"
    except status_socket.NoAnswer:
        return "hangs"


def _register(profile: Profile, found: ClientCredentials | None) -> Registration:
    """Registers the endpoint, under the id that it has had before, and remembers the id.

    found: the client credentials, which are read again when they are in a file. Raises ConfigError, RegistrationError.
    """
    from mep.reader import client_credentials, registered
    from mep.registration.login import login_app
    from mep.registration.registration import register

    path = profile.config.client_credentials_path
    credentials = found if path is None else client_credentials.find(path)
    known = registered.endpoint_id(profile.directory)
    with login_app(paths().state, profile.config, credentials) as app:
        registration = register(profile, app, known)
    registered.remember(profile.directory, registration.endpoint_id, registration.broker)
    commands = registration.as_told
    registered.remember_connection(paths().run / profile.name, commands.connection_url, commands.queue)
    return registration


@contextmanager
def _exit_codes_of_the_manager() -> Iterator[None]:
    """Raises Failed in place of what ends a manager that has started."""
    from mep.monitor.audit_file import AuditError
    from mep.processes.helper import HelperUnavailable
    from mep.request.unwanted import EndpointUnwanted
    from wire.errors import BrokerError

    try:
        yield
    except BrokerError as e:
        raise Failed(os.EX_TEMPFAIL, f"the broker that the service names: {e}") from None
    except (HelperUnavailable, EndpointUnwanted) as e:
        raise Failed(e.exit_code, str(e)) from None
    except AuditError as e:
        raise Failed(os.EX_CONFIG, str(e)) from None
    except OSError as e:
        raise Failed(os.EX_OSERR, str(e)) from None


@contextmanager
def _running_once(run_directory: Path, name: str) -> Iterator[None]:
    from mep.monitor import run_lock

    try:
        with run_lock.hold(run_directory):
            yield
    except run_lock.AlreadyRunning as e:
        raise Failed(os.EX_TEMPFAIL, f"endpoint {name} is running already (pid {e.pid}); stop it first") from None
    except run_lock.NoPlace as e:
        raise Failed(os.EX_CANTCREAT, str(e)) from None


def _detach(run_directory: Path, handlers: list[logging.Handler]) -> None:
    import daemon  # the package python-daemon

    from mep.monitor import run_lock

    gc.collect()  # what is garbage closes its descriptors now, not when their numbers belong to somebody else
    kept = [handler.stream for handler in handlers if isinstance(handler, logging.StreamHandler)]
    daemon.DaemonContext(detach_process=True, umask=0o077, files_preserve=[*kept, *run_lock.descriptors()]).open()
    run_lock.moved()


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
