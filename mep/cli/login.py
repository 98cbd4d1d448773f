"""The commands about the stored login, with which endpoints are registered: `mep login`, `logout`, `whoami`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from mep.cli.common import Failed, exit_codes, paths

if TYPE_CHECKING:
    import globus_sdk


def login(force: Annotated[bool, typer.Option("--force", help="Log in again even if logged in.")] = False) -> None:
    """Log in with Globus, for registering endpoints without client credentials."""
    app = _login_app()
    if not force and not app.login_required():
        print("Already logged in; --force logs in again.")
        return
    app.login(force=force)


def logout() -> None:
    """Forget and revoke the stored login."""
    _login_app().logout()
    print("Logged out.")


def whoami() -> None:
    """Show the Globus identity of the stored login."""
    import globus_sdk

    app = _login_app()
    if app.login_required():
        raise Failed(os.EX_NOPERM, "not logged in; run `mep login`")
    try:
        user = globus_sdk.AuthClient(app=app).userinfo()
    except globus_sdk.GlobusError as e:
        raise Failed(os.EX_TEMPFAIL, f"the login cannot be used: {e}; try `mep login --force`") from None
    print(f"{user['preferred_username']}  {user['sub']}")


def _login_app() -> globus_sdk.GlobusApp:
    """That of no profile in particular."""
    from mep.profile.config import ManagerConfig
    from mep.reader import client_credentials
    from mep.registration.login import login_app

    with exit_codes():
        return login_app(paths().state, ManagerConfig(), client_credentials.find(None))
