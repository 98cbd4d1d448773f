"""A login as `mep login`, or the public package's, leaves it in `storage.db`."""

from __future__ import annotations

from pathlib import Path

from globus_sdk.token_storage import TokenStorageData

from mep.profile.config import ManagerConfig
from mep.registration.login import login_app
from tests.mep.service import SCOPES


def store_login(folder: Path, expires: float, scope: str | None = None) -> None:
    """What `mep login` leaves."""
    with login_app(folder, ManagerConfig(), None) as app:
        for wanted, server in SCOPES.items():
            data = TokenStorageData(
                resource_server=server,
                identity_id=None,
                scope=scope or wanted,
                access_token="old",
                refresh_token="refresh",
                expires_at_seconds=int(expires),
                token_type="Bearer",
            )
            app.token_storage.token_storage.store_token_data_by_resource_server({server: data})
