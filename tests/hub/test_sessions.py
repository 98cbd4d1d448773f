"""Browser sessions: who has the cookie is who logged in, until they log out, and forms come from their pages."""

from __future__ import annotations

import pytest
from sqlalchemy import update
from starlette.requests import Request
from starlette.responses import Response

from hub import sessions as module
from hub.callers import Callers
from hub.limits import Limits, Turns
from hub.sessions import Sessions
from hub.store import tables
from hub.web import TooMany
from tests.hub.units import ALICE, BOB, CLIENTS, rows, run


@pytest.fixture
def sessions(store):
    return Sessions(store, Callers(store, CLIENTS), Turns(Limits()))


def request(cookie="", scheme="http"):
    headers = [(b"host", b"localhost"), *([(b"cookie", cookie.encode())] if cookie else [])]
    return Request({"type": "http", "scheme": scheme, "path": "/", "query_string": b"", "headers": headers})


def begin(sessions, client, before=""):
    """Logs in; what the browser says from then on."""
    response = Response()
    run(sessions.begin(request(before), response, client))
    return response.headers["set-cookie"].partition(";")[0]


def test_the_cookie_is_who_logged_in(sessions, store):
    cookie = begin(sessions, ALICE)
    assert run(sessions.client_of(request(cookie))) is ALICE
    assert run(sessions.client_of(request())) is None
    assert run(sessions.client_of(request("mep-session=other"))) is None
    assert cookie.partition("=")[2] not in str(rows(store, "SELECT * FROM session"))


def test_scripts_and_other_sites_do_not_get_the_cookie(sessions):
    response = Response()
    run(sessions.begin(request(), response, ALICE))
    attributes = response.headers["set-cookie"].lower()
    assert "httponly" in attributes
    assert "samesite=lax" in attributes
    assert "secure" not in attributes
    assert "domain" not in attributes
    secure = Response()
    run(sessions.begin(request(scheme="https"), secure, ALICE))
    assert secure.headers["set-cookie"].startswith("__Host-mep-session=")
    assert "secure" in secure.headers["set-cookie"].lower()
    assert "path=/;" in secure.headers["set-cookie"].lower()
    # What was set without TLS counts for nothing with it.
    value = response.headers["set-cookie"].partition(";")[0]
    assert run(sessions.client_of(request(value, scheme="https"))) is None


def test_another_login_in_one_browser_ends_the_first(sessions):
    first = begin(sessions, ALICE)
    second = begin(sessions, BOB, before=first)
    assert first != second
    assert run(sessions.client_of(request(first))) is None
    assert run(sessions.client_of(request(second))) is BOB


def test_a_session_ends(sessions, store):
    first, second = begin(sessions, ALICE), begin(sessions, ALICE)
    response = Response()
    run(sessions.end(request(first), response))
    assert "max-age=0" in response.headers["set-cookie"].lower()
    assert run(sessions.client_of(request(first))) is None
    assert run(sessions.client_of(request(second))) is ALICE
    run(store.execute(update(tables.session).values(expires=0)))
    assert run(sessions.client_of(request(second))) is None
    run(sessions.end(request(), Response()))


def test_who_is_no_client_any_more_has_no_session(sessions, store):
    cookie = begin(sessions, ALICE)
    without = Sessions(store, Callers(store, {BOB.client_id: BOB}), Turns(Limits()))
    assert run(without.client_of(request(cookie))) is None


def test_a_form_is_of_one_session(sessions):
    alice, bob = request(begin(sessions, ALICE)), request(begin(sessions, BOB))
    assert sessions.is_csrf(alice, sessions.csrf(alice))
    assert not sessions.is_csrf(alice, sessions.csrf(bob))
    assert not sessions.is_csrf(alice, "")
    assert not sessions.is_csrf(alice, "ä")
    assert sessions.csrf(request()) == ""
    assert not sessions.is_csrf(request(), "")
    assert sessions.csrf(alice) not in alice.headers["cookie"]


def test_requests_of_a_session_are_counted(store):
    limited = Sessions(store, Callers(store, CLIENTS), Turns(Limits(requests_at_once=1)))
    cookie = begin(limited, ALICE)
    run(limited.client_of(request(cookie)))
    with pytest.raises(TooMany):
        run(limited.client_of(request(cookie)))


def test_a_session_knows_when_one_proved_who_one_is(sessions):
    response = Response()
    run(sessions.begin(request(), response, ALICE, authenticated_at=17.0))
    session = run(sessions.of(request(response.headers["set-cookie"].partition(";")[0])))
    assert (session.client, session.authenticated_at) == (ALICE, 17.0)
    assert module.LIFETIME == 12 * 3600
