"""The command line of the manager: `mep COMMAND`. Thin: each command calls the functions that the daemon calls.

Every error that a person can mend ends in one text on standard error and an exit code of <sysexits.h>:
78 a profile is wrong, 77 not allowed, 75 try again later, 69 not available, 64 wrong usage. 1: `map` or `render` answer
that the manager would refuse.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mep import __version__
from mep.cli import inspect as questions
from mep.cli.common import Failed, Name, here, load, need_root, orderly, profile_directory, settle

if TYPE_CHECKING:
    import globus_sdk

    from mep.profile.profile import Profile
    from mep.registration.registration import Registration

app = typer.Typer(
    help="Multi-user endpoint manager for Globus Compute.", no_args_is_help=True, pretty_exceptions_enable=False
)

ConfigDir = Annotated[Path | None, typer.Option("--config-dir", "-c", help="Folder that holds the profiles.")]
Debug = Annotated[bool, typer.Option("--debug", help="Log details that mostly developers need.")]
Console = Annotated[bool, typer.Option("--log-to-console", help="Also log to standard error when detached from it.")]

_USAGE_OF_TYPER = 2


def main() -> None:
    """The program `mep`."""
    try:
        app(standalone_mode=True)
    except Failed as e:
        print(f"mep: {e}", file=sys.stderr)
        sys.exit(e.exit_code)
    except SystemExit as e:
        sys.exit(os.EX_USAGE if e.code == _USAGE_OF_TYPER else e.code)


@app.callback()
def common(config_dir: ConfigDir = None) -> None:
    from mep.reader import environment

    settle(config_dir)
    orderly(lambda: environment.load(here().config / "environment"))
    settle(config_dir)  # the file may name places


for _ask in (questions.status, questions.check, questions.map_, questions.explain, questions.render):
    app.command(_ask.__name__.rstrip("_"))(_ask)


@app.command()
def version() -> None:
    """Show the version."""
    print(f"mep {__version__}")


@app.command("configure")
def configure_(
    name: Name,
    display_name: Annotated[str | None, typer.Option(help="A name for people, shown by the service.")] = None,
    contact_email: Annotated[str | None, typer.Option(help="Whom to write to about this endpoint.")] = None,
    multi_user: Annotated[bool, typer.Option(help="Accepted for compatibility; there is no other kind.")] = True,
    endpoint_config: Annotated[
        Path | None, typer.Option("--endpoint-config", "--core-config", help="Use this file as config.yaml.")
    ] = None,
    template_config: Annotated[Path | None, typer.Option(help="Use this file as the template.")] = None,
    schema_config: Annotated[Path | None, typer.Option(help="Use this file as the schema.")] = None,
    user_env_config: Annotated[Path | None, typer.Option(help="Use this file as user_environment.yaml.")] = None,
    id_mapping_config: Annotated[Path | None, typer.Option(help="Use this file as identity mapping.")] = None,
) -> None:
    """Make a profile: a folder of commented files. Nothing that exists is overwritten."""
    from mep.cli import configure
    from mep.profile import profile

    if not multi_user:
        raise Failed(os.EX_USAGE, "only multi-user endpoints exist here; leave --no-multi-user out")
    directory = profile_directory(name)
    given = {
        profile.CONFIG: endpoint_config,
        profile.TEMPLATE: template_config,
        profile.SCHEMA: schema_config,
        profile.ENVIRONMENT: user_env_config,
        profile.MAPPING: id_mapping_config,
    }
    try:
        configure.make(directory, given, display_name, contact_email)
    except configure.NotMade as e:
        raise Failed(e.exit_code, str(e)) from None
    print(f"Made the profile of endpoint {name}: {directory}\n")
    for file, use in configure.USES.items():
        print(f"  {file:<38} {use}")
    print(f"\nEdit the identity mapping, look at it with `mep check {name}`, then start it:\n\n  mep start {name}")


@app.command()
def start(
    name: Name,
    debug: Debug = False,
    log_to_console: Console = False,
    detach: Annotated[bool, typer.Option("--detach", help="Go into the background once registered.")] = False,
) -> None:
    """Start the manager of an endpoint. Runs in the foreground unless --detach."""
    from mep.cli import daemon, logs
    from mep.monitor.audit import AuditError
    from mep.privileged import kernel, session
    from mep.processes.helper import HelperUnavailable
    from mep.reader import outside
    from wire.amqp import BrokerError

    directory = profile_directory(name)
    need_root("the manager becomes the users that it starts endpoints for")
    os.umask(0o077)
    kernel.set_dumpable(False)  # it will hold everybody's passwords: no core file, whatever the limits say
    profile = load(directory)
    debug = debug or profile.config.debug
    logs.send_to([logging.StreamHandler()], debug)
    orderly(lambda: outside.check(profile))
    orderly(lambda: session.load() if profile.config.pam.enable else None)
    run_directory = here().run / name
    with _running_once(run_directory, name):
        registered = orderly(lambda: _register(profile))
        print(f"Endpoint {name} is registered: {registered.endpoint_id}", flush=True)
        handlers = [logs.file(here().log_file(directory))]
        if log_to_console or not detach:
            handlers.append(logging.StreamHandler())
        if detach:
            _detach(run_directory, handlers)
        logs.send_to(handlers, debug)
        try:
            daemon.run(profile, registered, run_directory)
        except BrokerError as e:
            raise Failed(os.EX_TEMPFAIL, f"the broker that the service names: {e}") from None
        except HelperUnavailable as e:
            raise Failed(e.exit_code, str(e)) from None
        except AuditError as e:
            raise Failed(os.EX_CONFIG, str(e)) from None
        except OSError as e:
            raise Failed(os.EX_OSERR, str(e)) from None


@app.command()
def stop(
    name: Name,
    user_endpoints: Annotated[
        bool, typer.Option("--user-endpoints", help="End user endpoints whatever `on_stop` says.")
    ] = False,
) -> None:
    """Stop the running manager of an endpoint and wait; its user endpoints end, unless `on_stop: keep`."""
    from mep.cli import unmanaged as orphans
    from mep.monitor import run_lock as runlock
    from mep.monitor.containment.systemd import ContainmentError

    directory = profile_directory(name)
    run_directory = here().run / name
    ended = 0
    try:
        stopped = runlock.stop(run_directory)
        if orphans.count(run_directory) and (user_endpoints or not (stopped or _keeps(directory))):
            with _running_once(run_directory, name):
                ended = orphans.end(run_directory)
    except PermissionError:
        raise Failed(os.EX_NOPERM, "must be root to stop a manager") from None
    except runlock.NoPlace as e:
        raise Failed(os.EX_CONFIG, str(e)) from None
    except ContainmentError as e:
        raise Failed(os.EX_TEMPFAIL, f"not everything has ended: {e}") from None
    except TimeoutError as e:
        raise Failed(os.EX_TEMPFAIL, f"{e}; see {here().log_file(directory)}") from None
    print(f"Endpoint {name} stopped." if stopped else f"Endpoint {name} is not running.")
    if ended:
        print(f"Ended {ended} user endpoints that no manager looked after.")
    if kept := orphans.count(run_directory):
        print(f"{kept} user endpoints go on; the next manager adopts them.")


@app.command("list")
def list_() -> None:
    """List the profiles: name, whether a manager runs, endpoint id, user endpoints."""
    from mep.cli import unmanaged as orphans
    from mep.monitor import run_lock as runlock
    from mep.registration import registration

    root = here().config
    profiles = sorted(path.parent for path in root.glob("*/config.yaml")) if root.is_dir() else []
    if not profiles:
        print(f"No profiles in {root}; make one with `mep configure NAME`.")
    else:
        print(f"{'PROFILE':<32} {'MANAGER':<8} {'ENDPOINT ID':<36} USER ENDPOINTS")
    for path in profiles:
        try:
            state = "running" if runlock.holder(here().run / path.name) else "stopped"
            count = str(orphans.count(here().run / path.name))
        except (PermissionError, runlock.NoPlace):
            state = count = "?"
        print(f"{path.name:<32} {state:<8} {registration.shown_id(path):<36} {count}")


@app.command()
def login(force: Annotated[bool, typer.Option("--force", help="Log in again even if logged in.")] = False) -> None:
    """Log in with Globus, for registering endpoints without client credentials."""
    app_ = _login_app()
    if not force and not app_.login_required():
        print("Already logged in; --force logs in again.")
        return
    app_.login(force=force)


@app.command()
def logout() -> None:
    """Forget and revoke the stored login."""
    _login_app().logout()
    print("Logged out.")


@app.command()
def whoami() -> None:
    """Show the Globus identity of the stored login."""
    import globus_sdk

    app_ = _login_app()
    if app_.login_required():
        raise Failed(os.EX_NOPERM, "not logged in; run `mep login`")
    try:
        user = globus_sdk.AuthClient(app=app_).userinfo()
    except globus_sdk.GlobusError as e:
        raise Failed(os.EX_TEMPFAIL, f"the login cannot be used: {e}; try `mep login --force`") from None
    print(f"{user['preferred_username']}  {user['sub']}")


def _register(profile: Profile) -> Registration:
    from mep.registration import registration

    with registration.login_app(here().state, profile.config) as app:
        return registration.register(profile, app)


def _keeps(directory: Path) -> bool:
    """Whether user endpoints are to outlive a stop; not when the profile cannot be read any more."""
    from mep.profile.errors import ConfigError
    from mep.reader import loader

    try:
        return loader.load(directory).config.on_stop == "keep"
    except ConfigError:
        return False


def _login_app() -> globus_sdk.GlobusApp:
    from mep.profile.config import ManagerConfig
    from mep.registration import registration

    return orderly(lambda: registration.login_app(here().state, ManagerConfig()))


@contextmanager
def _running_once(run_directory: Path, name: str) -> Iterator[None]:
    from mep.monitor import run_lock as runlock

    try:
        with runlock.hold(run_directory):
            yield
    except runlock.AlreadyRunning as e:
        raise Failed(os.EX_TEMPFAIL, f"endpoint {name} is running already (pid {e.pid}); stop it first") from None
    except runlock.NoPlace as e:
        raise Failed(os.EX_CANTCREAT, str(e)) from None


def _detach(run_directory: Path, handlers: list[logging.Handler]) -> None:
    import daemon  # the package python-daemon

    from mep.monitor import run_lock as runlock

    gc.collect()  # what is garbage closes its descriptors now, not when their numbers belong to somebody else
    kept = [handler.stream for handler in handlers if isinstance(handler, logging.StreamHandler)]
    daemon.DaemonContext(detach_process=True, umask=0o077, files_preserve=[*kept, *runlock.descriptors()]).open()
    runlock.moved(run_directory)
