"""The commands about the stored login, with which endpoints are registered: `mep login`, `logout`, `whoami`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from mep.cli.common import paths
from mep.daemon.failed import Failed, exit_codes

if TYPE_CHECKING:
    import globus_sdk

    from mep.profile.config import ManagerConfig


def login(force: Annotated[bool, typer.Option("--force", help="Log in again even if logged in.")] = False) -> None:
    """Log in with Globus, for registering endpoints without client credentials."""
    from mep.registration.errors import RegistrationError, told
    from mep.registration.login import try_login

    app, config = _login_app()
    if not force:
        try:
            try_login(app, config)
        except RegistrationError as e:
            if e.exit_code != os.EX_NOPERM:
                raise Failed(e.exit_code, str(e)) from None
        else:
            print("Already logged in; --force logs in again.")
            return
    with exit_codes(), told("run `mep login` once more"):
        app.login(force=True)


def logout() -> None:
    """Forget and revoke the stored login."""
    from mep.registration.errors import told
    from mep.registration.login import remedy

    app, config = _login_app()
    with exit_codes(), told(remedy(app, config)):
        app.logout()
    print("Logged out.")


def whoami() -> None:
    """Show the Globus identity of the stored login."""
    import globus_sdk

    from mep.registration.errors import told
    from mep.registration.login import check_login, remedy

    app, config = _login_app()
    with exit_codes():
        check_login(app, config)
        with told(remedy(app, config)):
            user = globus_sdk.AuthClient(app=app).userinfo()
    print(f"{user['preferred_username']}  {user['sub']}")


def _login_app() -> tuple[globus_sdk.GlobusApp, ManagerConfig]:
    """That of no profile in particular."""
    from mep.profile import own_code, places
    from mep.profile.config import ManagerConfig
    from mep.profile.errors import ConfigErrors
    from mep.reader import client_credentials
    from mep.registration.login import login_app

    config = ManagerConfig()
    with exit_codes():
        places.check_state(paths())
        if problems := list(own_code.variable_problems(os.environ)):
            raise ConfigErrors(problems)
        return login_app(paths().state, config, client_credentials.find(None)), config
