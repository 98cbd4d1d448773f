"""Endpoints by REST: registration, status, administration, and the hub's own timeline for benchmarks."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from sqlalchemy import Row, select
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from hub import batches, endpoints, registration
from hub.clients import Client
from hub.endpoints import Manager
from hub.projects import Projects
from hub.registration import Registrar
from hub.stopping import Stopper
from hub.store import tables
from hub.store.store import Store
from hub.submission import Submitter, decode
from hub.tokens import Tokens
from hub.web import Forbidden, Json, json_list, json_object, path_id

PART = 50
"""User endpoints that are read together, each with its options and its starts."""


class EndpointRoutes:
    """Calls under `/v2/endpoints`, `/v3/endpoints` and `/hub/v1/endpoints`."""

    def __init__(
        self,
        store: Store,
        tokens: Tokens,
        projects: Projects,
        registrar: Registrar,
        submitter: Submitter,
        stopper: Stopper,
    ) -> None:
        self._store = store
        self._tokens = tokens
        self._projects = projects
        self._registrar = registrar
        self._submitter = submitter
        self._stopper = stopper

    def routes(self) -> list[Route]:
        """Lists the calls."""
        return [
            Route("/v2/endpoints", self.list_endpoints, methods=["GET"]),
            Route("/v2/endpoints", self.register, methods=["POST"]),
            Route("/v3/endpoints", self.register, methods=["POST"]),
            Route("/v3/endpoints/{id}", self.register_again, methods=["PUT"]),
            Route("/v2/endpoints/{id}", self.show, methods=["GET"]),
            Route("/v2/endpoints/{id}", self.delete, methods=["DELETE"]),
            Route("/v2/endpoints/{id}/status", self.status, methods=["GET"]),
            Route("/v2/endpoints/{id}/lock", self.lock, methods=["POST"]),
            Route("/v3/endpoints/{id}/lock", self.lock, methods=["POST"]),
            Route("/v3/endpoints/{id}/allowed_functions", self.allowed_functions, methods=["GET"]),
            Route("/v3/endpoints/{id}/submit", self.submit, methods=["POST"]),
            Route("/v2/submit", self.submit_batch, methods=["POST"]),
            Route("/hub/v1/endpoints/{id}/timeline", self.timeline, methods=["GET"]),
        ]

    async def register(self, request: Request) -> Json:
        """Registers a new endpoint."""
        caller = await self._tokens.caller(request)
        record = registration.decode(await json_object(request))
        await self._projects.check_own(caller, None, record["authentication_policy"])
        return Json(await self._registrar.register(caller, None, record))

    async def register_again(self, request: Request) -> Json:
        """Registers an endpoint that has an id already."""
        caller = await self._tokens.caller(request)
        manager = await endpoints.own_manager(self._store, path_id(request, "endpoint"), caller)
        record = registration.decode(await json_object(request))
        await self._projects.check_own(caller, manager, record["authentication_policy"])
        return Json(await self._registrar.register(caller, manager, record))

    async def list_endpoints(self, request: Request) -> StreamingResponse:
        """Lists the caller's endpoints, or with `role=any` the public ones as well."""
        caller = await self._tokens.caller(request)
        every = request.query_params.get("role") == "any"
        which = endpoints.listed_for(caller) if every else endpoints.run_by(caller)
        return json_list(endpoints.listed(self._store, which))

    async def show(self, request: Request) -> Json:
        """Shows what an endpoint registered with; its configuration only to those who run it."""
        caller = await self._tokens.caller(request)
        manager = await endpoints.open_manager(self._store, path_id(request, "endpoint"), caller)
        metadata = await endpoints.read_metadata(self._store, manager.id)
        if not manager.is_run_by(caller):
            metadata.pop("endpoint_config", None)
        return Json({**metadata, **endpoints.shown(manager), "metadata": metadata})

    async def delete(self, request: Request) -> Json:
        """Forgets an endpoint."""
        caller = await self._tokens.caller(request)
        manager = await endpoints.own_manager(self._store, path_id(request, "endpoint"), caller)
        await self._registrar.delete(manager)
        return Json({"endpoint_id": manager.id})

    async def status(self, request: Request) -> Json:
        """Tells online or offline, and the last status report; also of a user endpoint, to its user and its manager."""
        caller = await self._tokens.caller(request)
        endpoint_id = path_id(request, "endpoint")
        row = await self._user_endpoint(endpoint_id, caller)
        if row is not None:
            details = json.loads(row.report or "{}")
            return Json({"status": _word(endpoints.is_online(row)), "details": details})
        manager = await endpoints.open_manager(self._store, endpoint_id, caller)
        return Json({"status": _word(manager.online), "details": dict(manager.report)})

    async def lock(self, request: Request) -> Json:
        """Cuts an endpoint off for a minute; stops a user endpoint of the caller's."""
        caller = await self._tokens.caller(request)
        endpoint_id = path_id(request, "endpoint")
        row = await self._user_endpoint(endpoint_id, caller)
        if row is not None and caller.is_one_of(row.identity):
            await self._stopper.stop(caller, endpoint_id)
            return Json({"endpoint_id": endpoint_id})
        manager = await endpoints.own_manager(self._store, endpoint_id, caller)
        await self._registrar.lock(manager)
        return Json({"endpoint_id": manager.id})

    async def allowed_functions(self, request: Request) -> Json:
        """Lists the only functions that an endpoint runs, if it is so restricted."""
        caller = await self._tokens.caller(request)
        manager = await endpoints.open_manager(self._store, path_id(request, "endpoint"), caller)
        allowed = manager.allowed_functions
        return Json(
            {"endpoint_id": manager.id, "restricted": allowed is not None, "functions": allowed or []},
        )

    async def submit(self, request: Request) -> Json:
        """Takes tasks."""
        caller = await self._tokens.caller(request)
        manager = await self._admitting(path_id(request, "endpoint"), caller)
        submission = decode(await json_object(request))
        return Json(await self._submitter.submit(caller, manager, submission))

    async def submit_batch(self, request: Request) -> Json:
        """Takes tasks in the form of older clients."""
        caller = await self._tokens.caller(request)
        endpoint_id, functions, submission = batches.decode(await json_object(request))
        manager = await self._admitting(endpoint_id, caller)
        return Json(batches.answer(await self._submitter.submit(caller, manager, submission), functions))

    async def timeline(self, request: Request) -> Response:
        """Lists of a manager its user endpoints, each with its starts; of a user endpoint its starts.

        A start is `{"commanded_at", "commands", "first_heartbeat_at", "first_result_at", "ended_at", "error"}`, times
        in seconds since the epoch, null when it has not happened.
        """
        caller = await self._tokens.caller(request)
        endpoint_id = path_id(request, "endpoint")
        row = await self._user_endpoint(endpoint_id, caller)
        if row is not None:
            starts = await endpoints.timelines(self._store, [endpoint_id])
            return Json({"endpoint_id": endpoint_id, "starts": starts[endpoint_id]})
        manager = await endpoints.own_manager(self._store, endpoint_id, caller)
        before = f'{{"endpoint_id":"{manager.id}","user_endpoints":['
        return json_list(self._with_starts(manager), before.encode(), b"]}")

    async def _admitting(self, endpoint_id: str, caller: Client) -> Manager:
        """Returns the manager with this id, for submitting to it.

        Raises:
            ApiError: there is none, it is not open to the client, or the client does not satisfy its policy.
        """
        manager = await endpoints.open_manager(self._store, endpoint_id, caller)
        await self._projects.check_admitted(caller, manager)
        return manager

    async def _with_starts(self, manager: Manager) -> AsyncIterator[list[dict[str, Any]]]:
        known = tables.user_endpoint.c
        columns = known.id, known.identity, known.user_opts, known.heartbeat_at, known.heartbeat_period
        of_manager = select(*columns).where(known.manager == manager.id)
        async for rows in self._store.parts(of_manager, known.id, most=PART):
            starts = await endpoints.timelines(self._store, [row.id for row in rows])
            yield [
                {
                    "endpoint_id": row.id,
                    "identity": row.identity,
                    "user_opts": json.loads(row.user_opts),
                    "status": _word(endpoints.is_online(row)),
                    "starts": starts[row.id],
                }
                for row in rows
            ]

    async def _user_endpoint(self, endpoint_id: str, caller: Client) -> Row[Any] | None:
        """Returns the user endpoint with this id; None when the id is none of a user endpoint.

        Raises:
            Forbidden: it is not the caller's, and the caller does not run its manager.
        """
        row = await self._store.one(select(tables.user_endpoint).where(tables.user_endpoint.c.id == endpoint_id))
        if row is None or caller.is_one_of(row.identity):
            return row
        manager = await endpoints.read_manager(self._store, row.manager)
        if not manager.is_run_by(caller):
            raise Forbidden(f"Endpoint {endpoint_id} is not yours")
        return row


def _word(online: bool) -> str:
    return "online" if online else "offline"
