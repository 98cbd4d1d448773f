"""The command line of the manager: `mep COMMAND`. Thin: each command calls the functions that the daemon calls.

Every error that a person can mend ends in one text on standard error and an exit code of <sysexits.h>:
78 a profile is wrong, 77 not allowed, 75 try again later, 69 not available, 64 wrong usage.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from mep import __version__
from wire.redaction import Redactor

if TYPE_CHECKING:
    import globus_sdk

    from mep.profile import Profile

app = typer.Typer(
    help="Multi-user endpoint manager for Globus Compute.", no_args_is_help=True, pretty_exceptions_enable=False
)
T = TypeVar("T")

ConfigDir = Annotated[Path | None, typer.Option("--config-dir", "-c", help="Folder that holds the profiles.")]
Name = Annotated[str, typer.Argument(help="The endpoint's name: a folder in the configuration folder.")]
Debug = Annotated[bool, typer.Option("--debug", help="Log details that mostly developers need.")]
Console = Annotated[bool, typer.Option("--log-to-console", help="Also log to standard error when detached from it.")]

_config_dir: Path | None = None


class _Failed(Exception):
    """Ends a command: a text for standard error, and the exit code."""

    def __init__(self, exit_code: int, text: str) -> None:
        super().__init__(text)
        self.exit_code = exit_code


def main() -> None:
    """The program `mep`."""
    try:
        app(standalone_mode=True)
    except _Failed as e:
        print(f"mep: {e}", file=sys.stderr)
        sys.exit(e.exit_code)


@app.callback()
def common(config_dir: ConfigDir = None) -> None:
    global _config_dir  # the one option that stands before the command
    _config_dir = config_dir


def config_root() -> Path:
    """Where profiles live: --config-dir, MEP_CONFIG_DIR, /etc/mep for root, ~/.globus_compute for others."""
    if _config_dir is not None:
        return _config_dir.absolute()
    if variable := os.environ.get("MEP_CONFIG_DIR"):
        return Path(variable).absolute()
    return Path("/etc/mep") if os.geteuid() == 0 else Path.home() / ".globus_compute"


def run_root() -> Path:
    """Where the state of running managers lives: MEP_RUN_DIR, else /run/mep."""
    return Path(os.environ.get("MEP_RUN_DIR", "/run/mep"))


@app.command()
def version() -> None:
    """Show the version."""
    print(f"mep {__version__}")


@app.command()
def configure(
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
    from mep import profile

    if not multi_user:
        raise _Failed(os.EX_USAGE, "only multi-user endpoints exist here; leave --no-multi-user out")
    directory = _profile_directory(name)
    given = {
        profile.CONFIG: endpoint_config,
        profile.TEMPLATE: template_config,
        profile.SCHEMA: schema_config,
        profile.ENVIRONMENT: user_env_config,
        profile.MAPPING: id_mapping_config,
    }
    texts = {file: _template_text(file) if path is None else _given_text(path) for file, path in given.items()}
    if endpoint_config is None:
        texts[profile.CONFIG] = _fill_in(
            texts[profile.CONFIG], directory / profile.MAPPING, display_name, contact_email
        )
    _write_profile(directory, texts)
    print(f"Made the profile of endpoint {name}: {directory}\n")
    for file, use in _USES.items():
        print(f"  {file:<38} {use}")
    print(f"\nEdit the identity mapping, then start it:\n\n  mep start {name}")


_USES = {
    "config.yaml": "the manager's configuration",
    "example_identity_mapping_config.json": "who becomes which local account; edit this first",
    "user_config_template.yaml.j2": "template of the user endpoints' configuration",
    "user_config_schema.json": "what users may pass into the template",
    "user_environment.yaml": "environment of the user endpoints",
}


@app.command()
def start(
    name: Name,
    debug: Debug = False,
    log_to_console: Console = False,
    detach: Annotated[bool, typer.Option("--detach", help="Go into the background once registered.")] = False,
) -> None:
    """Start the manager of an endpoint. Runs in the foreground unless --detach."""
    from mep import manager, registration
    from mep.renderer import RendererUnavailable
    from wire.amqp import BrokerError

    directory = _profile_directory(name)
    if os.geteuid() != 0:
        raise _Failed(os.EX_NOPERM, "must be root: the manager becomes the users that it starts endpoints for")
    os.umask(0o077)
    site = _load(directory)
    debug = debug or site.config.debug
    _log_to([logging.StreamHandler()], debug)
    _check_reach(Path(sys.executable), Path(site.config.uep_command[0]))
    run_directory = run_root() / name
    with _running_once(run_directory, name):
        registered = _orderly(lambda: registration.register(site, registration.login_app(config_root(), site.config)))
        print(f"Endpoint {name} is registered: {registered.endpoint_id}", flush=True)
        handlers: list[logging.Handler] = [logging.FileHandler(directory / "endpoint.log", encoding="utf-8")]
        if log_to_console or not detach:
            handlers.append(logging.StreamHandler())
        if detach:
            _detach(run_directory, handlers)
        _log_to(handlers, debug)
        try:
            manager.run(site, registered, run_directory)
        except BrokerError as e:
            raise _Failed(os.EX_TEMPFAIL, f"the broker that the service names: {e}") from None
        except (RendererUnavailable, OSError) as e:
            raise _Failed(os.EX_CONFIG, str(e)) from None


@app.command()
def stop(name: Name) -> None:
    """Stop the running manager of an endpoint, and its user endpoints with it; waits until it has stopped."""
    from mep import runlock

    directory = _profile_directory(name)
    try:
        stopped = runlock.stop(run_root() / name)
    except PermissionError:
        raise _Failed(os.EX_NOPERM, "must be root to stop a manager") from None
    except TimeoutError as e:
        raise _Failed(os.EX_TEMPFAIL, f"{e}; see {directory / 'endpoint.log'}") from None
    print(f"Endpoint {name} stopped." if stopped else f"Endpoint {name} is not running.")


@app.command("list")
def list_() -> None:
    """List the profiles: name, whether a manager runs, endpoint id."""
    from mep import registration, runlock

    root = config_root()
    profiles = sorted(path.parent for path in root.glob("*/config.yaml")) if root.is_dir() else []
    if not profiles:
        print(f"No profiles in {root}; make one with `mep configure NAME`.")
    for path in profiles:
        state = "running" if runlock.holder(run_root() / path.name) else "stopped"
        print(f"{path.name:<32} {state:<8} {registration.shown_id(path)}")


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
        raise _Failed(os.EX_NOPERM, "not logged in; run `mep login`")
    try:
        user = globus_sdk.AuthClient(app=app_).userinfo()
    except globus_sdk.GlobusError as e:
        raise _Failed(os.EX_TEMPFAIL, f"the login cannot be used: {e}; try `mep login --force`") from None
    print(f"{user['preferred_username']}  {user['sub']}")


def _profile_directory(name: str) -> Path:
    from mep import profile

    try:
        profile.check_name(name)
    except ValueError as e:
        raise _Failed(os.EX_USAGE, str(e)) from None
    return config_root() / name


def _load(directory: Path) -> Profile:
    from mep import profile

    return _orderly(lambda: profile.load(directory))


def _orderly(action: Callable[[], T]) -> T:
    """Runs `action`; an error that the admin can mend becomes its text and its exit code."""
    from mep.config import ConfigError
    from mep.registration import RegistrationError

    try:
        return action()
    except ConfigError as e:
        raise _Failed(os.EX_CONFIG, str(e)) from None
    except RegistrationError as e:
        raise _Failed(e.exit_code, str(e)) from None


def _login_app() -> globus_sdk.GlobusApp:
    from mep import registration
    from mep.config import ManagerConfig

    return _orderly(lambda: registration.login_app(config_root(), ManagerConfig()))


def _check_reach(*programs: Path) -> None:
    from mep import reach

    for program in programs:
        if obstacle := reach.obstacle(program):
            raise _Failed(os.EX_CONFIG, f"{obstacle}; user endpoints run as ordinary users")


@contextmanager
def _running_once(run_directory: Path, name: str) -> Iterator[None]:
    from mep import runlock

    try:
        with runlock.hold(run_directory):
            yield
    except runlock.AlreadyRunning as e:
        raise _Failed(os.EX_TEMPFAIL, f"endpoint {name} is running already (pid {e.pid}); stop it first") from None


def _detach(run_directory: Path, handlers: list[logging.Handler]) -> None:
    import daemon

    from mep import runlock

    kept = [handler.stream for handler in handlers if isinstance(handler, logging.StreamHandler)]
    daemon.DaemonContext(detach_process=True, umask=0o077, files_preserve=[*kept, *runlock.descriptors()]).open()
    runlock.moved(run_directory)


def _log_to(handlers: list[logging.Handler], debug: bool) -> None:
    form = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    for handler in handlers:
        handler.setFormatter(form)
        handler.addFilter(Redactor())
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, handlers=handlers, force=True)
    logging.getLogger("asyncio").setLevel(logging.INFO)


def _template_text(file: str) -> str:
    return resources.files("mep.templates").joinpath("default").joinpath(file).read_text(encoding="utf-8")


def _given_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as e:
        raise _Failed(os.EX_NOINPUT, f"{path}: cannot be read: {e.strerror}") from None


def _fill_in(text: str, mapping: Path, display_name: str | None, email: str | None) -> str:
    """config.yaml with what `configure` was told; JSON strings are YAML."""
    import json

    values = {"@MAPPING@": str(mapping), "@DISPLAY_NAME@": display_name, "@EMAIL@": email}
    for mark, value in values.items():
        text = text.replace(mark, json.dumps(value))
    return text


def _write_profile(directory: Path, texts: dict[str, str]) -> None:
    """All files or none: they are written into a new folder, which then gets its name."""
    if directory.exists():
        raise _Failed(os.EX_CANTCREAT, f"{directory} exists already; nothing was changed")
    building = directory.with_name(f".{directory.name}.new-{os.getpid()}")
    try:
        building.mkdir(mode=0o755, parents=True)
        for file, text in texts.items():
            (building / file).write_text(text, encoding="utf-8")
            (building / file).chmod(0o644)
        building.rename(directory)
    except OSError as e:
        import shutil

        shutil.rmtree(building, ignore_errors=True)
        raise _Failed(os.EX_CANTCREAT, f"{directory}: cannot be made: {e.strerror}") from None
