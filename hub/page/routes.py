"""The requests of the page: who asks, what is to be shown or done. HTML only, errors too."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from hub import endpoints
from hub.callers import Callers
from hub.clients import Client
from hub.page import snippet, timeline
from hub.page.queries import Queries
from hub.page.rendering import HEADERS, LONGEST_JSON, Pages, page
from hub.page.schema import bounded_json, form_of, read
from hub.page.views import EndpointView, LoginLink, Options, Visitor
from hub.sessions import Sessions
from hub.stopping import Stopper
from hub.store.store import Store
from hub.sweeper import KEEP
from hub.tokens import Tokens
from hub.web import ApiError, Forbidden, NotFound, form, path_id
from wire.errors import BrokerError
from wire.printable import printable

log = logging.getLogger(__name__)

HOME = "/page/"
FIRST = "/page/endpoints"
"""Where one is after signing in."""
_MOST_DIGITS = 7
_LONGEST_ID = 100

Show = Callable[[Request, Client, Visitor], Awaitable[Response]]


class PageRoutes:
    """Requests under `/page/`. login: where people log in with a provider; None when there is none."""

    def __init__(
        self,
        store: Store,
        sessions: Sessions,
        callers: Callers,
        tokens: Tokens,
        stopper: Stopper,
        login: LoginLink | None = None,
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._tokens = tokens
        self._stopper = stopper
        self._login = login
        self._pages = Pages()
        self._queries = Queries(store, callers)

    def routes(self) -> list[Route]:
        """Lists the requests."""
        return [
            Route("/", self._told(self.first), methods=["GET"]),
            Route("/page", self._told(self.first), methods=["GET"]),
            Route(HOME, self._told(self.home), methods=["GET"]),
            Route("/page/static/{name}", self._told(self.static), methods=["GET"]),
            Route("/page/sign-in", self._told(self.sign_in), methods=["POST"]),
            Route("/page/sign-out", self._signed_in(self.sign_out), methods=["POST"]),
            Route(FIRST, self._signed_in(self.endpoints), methods=["GET"]),
            Route("/page/endpoints/{id}", self._signed_in(self.endpoint), methods=["GET", "POST"]),
            Route("/page/endpoints/{id}/starts", self._signed_in(self.starts), methods=["GET"]),
            Route("/page/tasks", self._signed_in(self.tasks), methods=["GET"]),
            Route("/page/user-endpoints", self._signed_in(self.user_endpoints), methods=["GET"]),
            Route("/page/user-endpoints/{id}/stop", self._signed_in(self.stop), methods=["POST"]),
            Route("/page/{other:path}", self._told(self.other), methods=["GET"]),
        ]

    async def first(self, request: Request) -> Response:
        """Leads to the first page."""
        return _to(HOME)

    async def static(self, request: Request) -> Response:
        """Gives a style or a script."""
        return self._pages.static(request.path_params["name"]) or await self.other(request)

    async def other(self, request: Request) -> Response:
        """Answers whoever has mistyped an address."""
        raise ApiError(404, "NOT_FOUND", "There is no such page")

    async def home(self, request: Request) -> Response:
        """Asks for a client credential, or leads on whoever has given one."""
        if await self._sessions.client_of(request) is not None:
            return _to(FIRST)
        return self._sign_in_page()

    async def sign_in(self, request: Request) -> Response:
        """Begins a session for client id and secret."""
        _check_origin(request)
        typed = await form(request)
        client_id = typed.get("client_id", "").strip()
        try:
            client = await self._tokens.client_with_secret(request, client_id, typed.get("client_secret", "").strip())
        except ApiError as e:
            return self._sign_in_page(f"{e}.", client_id[:_LONGEST_ID], e.status)
        answer = _to(FIRST)
        await self._sessions.begin(request, answer, client)
        return answer

    async def sign_out(self, request: Request, client: Client, visitor: Visitor) -> Response:
        """Ends the session."""
        answer = _to(HOME)
        await self._sessions.end(request, answer)
        return answer

    async def endpoints(self, request: Request, client: Client, visitor: Visitor) -> Response:
        """Lists the endpoints that the visitor may use."""
        listed, part = await self._queries.endpoints(client, _from(request))
        return self._pages.answer("endpoints", visitor, here="endpoints", endpoints=listed, page=part)

    async def endpoint(self, request: Request, client: Client, visitor: Visitor) -> Response:
        """Shows an endpoint and what it takes; with what was typed, the program to paste."""
        typed = await form(request) if request.method == "POST" else None
        view, metadata = await self._queries.endpoint(client, path_id(request, "endpoint"))
        # Off the loop: a schema may be large.
        return page(await asyncio.to_thread(self._endpoint_page, view, metadata, visitor, typed))

    async def starts(self, request: Request, client: Client, visitor: Visitor) -> Response:
        """Shows to those who run an endpoint when its user endpoints were started."""
        endpoint_id = path_id(request, "endpoint")
        manager = await endpoints.own_manager(self._store, endpoint_id, client)
        view, _ = await self._queries.endpoint(client, endpoint_id)
        owned, part = await self._queries.starts(manager, _from(request))
        now = time.time()
        drawn = [(each, timeline.picture(each.starts, now)) for each in owned]
        return self._pages.answer("starts", visitor, here="endpoints", endpoint=view, user_endpoints=drawn, page=part)

    async def tasks(self, request: Request, client: Client, visitor: Visitor) -> Response:
        """Lists the visitor's tasks and why they wait."""
        listed, part = await self._queries.tasks(client, _from(request))
        return self._pages.answer("tasks", visitor, here="tasks", tasks=listed, page=part, kept_days=KEEP // 86400)

    async def user_endpoints(self, request: Request, client: Client, visitor: Visitor) -> Response:
        """Lists the visitor's user endpoints."""
        listed, part = await self._queries.user_endpoints(client, _from(request))
        return self._pages.answer("user_endpoints", visitor, here="user-endpoints", user_endpoints=listed, page=part)

    async def stop(self, request: Request, client: Client, visitor: Visitor) -> Response:
        """Stops a user endpoint of the visitor's."""
        await self._stopper.stop(client, path_id(request, "user endpoint"))
        return _to("/page/user-endpoints")

    def _endpoint_page(
        self, view: EndpointView, metadata: Mapping[str, Any], visitor: Visitor, typed: Mapping[str, str] | None
    ) -> str:
        options = _options(view.id, metadata, typed)
        return self._pages.html("endpoint", visitor, here="endpoints", endpoint=view, options=options)

    def _sign_in_page(self, error: str = "", client_id: str = "", status: int = 200) -> Response:
        return self._pages.answer("sign_in", None, status, error=error, client_id=client_id, login=self._login)

    def _signed_in(self, show: Show) -> Callable[[Request], Awaitable[Response]]:
        """Makes a request for visitors only; others are led to where one signs in."""

        async def answer(request: Request) -> Response:
            client = await self._sessions.client_of(request)
            if client is None:
                return _to(HOME)
            request.state.visitor = visitor = Visitor(client.identity.username, self._sessions.csrf(request))
            if request.method == "POST":
                _check_origin(request)
                if not self._sessions.is_csrf(request, (await form(request)).get("csrf", "")):
                    raise Forbidden("This form is from an earlier session; go back, load the page again, and repeat it")
            return await show(request, client, visitor)

        return self._told(answer)

    def _told(self, answer: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        """Tells errors as a page."""

        async def told(request: Request) -> Response:
            try:
                return await answer(request)
            except ApiError as e:
                return self._error(request, e)
            except BrokerError as e:
                log.warning("A request could not be served: %s", e)  # who asks is not told where our broker is
                text = "The service cannot reach its message broker now; try again later"
                return self._error(request, ApiError(503, "BROKER_UNAVAILABLE", text))

        return told

    def _error(self, request: Request, error: ApiError) -> Response:
        path, text = printable(request.url.path, _LONGEST_ID), printable(str(error), _LONGEST_ID)
        log.info("%s %s: %d %s", request.method, path, error.status, text)
        title = "Not found" if isinstance(error, NotFound) or error.status == 404 else "That did not work"
        answer = self._pages.answer(
            "error", getattr(request.state, "visitor", None), error.status, title=title, text=str(error)
        )
        if error.status in (429, 503):
            answer.headers["Retry-After"] = "2"
        return answer


def _options(endpoint_id: str, metadata: Mapping[str, Any], typed: Mapping[str, str] | None) -> Options:
    schema, template = metadata.get("user_config_schema"), metadata.get("user_config_template")
    shape = form_of(schema)
    digest = hashlib.sha256(json.dumps(schema).encode()).hexdigest()[:16]
    shown = Options(
        shape,
        digest,
        None if schema is None else bounded_json(schema, LONGEST_JSON),
        template[: 2 * LONGEST_JSON] if isinstance(template, str) else None,
    )
    if typed is None:
        return shown
    answer = read(shape, typed)
    changed = typed.get("digest") != digest
    made = None if changed or answer.errors else answer.options
    return replace(
        shown,
        typed=typed,
        errors=answer.errors,
        changed=changed,
        python=None if made is None else snippet.python(endpoint_id, made),
        json=None if made is None else snippet.as_json(made),
    )


def _check_origin(request: Request) -> None:
    """Refuses what a browser says that another site has sent.

    Raises:
        Forbidden: it was.
    """
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise Forbidden("Another site has sent this request")


def _from(request: Request) -> int:
    text = request.query_params.get("from", "0")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS else 0


def _to(path: str) -> Response:
    return RedirectResponse(path, 303, HEADERS)
