"""The registration: what the service is told, and what becomes of its answers."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mep.profile.client_credentials import ClientCredentials
from mep.profile.config import ManagerConfig
from mep.profile.profile import Profile
from mep.registration.answer import Registration, read
from mep.registration.errors import RegistrationError
from mep.registration.login import login_app
from mep.registration.registration import _document, register
from mep.registration.version import COMPATIBLE_VERSION, ask_version
from tests.mep.commands import MANAGER, UEP, URL, target
from tests.mep.loading import loaded_by, rooms
from tests.mep.service import Service

CREDENTIALS = ClientCredentials(UEP, "the secret")


def answer(**changes: Any) -> dict[str, Any]:
    """What the service says of a registered endpoint."""
    commands = {"connection_url": URL, "exchange": "commands", "queue": "q"}
    return {
        "endpoint_id": MANAGER,
        "command_queue_info": commands,
        "heartbeat_queue_info": target("heartbeats"),
        **changes,
    }


def registered(profile: Profile, known: str | None = None) -> Registration:
    with login_app(profile.directory, profile.config, CREDENTIALS) as app:
        said = register(profile, app, known, "root", multi_user=True)
    return read(said, profile.config.amqp_port, known)


def version(config: ManagerConfig, profile: Profile) -> object:
    with login_app(profile.directory, config, CREDENTIALS) as app:
        return ask_version(config, app)


def refusal(action: Callable[[], object]) -> tuple[int, str]:
    with pytest.raises(RegistrationError) as caught:
        action()
    return caught.value.exit_code, str(caught.value)


def test_a_first_registration(service: Service, profile: Profile) -> None:
    service.answer = answer()
    registration = registered(profile)
    assert registration.endpoint_id == MANAGER
    assert (registration.commands.queue, registration.commands.connection_url) == ("q", URL)
    assert registration.heartbeats.exchange == "heartbeats"
    assert registration.broker == "amqp://127.0.0.1:5672"
    assert service.requests == [("POST", "/v3/endpoints", _document(profile, "root", multi_user=True))]
    assert service.headers[0]["Authorization"] == "Bearer token-of-funcx_service"
    assert "hunter2" not in repr(registration)


def test_a_later_registration_is_for_the_same_endpoint(service: Service, profile: Profile) -> None:
    service.answer = answer()
    assert registered(profile, MANAGER).endpoint_id == MANAGER
    assert [(method, path) for method, path, _ in service.requests] == [("PUT", f"/v3/endpoints/{MANAGER}")]


def test_an_answer_for_another_endpoint(service: Service, profile: Profile) -> None:
    service.answer = answer(endpoint_id=UEP)
    code, text = refusal(lambda: registered(profile, MANAGER))
    assert code == os.EX_SOFTWARE
    assert MANAGER in text
    assert UEP in text


@pytest.mark.parametrize(
    ("status", "code", "remedy"),
    [
        (400, os.EX_DATAERR, "see the text of the service"),
        (401, os.EX_NOPERM, "check the client's id and secret"),
        (403, os.EX_NOPERM, "may not register endpoints"),
        (404, os.EX_DATAERR, f"endpoint {MANAGER}; delete endpoint.json"),
        (409, os.EX_UNAVAILABLE, "perhaps on another host: stop it there, or .* `mep stop --remote`"),
        (410, os.EX_DATAERR, f"endpoint {MANAGER} has been deleted; delete endpoint.json"),
        (422, os.EX_DATAERR, "see the text of the service"),
        (423, os.EX_UNAVAILABLE, "locked"),
    ],
)
def test_a_refusal_has_the_words_of_the_service_and_a_remedy(
    service: Service, profile: Profile, status: int, code: int, remedy: str
) -> None:
    service.status, service.answer = status, {"code": "NO", "reason": "because"}
    said = refusal(lambda: registered(profile, MANAGER))
    assert said[0] == code
    assert f"(HTTP {status})" in said[1]
    assert "because" in said[1]
    assert re.search(remedy, said[1])


def test_only_a_locked_endpoint_is_waited_for(service: Service, profile: Profile) -> None:
    for status, locked in ((409, False), (423, True)):
        service.status, service.answer = status, {"code": "NO", "reason": "because"}
        with pytest.raises(RegistrationError) as caught:
            registered(profile, MANAGER)
        assert caught.value.locked == locked


@pytest.mark.parametrize("status", [404, 410])
def test_a_service_that_takes_no_new_endpoints_is_perhaps_none(service: Service, profile: Profile, status: int) -> None:
    service.status, service.answer = status, {}
    code, text = refusal(lambda: registered(profile))
    assert code == os.EX_UNAVAILABLE
    assert "is it a Globus Compute service?" in text
    assert "None" not in text


@pytest.mark.parametrize("key", ["min_ep_version", "min_sdk_version"])
@pytest.mark.parametrize(
    ("least", "served"), [("4.19.0", True), ("4.19.1", False), ("5.0.0a1", False), ("4.19.0.dev1", True), ("?", True)]
)
def test_a_service_that_wants_newer_endpoints(
    service: Service, profile: Profile, key: str, least: str, served: bool
) -> None:
    service.version[key], service.answer = least, answer()
    if served:
        assert registered(profile).endpoint_id == MANAGER
        return
    code, text = refusal(lambda: registered(profile))
    assert (code, service.requests) == (os.EX_DATAERR, [])
    assert f"endpoints of version {least} or later" in text
    assert "install a newer mep" in text


def test_a_service_that_names_no_version_that_it_wants(service: Service, profile: Profile) -> None:
    service.version, service.answer = {"api": "1"}, answer()
    assert registered(profile).endpoint_id == MANAGER


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_the_service_cannot_do_now_is_tried_later(
    service: Service, profile: Profile, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)  # of globus_sdk, between its attempts
    service.status, service.answer = status, {"code": "NO", "reason": "because"}
    code, text = refusal(lambda: registered(profile, MANAGER))
    assert code == os.EX_TEMPFAIL
    assert f"(HTTP {status}): " in text
    assert "try again later" in text


@pytest.mark.parametrize(
    ("status", "answer", "code", "says"),
    [
        (400, {"error": "invalid_grant"}, os.EX_NOPERM, "not logged in any more"),
        (401, {"error": "invalid_client"}, os.EX_NOPERM, "not logged in any more"),
        (403, {"error": "access_denied"}, os.EX_NOPERM, "not logged in any more"),
        (429, {"error": "slow_down"}, os.EX_TEMPFAIL, "try again later"),
        (503, {"error": "down"}, os.EX_TEMPFAIL, "try again later"),
    ],
)
def test_a_client_to_which_globus_auth_gives_no_tokens(
    service: Service,
    profile: Profile,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    answer: dict[str, str],
    code: int,
    says: str,
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    service.no_tokens = (status, answer)
    config = replace(profile.config, client_credentials_path=Path("/etc/mep/client.yaml"))
    for ask in (lambda: registered(replace(profile, config=config)), lambda: version(config, profile)):
        found, text = refusal(ask)
        assert found == code
        assert says in text
        assert ("/etc/mep/client.yaml" in text) == (code == os.EX_NOPERM)
    assert service.requests == []


@pytest.mark.parametrize(
    "detail",
    [{"code": "ConsentRequired", "required_scopes": ["all"]}, {"authorization_parameters": {"session_message": "x"}}],
)
def test_a_consent_that_is_gone(service: Service, profile: Profile, detail: dict[str, Any]) -> None:
    service.status, service.answer = 403, {"code": "NO", "message": "because", **detail}
    code, text = refusal(lambda: registered(profile))
    assert code == os.EX_NOPERM
    assert "the login does not do any more (HTTP 403)" in text


def test_errors_travel_between_processes() -> None:
    error = pickle.loads(pickle.dumps(RegistrationError(os.EX_TEMPFAIL, "because")))
    assert (error.exit_code, str(error), error.passes) == (os.EX_TEMPFAIL, "because", True)
    assert pickle.loads(pickle.dumps(RegistrationError(os.EX_UNAVAILABLE, "because", locked=True))).locked
    assert not RegistrationError(os.EX_DATAERR, "because").passes


def test_a_refusal_that_quotes_a_password_does_not_tell_it(service: Service, profile: Profile) -> None:
    service.status, service.answer = 400, {"code": "NO", "reason": f"cannot connect to {URL}"}
    assert "hunter2" not in refusal(lambda: registered(profile))[1]


@pytest.mark.parametrize(
    ("said", "names"),
    [
        ([], "is it a Globus Compute service?"),
        (5, "is it a Globus Compute service?"),
        ({}, "command_queue_info"),
        ({key: value for key, value in answer().items() if key != "endpoint_id"}, "endpoint_id"),
        (answer(command_queue_info=None), "command_queue_info: missing 'connection_url'"),
        (answer(command_queue_info={"connection_url": "http://h", "queue": "q"}), "expected amqp"),
        (answer(command_queue_info={"connection_url": "amqp://h:port", "queue": "q"}), "not a URL"),
        (answer(heartbeat_queue_info={"connection_url": URL}), "heartbeat_queue_info"),
    ],
)
def test_an_answer_that_is_none(said: Any, names: str) -> None:
    code, text = refusal(lambda: read(said, None))
    assert code == os.EX_PROTOCOL
    assert names in text
    assert "hunter2" not in text


@pytest.mark.parametrize(
    ("url", "port", "broker"),
    [
        (URL, None, "amqp://127.0.0.1:5672"),
        (URL, 443, "amqp://127.0.0.1:443"),
        ("amqps://user:pass@word@broker.example.org:5671/v", None, "amqps://broker.example.org:5671"),
        ("amqps://user:secret@broker.example.org", None, "amqps://broker.example.org:5671"),
        ("amqp://user:secret@[::1]/", None, "amqp://[::1]:5672"),
        ("amqps://user:secret@[::1]/", 443, "amqps://[::1]:443"),
    ],
)
def test_the_address_of_the_broker_has_a_port_and_no_secret(url: str, port: int | None, broker: str) -> None:
    assert read(answer(command_queue_info={"connection_url": url, "queue": "q"}), port).broker == broker


def test_the_service_is_told_what_the_profile_says(profile: Profile) -> None:
    document = _document(profile, "root", multi_user=True)
    assert document["endpoint_name"] == "prod"
    assert document["display_name"] == "Prod"
    assert (document["multi_user"], document["public"], document["high_assurance"]) == (True, False, False)
    assert not {"allowed_functions", "authentication_policy", "subscription_uuid", "admins"} & set(document), "not set"
    metadata = document["metadata"]
    assert metadata["endpoint_version"] == COMPATIBLE_VERSION
    assert metadata["endpoint_config"] == profile.config_text
    assert "ThreadPoolEngine" in metadata["user_config_template"]
    assert metadata["user_config_schema"] == {"type": "object"}


def test_lists_of_the_profile_are_lists_of_json(profile: Profile) -> None:
    config = replace(profile.config, allowed_functions=(UEP,), admins=(), subscription_id=UEP, public=True)
    document = _document(replace(profile, config=config), "root", multi_user=True)
    assert document["allowed_functions"] == [UEP]
    assert "admins" not in document, "empty"
    assert (document["subscription_uuid"], document["public"]) == (UEP, True)


def test_the_version_of_the_service(service: Service, profile: Profile) -> None:
    service.version = None
    for said, version in (("1.0.28", "1.0.28"), ({"api": "1.0.28"}, "1.0.28")):
        service.answer = said
        with login_app(profile.directory, ManagerConfig(), CREDENTIALS) as app:
            found = ask_version(ManagerConfig(), app)
        assert found.version == version
        assert found.date is not None
    assert {(method, path.partition("?")[0]) for method, path, _ in service.requests} == {("GET", "/v2/version")}


def test_a_service_that_does_not_take_the_login(service: Service, profile: Profile) -> None:
    service.version, service.status, service.answer = None, 403, {"code": "NO", "reason": "because"}
    with login_app(profile.directory, ManagerConfig(), CREDENTIALS) as app:
        assert refusal(lambda: ask_version(ManagerConfig(), app))[0] == os.EX_NOPERM


def test_it_reads_no_files_of_the_profile_and_has_no_rights() -> None:
    loaded = loaded_by("mep.registration.registration", "mep.registration.version")
    assert rooms(loaded) <= {"registration", "profile", "request"}
    assert "yaml" not in loaded


def test_who_only_tells_its_errors_loads_no_client() -> None:
    assert "globus_sdk" not in loaded_by("mep.registration.errors")
