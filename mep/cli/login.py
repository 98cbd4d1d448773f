"""The commands about the stored login, with which endpoints are registered: `mep login`, `logout`, `whoami`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from mep.cli.common import login_app_of, profiles, trusted_run_directory
from mep.daemon.failed import Failed, exit_codes

if TYPE_CHECKING:
    import globus_sdk

    from mep.profile.config import ManagerConfig


def login(force: Annotated[bool, typer.Option("--force", help="Log in again even if logged in.")] = False) -> None:
    """Log in with Globus, for registering endpoints without client credentials."""
    from mep.registration.errors import told
    from mep.registration.login import is_good

    app, config = _login_app(with_linked=True)
    with exit_codes():
        if not force and is_good(app, config):
            print("Already logged in; --force logs in again.")
            return
        with told("run `mep login` once more"):
            app.login(force=True)


def logout(
    force: Annotated[bool, typer.Option("--force", help="Even while managers run.")] = False,
) -> None:
    """Forget and revoke the stored login; not while managers run, unless --force."""
    from mep.registration.errors import told
    from mep.registration.login import remedy

    if not force and (running := _running()):
        names = ", ".join(running)
        remedies = "stop them first, or say --force: they go on until they have to register again"
        raise Failed(os.EX_TEMPFAIL, f"endpoints are running: {names}; {remedies}")
    app, config = _login_app()
    with exit_codes(), told(remedy(app, config)):
        app.logout()
    print("Logged out.")


def whoami(
    linked_identities: Annotated[
        bool, typer.Option("--linked-identities", help="Also the identities that are linked to it.")
    ] = False,
) -> None:
    """Show the Globus identity of the stored login."""
    import globus_sdk

    from mep.registration.errors import told
    from mep.registration.login import check_login, remedy

    app, config = _login_app(with_linked=linked_identities)
    with exit_codes():
        check_login(app, config)
        with told(remedy(app, config), what="to say who that is"):
            user = globus_sdk.AuthClient(app=app).userinfo()
    linked = user.get("identity_set", []) if linked_identities else []
    others = [(each.get("username"), each["sub"]) for each in linked if each["sub"] != user["sub"]]
    for username, identity in [(user["preferred_username"], user["sub"]), *others]:
        print(f"{username}  {identity}")


def _running() -> list[str]:
    """Names of the profiles that have a manager now, as far as one may know. Raises Failed."""
    from mep.monitor import run_lock

    names = []
    for path in profiles():
        try:
            if run_lock.holder(trusted_run_directory(path.name)) is not None:
                names.append(path.name)
        except (PermissionError, run_lock.NoPlace):
            continue
    return names


def _login_app(*, with_linked: bool = False) -> tuple[globus_sdk.GlobusApp, ManagerConfig]:
    """That of no profile in particular. with_linked: it is to show linked identities, too."""
    from mep.profile.config import ManagerConfig
    from mep.registration.login import ask_for_linked

    config = ManagerConfig()
    app = login_app_of(config)
    if with_linked:
        ask_for_linked(app)
    return app, config
