"""The command that deletes an endpoint, here and at the service: `mep delete`. `removal` removes what lies here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mep.cli.common import DEFAULT, GivenName, login_app_of, need_profile, paths, profile_directory
from mep.daemon.failed import Failed, exit_codes, is_id, profile_name
from mep.profile.profile import CONFIG, REGISTERED, TEMPLATE

if TYPE_CHECKING:
    from mep.profile.config import ManagerConfig


def delete(
    name: GivenName = DEFAULT,
    force: Annotated[
        bool,
        typer.Option("--force", help="Also a running one, which is stopped; also without the service."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete an endpoint: its profile, its registration at the service, and all that was kept of it. Asks before."""
    directory = _directory(name, force)
    if not yes:
        here = f", with {directory} and all in it" if directory is not None else " at the service"
        typer.confirm(f"Delete endpoint {name}{here}?", abort=True)
    from mep.cli import removal

    if directory is None:
        _delete_at_service(None, name, force)
        return
    endpoint_id, config = _known_of(directory, force)
    with removal.ready_to_remove(directory, force):
        if endpoint_id is not None:
            _delete_at_service(config, endpoint_id, force)
        removal.remove(directory)
    print(f"Deleted {directory}, and what was kept of it.")
    log = paths().log_file(directory)
    if log.parent.exists():
        print(f"Its logs stay: {log.parent}")


def _directory(name: str, force: bool) -> Path | None:
    """The profile's folder; None for an id that only the service may know. Raises Failed."""
    try:
        directory = profile_directory(profile_name(paths().config, name))
        need_profile(directory)
    except Failed:
        if not is_id(name):
            raise
        if not force:
            text = f"no profile in {paths().config} has this id; --force deletes endpoint {name} at the service only"
            raise Failed(os.EX_CONFIG, text) from None
        return None
    _need_own_folder(directory)
    return directory


def _need_own_folder(directory: Path) -> None:
    """Raises Failed: not all in the folder of profiles is one; and what a link leads to is not ours to remove."""
    if directory.is_symlink():
        text = f"{directory} is a link to {directory.readlink()}: move that here, or remove both by hand"
        raise Failed(os.EX_USAGE, f"{text}; nothing was deleted")
    if not any(os.path.lexists(directory / file) for file in (CONFIG, TEMPLATE, REGISTERED)):
        raise Failed(os.EX_CONFIG, f"{directory}: there is no profile in it; nothing was deleted")


def _known_of(directory: Path, force: bool) -> tuple[str | None, ManagerConfig | None]:
    """The endpoint's id, if it has one, and the configuration, which says with which login it is registered."""
    from mep.profile.errors import ConfigError
    from mep.reader import loader, registered

    try:
        return registered.endpoint_id(directory), loader.load(directory).config
    except ConfigError as e:
        if not force:
            raise Failed(os.EX_CONFIG, f"{e}\n--force deletes it nevertheless, with the login of `mep login`") from None
    try:
        return registered.endpoint_id(directory), None
    except ConfigError:
        return None, None


def _delete_at_service(config: ManagerConfig | None, endpoint_id: str, force: bool) -> None:
    """Raises Failed: it is online, or the service cannot or will not; with `force` that is said and no obstacle."""
    from mep.profile.config import ManagerConfig
    from mep.registration import remote

    config = config or ManagerConfig()
    online, known = None, False
    try:
        with exit_codes(), login_app_of(config) as app:
            online = remote.is_online(config, app, endpoint_id)
            if online is not None and (force or not online):
                known = remote.delete(config, app, endpoint_id)
    except Failed as e:
        if not force:
            raise Failed(e.exit_code, f"{e}\nNothing was deleted; --force deletes what is here.") from None
        print(f"Endpoint {endpoint_id} may stay known to the service: {e}")
        return
    if online and not force:
        text = "online at the service: an instance runs on another host, or has only just ended"
        raise Failed(os.EX_TEMPFAIL, f"endpoint {endpoint_id} is {text}; stop it first, or say --force")
    print(f"The service has forgotten endpoint {endpoint_id}." if known else f"The service knows no {endpoint_id}.")
