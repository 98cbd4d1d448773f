"""All parts of the hub put together: `Hub` has the REST application and the loops beside it."""

from __future__ import annotations

import asyncio
import logging

from sqlalchemy.exc import DataError, SQLAlchemyError
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.routing import Route

from hub.amqp import topology
from hub.amqp.broker import Broker
from hub.amqp.passwords import Passwords
from hub.callers import Callers
from hub.commands import Commands
from hub.config import HubConfig
from hub.failed_starts import FailedStarts
from hub.heartbeats import Heartbeats
from hub.limits import LimitedRequests, Turns
from hub.login.grants import Grants
from hub.login.provider import Provider
from hub.login.signing import Signer
from hub.outcomes import Outcomes
from hub.page.routes import FIRST, PageRoutes
from hub.page.views import LoginLink
from hub.projects import Projects
from hub.registration import Registrar
from hub.routes import refused
from hub.routes.auth import AuthRoutes, People
from hub.routes.broker import BrokerRoutes
from hub.routes.endpoints import EndpointRoutes
from hub.routes.functions import FunctionRoutes
from hub.routes.login import LoginRoutes
from hub.routes.projects import ProjectRoutes
from hub.routes.tasks import TaskRoutes
from hub.sessions import Sessions
from hub.stopping import Stopper
from hub.store.store import Store
from hub.submission import Submitter
from hub.sweeper import Sweeper
from hub.tokens import Tokens
from hub.web import ApiError, Invalid, Json, error_response
from wire.connection import Connection
from wire.errors import BrokerError

log = logging.getLogger(__name__)

API_VERSION = "1.0.0"
MIN_VERSION = "3.0.0"
"""The oldest client and endpoint packages that know the calls of this service."""


class Hub:
    """`app` is the REST application; `run` is everything beside it."""

    def __init__(self, config: HubConfig, store: Store) -> None:
        self._broker = Broker(config.broker.url)
        turns = Turns(config.limits)
        callers = Callers(store, config.clients, config.login.linked if config.login else None)
        tokens = Tokens(store, callers, turns)
        passwords = Passwords(store)
        commands = Commands(store, self._broker, passwords, config.broker, callers)
        self._outcomes = Outcomes(store, self._broker)
        submissions = store.lock
        failed_starts = FailedStarts(store, self._broker, self._outcomes, submissions)
        stopper = Stopper(store, self._broker, self._outcomes, submissions)
        self._heartbeats = Heartbeats(store, passwords, commands, failed_starts, self._broker)
        self._sweeper = Sweeper(store, passwords, self._outcomes)
        registrar = Registrar(store, self._broker, passwords, config.broker, self._outcomes, config.limits)
        projects = Projects(store)
        submitter = Submitter(store, self._broker, commands, config.limits, submissions)
        sessions = Sessions(store, callers, turns)
        login = LoginLink(config.login.name, f"/login?then={FIRST}") if config.login else None
        self.app = LimitedRequests(
            Starlette(
                routes=[
                    Route("/v2/version", version, methods=["GET"]),
                    *_auth(config, store, tokens, callers, sessions),
                    *PageRoutes(store, sessions, callers, tokens, stopper, login).routes(),
                    *ProjectRoutes(tokens, projects).routes(),
                    *FunctionRoutes(store, tokens, config.limits).routes(),
                    *EndpointRoutes(store, tokens, projects, registrar, submitter, stopper).routes(),
                    *TaskRoutes(store, tokens, self._broker, passwords, config.broker).routes(),
                    *BrokerRoutes(passwords, config.broker.vhost, config.questions).routes(),
                    *refused.routes(),
                ],
                exception_handlers={
                    ApiError: error_response,
                    BrokerError: _broker_unavailable,
                    UnicodeEncodeError: _no_text,
                    DataError: _no_text,
                    SQLAlchemyError: _database_unavailable,
                    ClientDisconnect: _gone,
                    404: _no_such_call,
                },
            ),
            turns,
        )

    async def run(self, first: Connection) -> None:
        """Serves the queues, and never returns. `first` is an open connection to the broker."""
        handlers = {topology.RESULTS: self._outcomes.on_results, topology.HEARTBEATS: self._heartbeats.on_reports}
        await asyncio.gather(
            self._broker.run(first, handlers, self._outcomes.forward_remaining),
            self._outcomes.run(),
            self._sweeper.run(),
        )

    async def connected(self) -> None:
        """Returns once `run` has made what is to be in the broker, and submissions can be taken."""
        await self._broker.connected.wait()


def _auth(config: HubConfig, store: Store, tokens: Tokens, callers: Callers, sessions: Sessions) -> list[Route]:
    """Lists the calls about tokens, and those by which people log in, where they can."""
    if config.login is None:
        return AuthRoutes(tokens, callers).routes()
    grants = Grants(store, callers, config.login.max_age)
    people = People(config.login, grants, Signer(store, config.login.url))
    pages = LoginRoutes(config.login, Provider(config.login), callers, sessions, grants)
    return [*AuthRoutes(tokens, callers, people).routes(), *pages.routes()]


async def version(request: Request) -> Json:
    """Answers `GET /v2/version`; needs no token, so that it also tells whether the hub is up."""
    return Json({"api": API_VERSION, "min_ep_version": MIN_VERSION, "min_sdk_version": MIN_VERSION})


def _broker_unavailable(request: Request, error: Exception) -> Json:
    log.warning("A request could not be served: %s", error)  # who asks is not told where our broker is
    text = "The service cannot reach its message broker now; try again later"
    return error_response(request, ApiError(503, "BROKER_UNAVAILABLE", text))


def _database_unavailable(request: Request, error: Exception) -> Json:
    log.error("A request could not be served: %s", error)  # who asks is not told where our database is
    text = "The service cannot use its database now; try again later"
    return error_response(request, ApiError(503, "DATABASE_UNAVAILABLE", text))


def _no_text(request: Request, error: Exception) -> Json:
    text = "The request has a NUL character, or half of a surrogate pair, where a text belongs"
    return error_response(request, Invalid(text))


def _gone(request: Request, error: Exception) -> Json:
    return error_response(request, Invalid("The body has not come to its end"))


def _no_such_call(request: Request, error: Exception) -> Json:
    return error_response(request, ApiError(404, "NOT_FOUND", f"There is no {request.method} {request.url.path} here"))
