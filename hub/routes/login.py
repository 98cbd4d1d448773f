"""Logging in with a browser: to the site's provider and back, the consent page, and logging out."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from hub.callers import Callers, NameTaken
from hub.login import apps, attempt, claims
from hub.login.apps import Asked, NotUnderstood
from hub.login.grants import CODE_LIFETIME, Grants
from hub.login.pages import page, told
from hub.login.provider import NotProven, Provider, ProviderDown
from hub.login.settings import LoginConfig
from hub.scopes import AUTH, COMPUTE
from hub.sessions import Session, Sessions, cookie_name, drop_cookie, set_cookie
from hub.web import LONGEST_LOGGED, ApiError, form
from wire.printable import printable

log = logging.getLogger(__name__)

_ATTEMPT = "login"
_WANTS = {
    COMPUTE: "run functions on the endpoints that you may use, and manage your functions, tasks and endpoints",
    AUTH: "see who you are: user names, e-mail address, organization",
}

_Handler = Callable[[Request], Awaitable[Response]]


class LoginRoutes:
    """Pages for browsers."""

    def __init__(
        self, config: LoginConfig, provider: Provider, callers: Callers, sessions: Sessions, grants: Grants
    ) -> None:
        self._config = config
        self._provider = provider
        self._callers = callers
        self._sessions = sessions
        self._grants = grants

    def routes(self) -> list[Route]:
        """Lists the calls."""
        return [
            Route("/login", self._page(self.login), methods=["GET"]),
            Route("/login/return", self._page(self.returned), methods=["GET"]),
            Route("/logout", self._page(self.ask_logout), methods=["GET"]),
            Route("/logout", self._page(self.logout), methods=["POST"]),
            Route("/v2/oauth2/authorize", self._page(self.ask), methods=["GET"]),
            Route("/v2/oauth2/authorize", self._page(self.answered), methods=["POST"]),
        ]

    async def login(self, request: Request) -> Response:
        """Sends the browser to the provider, and afterwards to `then`."""
        asked = request.query_params
        return await self._begin(request, asked.get("then", "/"), again="again" in asked)

    async def returned(self, request: Request) -> Response:
        """Begins the session of who comes back from the provider."""
        begun = attempt.of_cookie(request.cookies.get(cookie_name(request, _ATTEMPT), ""))
        if begun is None:
            raise NotProven("the browser has not begun a login here, or too long ago")
        logged_in = await self._provider.logged_in(begun, request.query_params)
        identities = claims.identities(self._config, logged_in.claims, logged_in.authenticated_at)
        client = await self._callers.welcome(identities)
        log.info("Logged in: %s, identity %s", client.identity.username, client.identity.id)
        response = RedirectResponse(begun.then, 303, {"Cache-Control": "no-store"})
        await self._sessions.begin(request, response, client, logged_in.authenticated_at)
        drop_cookie(request, response, _ATTEMPT)
        return response

    async def ask(self, request: Request) -> Response:
        """Shows who asks for what; who is not logged in yet does so first."""
        query = dict(request.query_params)
        asked = apps.decode(self._config, query)
        session = await self._sessions.of(request)
        again = "login" in query.pop("prompt", "").split()
        is_old = session is not None and session.authenticated_at + self._config.max_age < time.time()
        here = f"{request.url.path}?{urlencode(query)}"
        if len(here) > attempt.LONGEST:
            raise NotUnderstood("The program that has sent you here asks for too much at once.")
        if session is None or is_old or again:
            return await self._begin(request, here, again=again)
        return self._consent(request, session, asked, query, here)

    async def answered(self, request: Request) -> Response:
        """Shows the code to who has agreed."""
        asked_form = await form(request)
        asked = apps.decode(self._config, asked_form)
        session = await self._session(request, asked_form)
        if asked_form.get("answer") != "yes":
            return told("Nothing was given away", "Close this page, and end the program that has sent you here.")
        code = await self._grants.agree(session.client, asked, session.authenticated_at)
        log.info("%s lets %s act for them", session.client.identity.username, asked.app_name)
        return page("code", code=code, minutes=CODE_LIFETIME // 60)

    async def ask_logout(self, request: Request) -> Response:
        """Asks whether to log out, and where."""
        session = await self._sessions.of(request)
        if session is None:
            return self._logged_out()
        return page("logout", who=session.client.identity, csrf=self._sessions.csrf(request))

    async def logout(self, request: Request) -> Response:
        """Ends the session, or everything that has come of any login of this person."""
        asked = await form(request)
        session = await self._session(request, asked)
        if "everywhere" in asked:
            await self._grants.end_all(session.client)
        response = self._logged_out()
        await self._sessions.end(request, response)
        return response

    async def _begin(self, request: Request, then: str, *, again: bool) -> Response:
        begun = attempt.begin(then)
        response = RedirectResponse(
            await self._provider.login_url(begun, again=again), 303, {"Cache-Control": "no-store"}
        )
        set_cookie(request, response, _ATTEMPT, begun.cookie(), attempt.LIFETIME)
        return response

    def _consent(self, request: Request, session: Session, asked: Asked, query: dict[str, str], here: str) -> Response:
        who, *others = session.client.identities
        fields = {key: query[key] for key in apps.FIELDS if key in query}
        return page(
            "consent",
            asked=asked,
            who=who,
            others=[each.username for each in others],
            wants=[_WANTS.get(server, f"call {server}, if this site has that") for server in asked.scopes],
            fields={**fields, "csrf": self._sessions.csrf(request)},
            as_another=f"/login?again=1&then={quote(here, safe='')}",
        )

    async def _session(self, request: Request, asked: dict[str, str]) -> Session:
        session = await self._sessions.of(request)
        if session is None or not self._sessions.is_csrf(request, asked.get("csrf", "")):
            raise NotUnderstood("This page is too old, or not of your session. Go back, load it again, and try again.")
        return session

    def _logged_out(self) -> Response:
        return told("Logged out", f"At {self._config.name} you may still be logged in.", link=("/login", "Log in"))

    def _page(self, handler: _Handler) -> _Handler:
        """Wraps a handler so that what goes wrong is a page, too."""

        async def handled(request: Request) -> Response:
            begin_again = ("/login", "Log in")
            try:
                return await handler(request)
            except NotUnderstood as e:
                return told("This does not work", str(e), 400)
            except claims.NotAllowed as e:
                log.warning("A login was refused: %s", printable(str(e), LONGEST_LOGGED))
                return told("You cannot log in here", f"{e}. Ask the admins of this site.", 403)
            except NameTaken as e:
                log.warning("A login was refused, the name is taken: %s", printable(str(e), LONGEST_LOGGED))
                text = "Your username is somebody else's here. Ask the admins of this site."
                return told("You cannot log in here", text, 403)
            except NotProven as e:
                log.warning("A login was refused: %s", printable(str(e), LONGEST_LOGGED))
                text = "What came back does not prove who you are. Begin again, in one browser, and within ten minutes."
                return told("You are not logged in", text, 403, begin_again)
            except ProviderDown as e:
                log.warning("Nobody can log in: %s", printable(str(e), LONGEST_LOGGED))
                text = (
                    f"{self._config.name}, where people log in, does not answer. Try again later."
                    " Programs that are logged in already go on working."
                )
                return told("Logging in is not possible now", text, 503)
            except ApiError as e:
                return told("Not now" if e.status == 429 else "This does not work", str(e), e.status)

        return handled
