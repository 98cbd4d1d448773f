"""What the public package says to the service and makes of its answers, and what we do, in the same test."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import peer
from lab.accounts import LocalAccount
from lab.waiting import until
from tests.conftest import need
from tests.mep.beside_public import CLIENT, CONFIG, QUESTION, BesidePublic
from tests.mep.commands import MANAGER, UEP
from tests.mep.service import Service
from tests.references import PROJECT

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("root")]

ACCOUNT = "mepways_both"
SYSTEMD = PROJECT / "systemd"


@pytest.fixture(scope="module", autouse=True)
def public_package() -> None:
    need(peer.program().exists(), "needs the public package: lab/setup peer")


@pytest.fixture(scope="module")
def profiles(public_package: None, tmp_path_factory: pytest.TempPathFactory) -> BesidePublic:
    return BesidePublic(tmp_path_factory.mktemp("beside") / "both")


@pytest.fixture
def both(profiles: BesidePublic) -> BesidePublic:
    """As new: registered before, and a service that takes everything."""
    profiles.write_config(CONFIG)
    profiles.know(MANAGER)
    profiles.service = Service()
    return profiles


@pytest.fixture
def owner() -> Iterator[LocalAccount]:
    with LocalAccount(ACCOUNT) as account:
        yield account


def documents(both: BesidePublic) -> tuple[Any, Any]:
    """What each of them sends, but for the version of its Python; the service refuses both."""
    both.service.status, both.service.answer = 409, {"code": "NO", "reason": "because"}
    ((method, path, public),) = both.start_public().requests
    ((our_method, our_path, ours),) = both.start_ours().requests
    assert (our_method, our_path) == (method, path)
    assert list(public["metadata"]) == list(ours["metadata"])
    for document in (public, ours):
        assert document["metadata"].pop("python_version").startswith("3.")
    return public, ours


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"allowed_functions": [UEP], "admins": [UEP], "authentication_policy": UEP, "subscription_id": UEP},
        {"allowed_functions": [], "admins": [], "display_name": None, "public": True},
    ],
)
def test_the_service_is_told_the_same(both: BesidePublic, more: dict[str, Any]) -> None:
    both.write_config({"email": "a@example.org", "local_compute_services": True, **more})
    both.know(None if not more else MANAGER)
    public, ours = documents(both)
    assert ours == public


def test_an_endpoint_of_ones_own_is_told_as_there(tmp_path: Path, owner: LocalAccount) -> None:
    public, ours = documents(BesidePublic(owner.home / "both", owner))
    for each in (public, ours):
        assert each["metadata"]["local_user"] == ACCOUNT
        assert "multi_user" not in each
    assert ours == public


@pytest.mark.parametrize(
    ("status", "public", "ours", "remedy"),
    [
        (400, os.EX_DATAERR, os.EX_DATAERR, "see the text of the service"),
        (404, os.EX_UNAVAILABLE, os.EX_DATAERR, f"does not know endpoint {MANAGER}; delete endpoint.json"),
        (409, os.EX_UNAVAILABLE, os.EX_UNAVAILABLE, "another instance of this endpoint is running"),
        (422, os.EX_DATAERR, os.EX_DATAERR, "see the text of the service"),
    ],
)
def test_a_refusal_ends_both_with_a_code_and_ours_with_a_remedy(
    both: BesidePublic, status: int, public: int, ours: int, remedy: str
) -> None:
    both.service.status, both.service.answer = status, {"code": "NO", "reason": "because"}
    there, here = both.start_public(), both.start_ours()
    assert (there.code, here.code) == (public, ours), there.said + here.said
    assert "because" in there.said
    assert "because" in here.said
    assert remedy in here.said


def test_a_locked_endpoint_ends_the_public_one_and_ours_waits(both: BesidePublic, tmp_path: Path) -> None:
    both.service.status, both.service.answer = 423, {"code": "RESOURCE_LOCKED", "reason": "because"}
    assert both.start_public().code == os.EX_UNAVAILABLE
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(60)
        with both.starting_ours(NOTIFY_SOCKET=str(tmp_path / "notify")) as process:
            told = systemd.recv(4096).decode().split("\n")
            assert [line.partition("=")[0] for line in told] == ["EXTEND_TIMEOUT_USEC", "STATUS"]
            assert "waiting: the service refuses the registration (HTTP 423)" in told[1]
            until(lambda: "It waits since" in both.ask_ours("status"), "`mep status` to say so")
            assert "stopped" in both.ask_ours("stop")
            assert process.wait(60) == -signal.SIGTERM
    assert "was ended: the service refuses" in both.ask_ours("status")


def test_a_login_that_is_not_good_any_more(both: BesidePublic, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a terminal somebody can log in; a service ends with a code after which systemd does not start it again."""
    monkeypatch.setenv("GLOBUS_SDK_ENVIRONMENT", "local")
    monkeypatch.setenv("GLOBUS_SDK_SERVICE_URL_AUTH", "http://localhost:5000/")
    nothing = dict.fromkeys(CLIENT, "")
    both.log_in(expires=0)
    both.service.no_tokens = 400, {"error": "invalid_grant"}
    there, here = both.start_public(**nothing), both.start_ours(**nothing)
    assert (there.code, here.code) == (os.EX_NOPERM, os.EX_NOPERM), there.said + here.said
    assert "run `mep login`" in here.said
    for unit in ("mep@.service", "user/mep@.service"):
        text = (SYSTEMD / unit).read_text()
        assert "Restart=on-failure" in text
        assert str(os.EX_NOPERM) in re.findall("^RestartPreventExitStatus=(.*)$", text, re.MULTILINE)[0].split()
    there, here = both.start_public_at_a_terminal(), both.start_ours_at_a_terminal()
    assert QUESTION.decode() in there.said
    assert QUESTION.decode() in here.said
    assert here.code == os.EX_NOPERM
    assert "nobody has logged in" in here.said
    assert "Traceback" not in here.said


def test_half_of_a_client_is_none(both: BesidePublic) -> None:
    client, secret = CLIENT
    for missing in (client, secret):
        here = both.start_ours(**{missing: ""})
        assert here.code == os.EX_CONFIG
        assert f"{missing} is not: set both" in here.said
        assert not here.requests
    there = both.start_public(**{client: ""})
    assert there.code != 0
    assert "must be set to use a client identity" in there.said


def test_a_client_of_the_environment_at_a_terminal(both: BesidePublic) -> None:
    """Who looks whether somebody has to log in leaves the manager its secret."""
    both.service.status, both.service.answer = 409, {"code": "NO", "reason": "because"}
    for ended in (both.start_public_at_a_terminal(**CLIENT), both.start_ours_at_a_terminal(**CLIENT)):
        assert ended.code == os.EX_UNAVAILABLE, ended.said
        assert "because" in ended.said


def test_a_service_that_wants_newer_ones_has_neither(both: BesidePublic) -> None:
    both.service.version["min_sdk_version"] = "99.0.0"
    there, here = both.start_public(), both.start_ours()
    assert there.code != 0
    assert "minimum version" in there.said
    assert here.code == os.EX_DATAERR
    assert "endpoints of version 99.0.0 or later" in here.said
    assert not [*there.requests, *here.requests]
