"""Logging in with a browser: the unmodified public client and `mep`, a real provider, a real browser.

The session's hub has a provider while this file runs.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import requests
from globus_compute_sdk.sdk.auth.auth_client import ComputeAuthClient
from selenium.webdriver.common.by import By

from lab.browser import PHONE, Browser
from lab.certificates import Authority
from lab.hub import HubProcess, identity
from lab.login import LoginProgram, ProgramFailed, agree, log_in, sign_in
from lab.provider import CLIENT_ID, OidcProvider, modules
from lab.waiting import until
from tests.conftest import need
from tests.hub.peer import UserEndpoint

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
APP = "4cf29807-cf21-49ec-9443-ff9a3fb9f81c"
COMPUTE_SCOPE = "https://auth.globus.org/scopes/facd7ccc-c5f4-42aa-916b-a0e270e2c2a9/all"
ACCOUNTS = {
    "carol-1": {"preferred_username": "carol", "name": "Carol C", "email": "c@example.org", "linked_usernames": ["cc"]},
    "carol-2": {"preferred_username": "carol", "name": "Not Carol"},
    "dave-1": {"preferred_username": "dave"},
    "eve-1": {"preferred_username": "dave@example.org"},
    "alice-1": {"preferred_username": "alice"},
    "phone-1": {"preferred_username": "phone", "name": "<script>alert(1)</script>"},
}
EXECUTOR = """
import json, sys
from globus_compute_sdk import Executor
def double(x):
    return 2 * x
with Executor(sys.argv[1]) as executor:
    print(json.dumps(executor.submit(double, 21).result(timeout=60)))
"""
ENDPOINTS = """
from globus_compute_sdk import Client
client = Client()
print(len(client.get_endpoints()))
"""
LOGOUT = """
from globus_compute_sdk import Client
Client().logout()
"""
WHOAMI = """
import json
from globus_compute_sdk import Client
from globus_compute_sdk.sdk.auth.auth_client import ComputeAuthClient
from globus_compute_sdk.sdk.auth.globus_app import get_globus_app
app = get_globus_app()
who = ComputeAuthClient(app=app)
Client(app=app)
print(json.dumps(who.userinfo().data))
"""

SERVICES = """
from globus_compute_sdk import Client
from globus_compute_sdk.sdk.auth.auth_client import ComputeAuthClient
from globus_compute_sdk.sdk.auth.globus_app import get_globus_app
from globus_sdk.scopes import FlowsScopes, GCSCollectionScopes, GroupsScopes, TransferScopes
app = get_globus_app()
collection = GCSCollectionScopes("1b6e3a5c-0000-4000-8000-000000000001")
transfer = TransferScopes.all.with_dependency(collection.data_access.with_optional(True))
app.add_scope_requirements({
    "auth.globus.org": ComputeAuthClient.default_scope_requirements,
    "transfer.api.globus.org": [transfer],
    "groups.api.globus.org": [GroupsScopes.view_my_groups_and_memberships],
    "flows.globus.org": [FlowsScopes.all],
})
print(len(Client(app=app).get_endpoints()))
print(len(ComputeAuthClient(app=app).get_projects().data["projects"]))
for service in ("transfer.api.globus.org", "groups.api.globus.org", "flows.globus.org"):
    print(app.get_authorizer(service).get_authorization_header()[:7])
"""
RUN = """
import sys
from globus_compute_sdk import Client
def one():
    return 1
client = Client()
print(client.run(endpoint_id=sys.argv[1], function_id=client.register_function(one)))
"""


@pytest.fixture(scope="module")
def provider(folder: Path, hub: HubProcess) -> Iterator[OidcProvider]:
    """A provider, at which the hub has people log in."""
    need(modules().is_dir(), "needs a provider of logins (lab/setup browser)")
    base = f"http://localhost:{hub.port}"
    back = [f"{base}/login/return", f"https://localhost:{hub.tls_port}/login/return"]
    with OidcProvider(folder / "provider", back, ACCOUNTS) as provider:
        hub.stop()
        hub.login = {
            "url": base,
            "issuer": provider.issuer,
            "client_id": CLIENT_ID,
            "client_secret": provider.client_secret,
            "name": "Example Login",
            "domain": "example.org",
            "claims": {"linked": "linked_usernames"},
            "linked": {"dave@example.org": [identity("d@other.example")]},
        }
        hub.start()
        yield provider
        hub.stop()
        hub.login = None
        hub.start()


@pytest.fixture
def authority(folder: Path, hub: HubProcess, provider: OidcProvider) -> Iterator[Path]:
    """The hub asks people to log in where it proves its name; the file with its authority."""
    authority = Authority("a site's CA")
    authority.write(folder / "login-ca.pem")
    authority.issue("localhost").write(folder / "login.pem")
    before = hub.login
    assert before is not None
    hub.stop()
    hub.certificate, hub.login = folder / "login.pem", {**before, "url": f"https://localhost:{hub.tls_port}"}
    hub.start()
    yield folder / "login-ca.pem"
    hub.stop()
    hub.certificate, hub.login = None, before
    hub.start()


@pytest.fixture
def program(hub: HubProcess, provider: OidcProvider) -> Iterator[Callable[..., LoginProgram]]:
    """Starts a program of a person's, who has a folder for tokens of their own."""
    started: list[LoginProgram] = []

    def start(person: str, script: str, *arguments: str, **more: str) -> LoginProgram:
        environment = {**hub.login_environment(person), "HOME": str(hub.folder), **more}
        started.append(LoginProgram([sys.executable, "-c", script, *arguments], environment, hub.folder))
        return started[-1]

    yield start
    for each in started:
        each.__exit__(None, None, None)


@pytest.fixture
def database(hub: HubProcess) -> Callable[..., list[Any]]:
    """Asks, or changes, the hub's database."""

    def ask(sql: str, *values: Any) -> list[Any]:
        with closing(sqlite3.connect(hub.folder / "hub.db", isolation_level=None, timeout=30)) as db:
            return db.execute(sql, values).fetchall()

    return ask


class App:
    """A program that logs somebody in by hand, with all that can be wrong about it."""

    def __init__(self, hub: HubProcess) -> None:
        self.base = f"http://localhost:{hub.port}"
        self.verifier = secrets.token_urlsafe(32)

    def asked(self, **more: str | None) -> dict[str, str]:
        challenge = base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest()).decode().rstrip("=")
        asked = {
            "client_id": APP,
            "redirect_uri": f"{self.base}/v2/web/auth-code",
            "scope": f"openid {COMPUTE_SCOPE}",
            "state": "_default",
            "response_type": "code",
            "access_type": "offline",
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            **more,
        }
        return {key: value for key, value in asked.items() if value is not None}

    def address(self, **more: str | None) -> str:
        return f"{self.base}/v2/oauth2/authorize?{urlencode(self.asked(**more))}"

    def exchange(self, code: str, **more: str) -> requests.Response:
        form = {
            "grant_type": "authorization_code",
            "client_id": APP,
            "code": code,
            "code_verifier": self.verifier,
            "redirect_uri": f"{self.base}/v2/web/auth-code",
            **more,
        }
        return self.post("/v2/oauth2/token", **form)

    def refresh(self, token: str, **more: str) -> requests.Response:
        form = {"grant_type": "refresh_token", "client_id": APP, "refresh_token": token, **more}
        return self.post("/v2/oauth2/token", **form)

    def post(self, path: str, **form: str) -> requests.Response:
        return requests.post(self.base + path, data=form, timeout=30, allow_redirects=False)

    def is_good(self, token: str) -> bool:
        answer = requests.get(
            f"{self.base}/v2/oauth2/userinfo", headers={"Authorization": f"Bearer {token}"}, timeout=30
        )
        return answer.status_code == 200


@pytest.fixture
def app(hub: HubProcess, provider: OidcProvider) -> App:
    return App(hub)


def ours(browser: Browser, prefix: str = "mep-") -> list[dict[str, Any]]:
    """The hub's cookies; the provider's, on the same host, are there as well."""
    return [each for each in browser.driver.get_cookies() if each["name"].startswith(prefix)]


def test_an_executor_without_credentials_has_its_user_log_in(hub, provider, manager, program, browser, database):
    running = program("carol", EXECUTOR, manager.id)
    code = log_in(browser, running.address, "carol-1")
    running.answer(code)
    _, command = manager.next_command(60)
    uep = UserEndpoint(command)
    uep.heartbeat()
    uep.run(uep.take(30)[1])
    assert json.loads(running.output().splitlines()[-1]) == 42
    uep.close()

    assert command["globus_username"] == "carol@example.org"
    linked = [(each["username"], each["status"]) for each in command["globus_identity_set"]]
    assert linked == [("carol@example.org", "used"), ("cc@example.org", "used")]
    # Neither code nor token is in the database.
    with closing(sqlite3.connect(hub.folder / "clients" / "carol" / "storage.db")) as db:
        stored = [json.loads(row[0]) for row in db.execute("SELECT token_data_json FROM token_storage")]
    tokens = [each[kind] for each in stored for kind in ("access_token", "refresh_token")]
    assert len(tokens) == 4
    database("PRAGMA wal_checkpoint(TRUNCATE)")
    kept = b"".join(file.read_bytes() for file in hub.folder.glob("hub.db*"))
    assert not [each for each in (code, *tokens) if each.encode() in kept]
    assert not [each for each in (code, *tokens) if each in hub.log.read_text()]


def test_a_login_is_renewed_until_it_is_ended(hub, program, browser, database):
    first = program("dave", WHOAMI)
    first.answer(log_in(browser, first.address, "dave-1"))
    first.output()
    # The next one asks nobody, and gets another token when the old one is over.
    database("UPDATE token SET expires = 0 WHERE login IS NOT NULL")
    me = json.loads(program("dave", WHOAMI).output().splitlines()[-1])
    assert me["preferred_username"] == "dave@example.org"
    assert [each["username"] for each in me["identity_set"]] == ["dave@example.org", "d@other.example"]
    program("dave", LOGOUT).output()
    assert not database("SELECT * FROM refresh_token WHERE client = ?", me["sub"])
    assert not database("SELECT * FROM token WHERE client = ? AND expires > 0", me["sub"])
    assert program("dave", WHOAMI).address.startswith(f"http://localhost:{hub.port}/v2/oauth2/authorize?")


def test_who_has_to_log_in_again_is_asked_by_the_program_that_runs(program, browser, database):
    first = program("dora", ENDPOINTS)
    first.answer(log_in(browser, first.address, "dave-1"))
    first.output()
    database("UPDATE token SET expires = 0 WHERE login IS NOT NULL")
    database("UPDATE refresh_token SET expires = 0")
    second = program("dora", ENDPOINTS)
    browser.open(second.address)  # still logged in at the hub's pages: only the consent is asked for
    second.answer(agree(browser))
    second.output()


def test_one_login_for_all_services_is_good_for_the_next_program_as_well(program, browser):
    first = program("carla", SERVICES)
    first.answer(log_in(browser, first.address, "carol-1"))
    lines = ["0", "0", *["Bearer "] * 3]
    assert first.output().splitlines()[-5:] == lines
    assert program("carla", SERVICES).output().splitlines() == lines, "it asks nobody"


def test_who_has_logged_in_too_long_ago_for_a_policy_logs_in_again(program, browser, client, database):
    admin = client("admin")
    auth = ComputeAuthClient(app=admin.app)
    project = auth.create_project("Site", "s@example.org", admin_ids=auth.userinfo()["sub"])["project"]["id"]
    words = {"display_name": "Lately", "description": "D"}
    policy = auth.create_policy(project_id=project, authentication_assurance_timeout=3600, **words)["policy"]["id"]
    endpoint = admin.register_endpoint("e", None, {}, multi_user=True, auth_policy=policy)["endpoint_id"]

    first = program("dan", RUN, endpoint)
    first.answer(log_in(browser, first.address, "dave-1"))
    assert uuid.UUID(first.output().splitlines()[-1])
    ((me, records),) = database("SELECT id, identities FROM person WHERE identities LIKE '%dave@example.org%'")
    old = json.dumps([{**each, "last_authentication": int(time.time()) - 7200} for each in json.loads(records)])
    database("UPDATE person SET identities = ? WHERE id = ?", old, me)
    second = program("dan", RUN, endpoint)
    second.answer(log_in(browser, second.address, "dave-1"))
    assert uuid.UUID(second.output().splitlines()[-1])


def test_mep_logs_in_and_out(hub, provider, browser, tmp_path):
    environment = {
        **hub.login_environment("dave"),
        "HOME": str(tmp_path),
        "MEP_STATE_DIR": str(tmp_path / "state"),
    }

    def mep(*arguments: str) -> LoginProgram:
        script = "from mep.cli.main import main; main()"
        return LoginProgram([sys.executable, "-c", script, *arguments], environment, hub.folder)

    with mep("login") as running:
        running.answer(log_in(browser, running.address, "dave-1"))
        running.output()
    with mep("whoami") as running:
        assert running.output().startswith("dave@example.org ")
    with mep("login") as running:
        assert "Already logged in" in running.output()
    with mep("logout") as running:
        assert "Logged out" in running.output()
    with mep("whoami") as running, pytest.raises(ProgramFailed, match="run `mep login`"):
        running.output()


def test_the_page_for_users_takes_a_login(hub, provider, browser):
    browser.open(f"http://localhost:{hub.port}/")
    browser.follow("Sign in with Example Login")
    sign_in(browser, "dave-1")
    browser.wait_for("dave@example.org")
    assert browser.url.endswith("/page/endpoints")
    browser.follow("Sign out")
    assert "Client secret" in browser.text


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"client_id": "11111111-1111-1111-1111-111111111111"}, "not known"),
        ({"client_id": None}, "not known"),
        ({"redirect_uri": "http://localhost:1/steal"}, "GLOBUS_SDK_SERVICE_URL_AUTH=http://localhost:"),
        ({"redirect_uri": None}, "GLOBUS_SDK_SERVICE_URL_AUTH"),
        ({"response_type": "token"}, "does not ask for a code"),
        ({"code_challenge": None}, "PKCE"),
        ({"code_challenge_method": "plain"}, "PKCE"),
        ({"scope": "urn:nobody"}, "not understood"),
        ({"scope": None}, "not understood"),
        ({"state": "x" * 4000}, "too much"),
    ],
)
def test_a_program_that_asks_wrongly_gets_nobody_to_the_provider(app, more, text):
    answer = requests.get(app.address(**more), timeout=30, allow_redirects=False)
    assert answer.status_code == 400
    assert text in answer.text
    assert "location" not in answer.headers


def test_a_code_is_good_once_for_its_program_and_its_verifier(app, browser, database):
    browser.open(app.address())
    sign_in(browser, "dave-1")

    def another() -> str:
        browser.open(app.address())
        return agree(browser)

    other = secrets.token_urlsafe(32)
    for wrong in ({"code_verifier": other}, {"code_verifier": ""}, {"redirect_uri": "http://localhost:1/"}):
        code = another()
        assert app.exchange(code, **wrong).json()["error"] == "invalid_grant"
        assert app.exchange(code).status_code == 400, "a wrong attempt uses the code up"
    code = another()
    database("UPDATE code SET expires = 0")
    assert app.exchange(code).status_code == 400
    assert app.exchange(other).status_code == 400
    assert app.exchange(code, client_id=other).status_code == 401
    assert app.exchange(code, grant_type="password").json()["code"] == "unsupported_grant_type"

    code = another()
    answer = app.exchange(code)
    assert answer.headers["cache-control"] == "no-store"
    first, *others = answer.json(), *answer.json()["other_tokens"]
    assert {each["resource_server"] for each in (first, *others)} == {"auth.globus.org", "funcx_service"}
    auth = next(each for each in (first, *others) if each["resource_server"] == "auth.globus.org")
    assert app.is_good(auth["access_token"])
    renewed = app.refresh(auth["refresh_token"]).json()
    assert renewed["refresh_token"] == auth["refresh_token"]
    assert renewed["other_tokens"] == []
    assert app.is_good(renewed["access_token"])
    assert app.refresh(auth["refresh_token"], client_id=other).status_code == 401
    assert app.refresh(other).json()["error"] == "invalid_grant"
    # Whoever has a code that was used has read it on its way: what came of it ends.
    assert app.exchange(code).status_code == 400
    assert not app.is_good(auth["access_token"])
    assert not app.is_good(renewed["access_token"])
    assert app.refresh(auth["refresh_token"]).status_code == 400


def test_nobody_takes_a_name_that_is_somebody_elses(app, provider, browser):
    browser.open(app.address())
    sign_in(browser, "carol-1")
    browser.wait_for("carol@example.org")
    for login, text in (
        ("carol-2", "somebody else's"),
        ("alice-1", "somebody else's"),  # who is a client in hub.yaml
        ("eve-1", "not taken here"),
    ):
        with Browser() as other:
            other.open(app.address())
            sign_in(other, login)
            other.wait_for("You cannot log in here")
            assert text in other.text
            assert [each["name"] for each in ours(other)] == ["mep-login"]


def test_an_answer_of_the_provider_is_for_the_browser_that_asked(hub, app, browser):
    """Somebody who is made to open the address with which an attacker came back does not become the attacker."""
    with Browser() as attackers:
        attackers.open(app.address())
        attackers.fill("Enter any login", "dave-1")
        attackers.fill("and password", "any")
        hub.stop()
        attackers.click("Sign-in")
        until(lambda: "/login/return" in attackers.url, "the address with the attacker's code")
        stolen = attackers.url
        hub.start()
    browser.open(stolen)
    browser.wait_for("You are not logged in")
    assert not ours(browser)
    browser.open(app.address())  # now it has an attempt, of its own
    browser.open(stolen)
    browser.wait_for("You are not logged in")
    assert [each["name"] for each in ours(browser)] == ["mep-login"]


def test_a_form_of_another_site_agrees_to_nothing(app, browser):
    browser.open(app.address())
    sign_in(browser, "dave-1")
    browser.wait_for("act for you?")
    (cookie,) = ours(browser)
    cookies = {cookie["name"]: cookie["value"]}
    assert cookie["name"] == "mep-session"
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Lax", "/")
    address = f"{app.base}/v2/oauth2/authorize"
    for forged in ({}, {"csrf": ""}, {"csrf": "0" * 64}):
        form = {**app.asked(), "answer": "yes", **forged}
        answer = requests.post(address, data=form, cookies=cookies, timeout=30)
        assert (answer.status_code, "too old" in answer.text) == (400, True)
    assert requests.post(f"{app.base}/logout", data={}, cookies=cookies, timeout=30).status_code == 400
    page = requests.get(app.address(), cookies=cookies, timeout=30)
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert page.headers["x-frame-options"] == "DENY"
    assert page.headers["cache-control"] == "no-store"


def test_who_cancels_gives_nothing_away(app, browser, database):
    browser.open(app.address())
    sign_in(browser, "dave-1")
    before = database("SELECT count(*) FROM code")
    browser.click("Cancel")
    browser.wait_for("Nothing was given away")
    assert database("SELECT count(*) FROM code") == before


def test_the_consent_names_who_asks_for_what_and_shows_what_strangers_say_as_text(provider, app):
    label = "<b>evil</b>\u202e"
    scope = f"openid {COMPUTE_SCOPE} urn:globus:auth:scope:transfer.api.globus.org:all"
    with Browser(size=PHONE, dark=True) as phone:
        phone.open(app.address(prefill_named_grant=label, scope=scope))
        sign_in(phone, "phone-1")
        phone.wait_for("Let Globus Compute act for you?")
        for text in ("phone@example.org", "<b>evil</b>\\u202e", "run functions", "transfer.api.globus.org"):
            assert text in phone.text
        assert not phone.is_wider_than_window()
        assert phone.driver.find_element(By.TAG_NAME, "body").value_of_css_property("background-color") in (
            "rgb(21, 24, 27)",
            "rgba(21, 24, 27, 1)",
        )


def test_somebody_else_may_log_in_at_the_same_browser(provider, app, browser):
    browser.open(app.address())
    sign_in(browser, "dave-1")
    browser.wait_for("dave@example.org")
    browser.follow("Log in as somebody else")
    sign_in(browser, "carol-1")
    browser.wait_for("carol@example.org")
    browser.open(app.address(prompt="login"))
    sign_in(browser, "dave-1")
    browser.wait_for("dave@example.org")


def test_logging_out_everywhere_ends_the_logins_of_programs(app, browser):
    browser.open(app.address())
    sign_in(browser, "dave-1")
    tokens = app.exchange(agree(browser)).json()
    browser.open(f"{app.base}/logout")
    browser.click("Log out here")
    browser.wait_for("Logged out")
    assert not ours(browser)
    assert app.refresh(tokens["refresh_token"]).status_code == 200
    browser.open(app.address())  # the provider knows who it is
    browser.wait_for("act for you?")
    browser.open(f"{app.base}/logout")
    browser.click("Log out everywhere")
    browser.wait_for("Logged out")
    assert app.refresh(tokens["refresh_token"]).status_code == 400


def test_a_provider_that_is_down_costs_those_who_are_logged_in_nothing(hub, provider, app, browser):
    browser.open(app.address())
    sign_in(browser, "dave-1")
    tokens = app.exchange(agree(browser)).json()
    provider.stop()
    try:
        hub.stop()
        hub.start()  # and it starts without
        with Browser() as other:
            other.open(app.address())
            other.wait_for("Logging in is not possible now")
            assert "Example Login" in other.text
            assert provider.issuer not in other.text
        assert requests.get(app.address(), timeout=30).status_code == 503
        assert app.refresh(tokens["refresh_token"]).status_code == 200
        browser.open(app.address())
        browser.wait_for("act for you?")
    finally:
        provider.start()
    with Browser() as other:
        other.open(app.address())
        sign_in(other, "dave-1")
        other.wait_for("act for you?")


def test_people_log_in_where_the_hub_proves_its_name(hub, authority, program):
    base = f"https://localhost:{hub.tls_port}"
    trust = {"GLOBUS_SDK_SERVICE_URL_AUTH": f"{base}/", "GLOBUS_SDK_VERIFY_SSL": str(authority)}
    running = program("tess", ENDPOINTS, **trust)
    with Browser(trust_any_certificate=True) as browser:
        running.answer(log_in(browser, running.address, "dave-1"))
        (cookie,) = ours(browser, "__Host-mep-")
        # Elsewhere a program is told how to come here.
        browser.open(App(hub).address())
        browser.wait_for(f"GLOBUS_SDK_SERVICE_URL_AUTH={base}/")
    running.output()
    assert (cookie["name"], cookie["secure"]) == ("__Host-mep-session", True)


def test_an_admin_ends_what_somebody_has(hub, app, browser):
    browser.open(app.address())
    sign_in(browser, "dave-1")
    tokens = app.exchange(agree(browser)).json()

    def forget(username: str) -> subprocess.CompletedProcess[str]:
        config = str(hub.folder / "hub.yaml")
        command = [sys.executable, "-m", "hub", "forget", "--config", config, username]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    assert "Forgotten: dave@example.org" in forget("dave@example.org").stdout
    assert app.refresh(tokens["refresh_token"]).status_code == 400
    assert not app.is_good(tokens["access_token"])
    browser.open(app.address())
    browser.wait_for("act for you?")  # the provider knows them, and has said who they are anew
    assert (nobody := forget("nobody@example.org")).returncode == 65
    assert "nobody who has logged in" in nobody.stderr
