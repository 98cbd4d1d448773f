"""With which login the service is spoken to: client credentials, or what `mep login` has stored."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import globus_sdk
import pytest

from lab.accounts import LocalAccount
from mep.profile.client_credentials import ClientCredentials
from mep.profile.config import ManagerConfig
from mep.registration.errors import RegistrationError, told
from mep.registration.login import PUBLIC_CLIENT_ID, check_login, login_app, remedy, service_url, try_login
from mep.registration.version import ask_version
from tests.mep.service import Service
from tests.mep.stored_login import store_login
from tests.strangers import Listener

CREDENTIALS = ClientCredentials("feef5f81-edd9-5023-9ac5-7510955c05a6", "hunter2")


def test_client_credentials_leave_nothing_on_disk(tmp_path: Path) -> None:
    with login_app(tmp_path / "state", ManagerConfig(), CREDENTIALS) as app:
        assert isinstance(app, globus_sdk.ClientApp)
        assert app.client_id == CREDENTIALS.client_id
        check_login(app, ManagerConfig())
    assert not (tmp_path / "state").exists()


def test_without_credentials_somebody_has_to_log_in(tmp_path: Path) -> None:
    with login_app(tmp_path / "state", ManagerConfig(), None) as app:
        assert isinstance(app, globus_sdk.UserApp)
        assert app.client_id == PUBLIC_CLIENT_ID
        with pytest.raises(RegistrationError, match="mep login") as caught:
            check_login(app, ManagerConfig())
    assert caught.value.exit_code == os.EX_NOPERM
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    assert (tmp_path / "state" / "storage.db").exists()


def test_a_stored_login_that_is_broken(tmp_path: Path) -> None:
    (tmp_path / "storage.db").write_text("no database, and long enough to be told from an empty one" * 20)
    with pytest.raises(RegistrationError, match=f"{tmp_path}/storage.db cannot be used: .*; delete it") as caught:
        login_app(tmp_path, ManagerConfig(), None)
    assert caught.value.exit_code == os.EX_CONFIG


@pytest.mark.parametrize(("address", "host"), [("127.0.0.1", "localhost"), ("::1", "[::1]")])
def test_a_stranger_on_the_port_of_the_service_is_told_no_secret(
    root: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, host: str
) -> None:
    with LocalAccount("meptest_service") as eve:
        listener = Listener(address, eve.uid)
        monkeypatch.setenv("GLOBUS_SDK_SERVICE_URL_AUTH", f"http://{host}:{listener.port}/")
        with pytest.raises(RegistrationError) as caught:
            login_app(tmp_path, ManagerConfig(), CREDENTIALS)
        assert listener.close() == []
    assert f"listened on by an ordinary account (uid {eve.uid})" in str(caught.value)
    assert caught.value.exit_code == os.EX_TEMPFAIL


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


@pytest.mark.parametrize(
    ("status", "answer", "code", "says"),
    [
        (400, {"error": "invalid_grant"}, os.EX_NOPERM, "not logged in any more .*run `mep login`"),
        (401, {"error": "invalid_client"}, os.EX_NOPERM, "not logged in any more .*run `mep login`"),
        (429, {"error": "slow_down"}, os.EX_TEMPFAIL, "try again later"),
        (502, {}, os.EX_TEMPFAIL, "try again later"),
    ],
)
def test_a_stored_login_that_globus_auth_does_not_renew(
    service: Service,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    answer: dict[str, str],
    code: int,
    says: str,
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    store_login(tmp_path, expires=0)
    service.no_tokens = (status, answer)
    with login_app(tmp_path, ManagerConfig(), None) as app:
        with pytest.raises(RegistrationError, match=says) as caught:
            ask_version(ManagerConfig(), app)
        assert caught.value.exit_code == code
        with pytest.raises(RegistrationError, match=says):
            try_login(app, ManagerConfig())


def test_a_login_for_less_than_is_needed_begins_no_other(service: Service, tmp_path: Path) -> None:
    store_login(tmp_path, expires=time.time() + 3600, scope="openid")
    with (
        login_app(tmp_path, ManagerConfig(), None) as app,
        pytest.raises(RegistrationError, match="run `mep login`") as caught,
        told(remedy(app, ManagerConfig())),
    ):
        globus_sdk.ComputeClientV2(app=app).get_version()
    assert caught.value.exit_code == os.EX_NOPERM


@pytest.mark.parametrize(
    ("url", "cause"),
    [("http://127.0.0.1:1", "connection refused; is the service up"), ("http://no-such-host.invalid:7777", "DNS")],
)
def test_no_answer_can_be_tried_again(monkeypatch: pytest.MonkeyPatch, url: str, cause: str) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    with (
        pytest.raises(RegistrationError, match=f"at {url}: .*{cause}") as caught,
        told("run `mep login`"),
    ):
        globus_sdk.ComputeClientV2(base_url=url.replace("//", "//user:hunter2@")).get_version()
    assert caught.value.exit_code == os.EX_TEMPFAIL
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("named", ["", "other.example"])
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_does_not_hear_what_is_said_to_a_service_on_this_host(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, named: str
) -> None:
    proxy = Service()
    server = proxy.start()
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    if named:
        monkeypatch.setenv("NO_PROXY", named)
    monkeypatch.setenv(variable, proxy.url)
    service.version, service.answer = None, {"api": "1"}
    try:
        with login_app(tmp_path, ManagerConfig(), CREDENTIALS) as app:
            ask_version(ManagerConfig(), app)
    finally:
        server.shutdown()
        server.server_close()
    assert proxy.requests == []
    assert service.requests
    assert {named, "127.0.0.1"} >= set(os.environ["no_proxy"].split(",")), "what was excepted before, still is"
