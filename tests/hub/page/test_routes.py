"""The requests of the page, without scripts and without a network: sessions, tokens, limits, and whose is what."""

from __future__ import annotations

import json
import re
import time
from urllib.parse import urlencode

import pytest
from sqlalchemy import insert, update
from starlette.applications import Starlette

from hub.amqp import topology
from hub.callers import Callers
from hub.guesses import MOST_OF_ONE_SOURCE
from hub.limits import LimitedRequests, Limits, Turns
from hub.outcomes import Outcomes
from hub.page.queries import MOST_STARTS, SIZE
from hub.page.rendering import HEADERS
from hub.page.routes import PageRoutes
from hub.page.views import LoginLink
from hub.sessions import Sessions
from hub.shared_lock import SharedLock
from hub.stopping import STOPPED, Stopper
from hub.store import tables
from hub.tokens import Tokens
from hub.web import ApiError, error_response
from tests.hub.units import (
    ADMIN,
    ALICE,
    BOB,
    CLIENTS,
    StubBroker,
    add_manager,
    add_start,
    add_task,
    add_user_endpoint,
    ask,
    new_id,
    run,
)
from wire import messages
from wire.messages import ErrorDetails, Result
from wire.stop_request import KNOWS

NAMES = {ALICE.client_id: "alice", BOB.client_id: "bob", ADMIN.client_id: "admin"}


class Visit:
    """What a browser without scripts does: keeps cookies, and sends the forms that it was shown."""

    def __init__(self, app):
        self.app = app
        self.cookies: dict[str, str] = {}
        self.text = ""

    async def get(self, path):
        return self._keep(await ask(self.app, "GET", path, headers=self.headers()))

    async def post(self, path, *, site="same-origin", token=None, **fields):
        token = self.token if token is None else token
        body = urlencode({**fields, "csrf": token}).encode()
        return self._keep(await ask(self.app, "POST", path, body, self.headers(site)))

    async def sign_in(self, client, secret=None):
        secret = f"secret of {NAMES[client.client_id]}" if secret is None else secret
        return await self.post("/page/sign-in", client_id=client.client_id, client_secret=secret)

    @property
    def token(self):
        found = re.search('name="csrf" value="([^"]*)"', self.text)
        return found[1] if found else ""

    def headers(self, site="same-origin"):
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        return {"cookie": cookies, "sec-fetch-site": site, "host": "localhost:5000"}

    def _keep(self, answer):
        if "set-cookie" in answer.headers:
            name, _, value = answer.headers["set-cookie"].partition(";")[0].partition("=")
            self.cookies[name] = value
        self.text = answer.body.decode() or self.text
        return answer


@pytest.fixture
def broker():
    return StubBroker()


@pytest.fixture
def limits():
    return Limits()


@pytest.fixture
def login():
    return None


@pytest.fixture
def visit(store, broker, limits, login):
    turns = Turns(limits)
    stopper = Stopper(store, broker, Outcomes(store, broker), SharedLock())
    callers = Callers(store, CLIENTS)
    tokens = Tokens(store, callers, turns)
    pages = PageRoutes(store, Sessions(store, callers, turns), callers, tokens, stopper, login)
    app = Starlette(routes=pages.routes(), exception_handlers={ApiError: error_response})
    return lambda: Visit(LimitedRequests(app, turns))


async def signed_in(visit, client):
    visitor = visit()
    assert (await visitor.sign_in(client)).status == 303
    await visitor.get("/page/endpoints")
    return visitor


PRIVATE = ("/page/endpoints", "/page/tasks", "/page/user-endpoints", f"/page/endpoints/{new_id()}")


def test_nobody_sees_anything_before_signing_in(visit):
    async def play():
        visitor = visit()
        for path in ("/", "/page", *PRIVATE):
            answer = await visitor.get(path)
            assert (answer.status, answer.headers["location"]) == (303, "/page/"), path
        assert (await visitor.post(f"/page/user-endpoints/{new_id()}/stop")).headers["location"] == "/page/"
        answer = await visitor.get("/page/")
        assert answer.status == 200 and b"Client secret" in answer.body

    run(play())


@pytest.mark.parametrize("login", [None, LoginLink("Our Institute", "/login?then=/page/endpoints")])
def test_where_people_log_in_with_a_provider_is_shown_if_there_is_one(visit, login):
    async def play():
        visitor = visit()
        await visitor.get("/page/")
        assert visitor.text.count('href="/login?then=/page/endpoints">Sign in with Our Institute') == (
            login is not None
        )

    run(play())


def test_a_wrong_secret_begins_nothing(visit):
    async def play():
        for client_id, secret in ((ALICE.client_id, "x"), (new_id(), "secret of alice"), ("", ""), ("\ud83d" * 9, "")):
            visitor = visit()
            answer = await visitor.post(
                "/page/sign-in", client_id=client_id.encode("utf-8", "replace"), client_secret=secret
            )
            assert answer.status == 401 and b"not known here" in answer.body
            assert not visitor.cookies
        visitor = visit()
        assert (await visitor.sign_in(ALICE, secret="secret of bob")).status == 401

    run(play())


def test_who_guesses_secrets_is_told_to_come_again(visit):
    async def play():
        visitor = visit()
        statuses = [(await visitor.sign_in(ALICE, secret=f"guess {n}")).status for n in range(MOST_OF_ONE_SOURCE + 1)]
        assert statuses == [401] * MOST_OF_ONE_SOURCE + [429]
        assert (await visitor.sign_in(ALICE)).status == 429 and "try again in a minute" in visitor.text

    run(play())


def test_a_session_from_its_begin_to_its_end(visit):
    async def play():
        visitor = await signed_in(visit, ALICE)
        assert "alice@example.org" in visitor.text
        assert (await visitor.get("/page/")).headers["location"] == "/page/endpoints"
        await visitor.get("/page/endpoints")
        kept = dict(visitor.cookies)
        assert (await visitor.post("/page/sign-out")).status == 303
        visitor.cookies = kept
        assert (await visitor.get("/page/tasks")).headers["location"] == "/page/"

    run(play())


def test_each_answer_forbids_what_it_does_not_need(visit):
    async def play():
        visitor = await signed_in(visit, ALICE)
        answers = [await visitor.get(path) for path in (*PRIVATE, "/page/", "/page/static/page.css?x")]
        answers += [await visitor.get(path) for path in ("/page/static/other", "/page/nothing/there")]
        assert [answer.status for answer in answers] == [200, 200, 200, 404, 303, 200, 404, 404]
        for answer in answers:
            for name in ("Content-Security-Policy", "X-Content-Type-Options", "Referrer-Policy"):
                assert answer.headers[name.lower()] == HEADERS[name]
        assert {a.headers["cache-control"] for a in answers} == {"no-store", "public, max-age=86400"}

    run(play())


def test_another_site_cannot_send_a_form(store, visit):
    async def play():
        manager = await add_manager(store)
        user_endpoint = await add_user_endpoint(store, manager)
        await add_task(store, user_endpoint)
        visitor = await signed_in(visit, ALICE)
        stop = f"/page/user-endpoints/{user_endpoint}/stop"
        other = await signed_in(visit, ALICE)
        assert (await visitor.post(stop, token="")).status == 403
        assert (await visitor.post(stop, token="x" * 43)).status == 403
        await visitor.get("/page/endpoints")
        assert (await visitor.post(stop, token=other.token)).status == 403, "the token of another session"
        await visitor.get("/page/endpoints")
        assert (await visitor.post(stop, site="cross-site")).status == 403
        assert (await visit().post("/page/sign-in", site="cross-site", client_id=ALICE.client_id)).status == 403
        await visitor.get("/page/tasks")
        assert "Waiting" in visitor.text
        assert (await visitor.get(stop)).status == 404

    run(play())


def test_endpoints_are_those_that_rest_lists(store, visit):
    async def play():
        public = await add_manager(store, ADMIN)
        private = await add_manager(store, ADMIN, public=False)
        helped = await add_manager(store, ADMIN, public=False, admins=[ALICE.identity.id])
        single = await add_manager(store, BOB, public=False, multi_user=False)
        visitor = await signed_in(visit, ALICE)
        shown = set(re.findall(r'href="/page/endpoints/([0-9a-f-]{36})"', visitor.text))
        assert shown == {public, helped}
        assert (await visitor.get(f"/page/endpoints/{private}")).status == 200, "who knows its id may use it"
        assert (await visitor.get(f"/page/endpoints/{single}")).status == 403
        assert (await visitor.get(f"/page/endpoints/{private}/starts")).status == 403
        assert (await visitor.get(f"/page/endpoints/{helped}/starts")).status == 200

    run(play())


def test_lists_come_in_parts(store, visit):
    async def play():
        for number in range(SIZE + 2):
            await add_manager(store, ADMIN, endpoint_name=f"number {number:02}")
        visitor = await signed_in(visit, ALICE)
        assert "number 00" in visitor.text and "number 26" not in visitor.text and 'rel="prev"' not in visitor.text
        (following,) = re.findall(r'rel="next" href="([^"]*)"', visitor.text)
        await visitor.get(f"/page/endpoints{following}")
        assert "number 26" in visitor.text and "number 00" not in visitor.text and 'rel="next"' not in visitor.text
        for odd in ("x", "-1", "9" * 50, "%D9%A1", "99999"):
            assert (await visitor.get(f"/page/endpoints?from={odd}")).status == 200

    run(play())


def test_a_program_is_made_of_what_fits(store, visit):
    async def play():
        metadata = {"user_config_schema": {"properties": {"workers": {"type": "integer", "maximum": 4}}}}
        manager = await add_manager(store, metadata=metadata)
        visitor = await signed_in(visit, ALICE)
        path = f"/page/endpoints/{manager}"
        await visitor.get(path)
        (digest,) = re.findall('name="digest" value="([^"]*)"', visitor.text)
        await visitor.post(path, digest=digest, f0="3", rest='{"more": "x"}')
        assert "&#34;workers&#34;: 3" in visitor.text and manager in visitor.text
        await visitor.post(path, digest=digest, f0="5")
        assert "Expected 4 or less." in visitor.text and "Executor" not in visitor.text
        await visitor.post(path, digest="0" * 16, f0="3")
        assert "has changed what it takes" in visitor.text and "Executor" not in visitor.text
        await visitor.post(path, digest=digest)
        assert "Executor" in visitor.text and "user_endpoint_config" not in visitor.text.split("</code>")[0]

    run(play())


def test_an_endpoint_that_said_nothing_of_itself_has_a_page(store, visit):
    async def play():
        for metadata in ({}, {"user_config_schema": 1, "user_config_template": [], "hostname": {}}):
            manager = await add_manager(store, metadata=metadata)
            visitor = await signed_in(visit, ALICE)
            assert (await visitor.get(f"/page/endpoints/{manager}")).status == 200

    run(play())


async def end(store, task, result):
    row = update(tables.task).where(tables.task.c.id == task)
    await store.execute(row.values(ended_at=time.time(), result=messages.pack(result)))


def test_tasks_are_ones_own_and_say_what_came_of_them(store, visit):
    async def play():
        manager = await add_manager(store, display_name="The Cluster")
        mine, theirs = await add_user_endpoint(store, manager), await add_user_endpoint(store, manager, BOB)
        waits, fails, works, large = [(await add_task(store, mine))[0] for _ in range(4)]
        hers, _ = await add_task(store, theirs, BOB)
        await end(store, fails, Result(fails, "Traceback\nValueError: no", error_details=ErrorDetails("c", "m")))
        await end(store, works, Result(works, "x"))
        await end(store, large, Result(large, "x" * 300_000))
        await store.execute(
            insert(tables.function).values(
                id="f",
                owner="",
                public=True,
                code="",
                record=json.dumps({"function_name": "simulate", "meta": "x" * 9000}),
            )
        )
        await store.execute(update(tables.task).where(tables.task.c.id == waits).values(function="f"))
        visitor = await signed_in(visit, ALICE)
        await visitor.get("/page/tasks")
        text = visitor.text
        assert all(task in text for task in (waits, fails, works, large)) and hers not in text
        assert "simulate" in text and "The Cluster" in text and "Traceback\nValueError: no" in text
        assert [text.count(f">{word}</span>") for word in ("Waiting", "Failed", "Done", "Ended")] == [1, 1, 1, 1]
        await store.execute(update(tables.task).values(user_endpoint="gone"))
        await visitor.get("/page/tasks")
        assert "an endpoint that was deleted" in visitor.text

    run(play())


async def seen(store, user_endpoint, report, period=30.0):
    row = update(tables.user_endpoint).where(tables.user_endpoint.c.id == user_endpoint)
    now = time.time()
    await store.execute(
        row.values(heartbeat_at=now, heartbeat_period=period, commanded_at=now - 9, report=json.dumps(report))
    )


@pytest.mark.parametrize("knows", [True, False])
def test_stopping_ends_the_tasks_and_asks_who_knows_how(store, broker, visit, knows):
    async def play():
        user_endpoint = await add_user_endpoint(store, await add_manager(store))
        task, _ = await add_task(store, user_endpoint)
        await seen(store, user_endpoint, {KNOWS: knows})
        visitor = await signed_in(visit, ALICE)
        await visitor.get("/page/user-endpoints")
        assert "Running" in visitor.text and "1 task waits" in visitor.text
        path = f"/page/user-endpoints/{user_endpoint}/stop"
        assert (await visitor.post(path)).headers["location"] == "/page/user-endpoints"
        row = await store.one(tables.task.select().where(tables.task.c.id == task))
        assert messages.unpack(row.result).error_details.code == STOPPED
        queue = topology.task_queue(user_endpoint)
        assert ("purge", queue) in broker.calls
        assert broker.sent_to(queue) == ([b""] if knows else [])
        await visitor.get("/page/user-endpoints")
        assert "Asked to stop" in visitor.text and path not in visitor.text
        then = update(tables.user_endpoint).values(commanded_at=time.time() + 1)
        await store.execute(then)
        await visitor.get("/page/user-endpoints")
        assert "Running" in visitor.text and path in visitor.text, "she has submitted again"

    run(play())


def test_one_stops_ones_own_only(store, broker, visit):
    async def play():
        user_endpoint = await add_user_endpoint(store, await add_manager(store))
        await add_task(store, user_endpoint)
        for client in (BOB, ADMIN):
            visitor = await signed_in(visit, client)
            for which in (user_endpoint, new_id(), "x"):
                assert (await visitor.post(f"/page/user-endpoints/{which}/stop")).status == 404
                await visitor.get("/page/user-endpoints")
                assert user_endpoint not in visitor.text
        assert broker.calls == []

    run(play())


def test_without_a_broker_a_stop_is_to_be_tried_again(store, broker, visit):
    async def play():
        user_endpoint = await add_user_endpoint(store, await add_manager(store))
        await seen(store, user_endpoint, {})
        visitor = await signed_in(visit, ALICE)
        broker.lose()
        answer = await visitor.post(f"/page/user-endpoints/{user_endpoint}/stop")
        assert answer.status == 503 and answer.headers["retry-after"] and b"message broker" in answer.body
        await visitor.get("/page/user-endpoints")
        assert "Asked to stop" not in visitor.text

    run(play())


def test_owners_see_starts_the_newest_first(store, visit):
    async def play():
        manager = await add_manager(store)
        user_endpoint = await add_user_endpoint(store, manager)
        for number in range(MOST_STARTS + 5):
            await add_start(store, user_endpoint, 1000.0 + number, 1001.0 + number)
        visitor = await signed_in(visit, ADMIN)
        await visitor.get(f"/page/endpoints/{manager}/starts")
        assert ALICE.identity.username in visitor.text
        times = re.findall(r'data-label="Commanded">([^<]*)<', visitor.text)
        assert len(times) == MOST_STARTS and times == sorted(times, reverse=True)

    run(play())


@pytest.mark.parametrize("limits", [Limits(requests_per_minute=20)])
def test_the_hubs_limits_hold_for_the_page(visit, limits):
    async def play():
        visitor = await signed_in(visit, ALICE)
        statuses = [(await visitor.get("/page/tasks")).status for _ in range(25)]
        assert statuses[0] == 200 and statuses[-1] == 429
        assert "more than 20 requests in a minute" in visitor.text
        answer = await (await signed_in(visit, BOB)).get("/page/tasks")
        assert answer.status == 200

    run(play())


def test_a_form_that_is_too_large_is_refused(visit):
    async def play():
        visitor = await signed_in(visit, ALICE)
        answer = await visitor.post(f"/page/endpoints/{new_id()}", rest="x" * 70_000)
        assert answer.status == 413 and b"larger than" in answer.body

    run(play())


@pytest.mark.parametrize(
    "body",
    [b"", b"%00=%ff", b"a=1&" * 5000, b"csrf=%ed%a0%80", b"\xff" * 100, b"client_id=%00&client_secret=%ed%a0%80"],
)
def test_odd_forms_are_refused_as_a_page(visit, body):
    async def play():
        visitor = await signed_in(visit, ALICE)
        for path in ("sign-in", "sign-out", f"endpoints/{new_id()}", f"user-endpoints/{new_id()}/stop"):
            for headers in ({}, visitor.headers()):
                answer = await ask(visitor.app, "POST", f"/page/{path}", body, headers)
                assert answer.status in (303, 401, 403, 422) and "text/html" in answer.headers.get(
                    "content-type", "text/html"
                )

    run(play())
