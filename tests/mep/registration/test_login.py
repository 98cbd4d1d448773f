"""With which login the service is spoken to: client credentials, or what `mep login` has stored."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import globus_sdk
import pytest

from mep.profile.client_credentials import ClientCredentials
from mep.profile.config import ManagerConfig
from mep.registration.errors import RegistrationError, unreachable
from mep.registration.login import PUBLIC_CLIENT_ID, check_login, login_app, service_url

CREDENTIALS = ClientCredentials("feef5f81-edd9-5023-9ac5-7510955c05a6", "hunter2")


def test_client_credentials_leave_nothing_on_disk(tmp_path: Path) -> None:
    with login_app(tmp_path / "state", ManagerConfig(), CREDENTIALS) as app:
        assert isinstance(app, globus_sdk.ClientApp)
        assert app.client_id == CREDENTIALS.client_id
        check_login(app)
    assert not (tmp_path / "state").exists()


def test_without_credentials_somebody_has_to_log_in(tmp_path: Path) -> None:
    with login_app(tmp_path / "state", ManagerConfig(), None) as app:
        assert isinstance(app, globus_sdk.UserApp)
        assert app.client_id == PUBLIC_CLIENT_ID
        with pytest.raises(RegistrationError, match="mep login") as caught:
            check_login(app)
    assert caught.value.exit_code == os.EX_NOPERM
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    assert (tmp_path / "state" / "storage.db").exists()


def test_a_stored_login_that_is_broken(tmp_path: Path) -> None:
    (tmp_path / "storage.db").write_text("no database, and long enough to be told from an empty one" * 20)
    with pytest.raises(RegistrationError, match=f"{tmp_path}/storage.db cannot be used: .*; delete it") as caught:
        login_app(tmp_path, ManagerConfig(), None)
    assert caught.value.exit_code == os.EX_CONFIG


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(RegistrationError, match="cannot be used"):
        login_app(tmp_path / "state", ManagerConfig(), None)


@pytest.mark.parametrize(
    ("variable", "config", "url"),
    [
        (None, ManagerConfig(), None),
        (None, ManagerConfig(local_compute_services=True), "http://localhost:5000"),
        (None, ManagerConfig(environment="local"), "http://localhost:5000"),
        ("local", ManagerConfig(), "http://localhost:5000"),
        ("local", ManagerConfig(environment="preview"), None),
    ],
)
def test_where_the_service_is(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, config: ManagerConfig, url: str | None
) -> None:
    monkeypatch.delenv("GLOBUS_SDK_ENVIRONMENT", raising=False)
    if variable is not None:
        monkeypatch.setenv("GLOBUS_SDK_ENVIRONMENT", variable)
    assert service_url(config) == url


def test_no_answer_can_be_tried_again() -> None:
    error = unreachable(globus_sdk.NetworkError("refused", ConnectionRefusedError("refused")))
    assert error.exit_code == os.EX_TEMPFAIL
    assert "may this host reach it?" in str(error)
