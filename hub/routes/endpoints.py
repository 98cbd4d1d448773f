"""Endpoints by REST: registration, status, administration, and the hub's own timeline for benchmarks."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from hub import endpoints, registration
from hub.clients import Client
from hub.registration import Registrar
from hub.store import Store
from hub.submission import Submitter, decode
from hub.tokens import Tokens
from hub.web import Forbidden, Json, json_object, path_id


class EndpointRoutes:
    """Calls under `/v2/endpoints`, `/v3/endpoints` and `/hub/v1/endpoints`."""

    def __init__(self, store: Store, tokens: Tokens, registrar: Registrar, submitter: Submitter) -> None:
        self._store = store
        self._tokens = tokens
        self._registrar = registrar
        self._submitter = submitter

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
            Route("/hub/v1/endpoints/{id}/timeline", self.timeline, methods=["GET"]),
        ]

    async def register(self, request: Request) -> Json:
        """Registers a new endpoint."""
        caller = self._tokens.caller(request)
        record = registration.decode(await json_object(request))
        return Json(await self._registrar.register(caller, None, record))

    async def register_again(self, request: Request) -> Json:
        """Registers an endpoint that has an id already."""
        caller = self._tokens.caller(request)
        manager = endpoints.own_manager(self._store, path_id(request, "endpoint"), caller)
        record = registration.decode(await json_object(request))
        return Json(await self._registrar.register(caller, manager, record))

    async def list_endpoints(self, request: Request) -> Json:
        """Lists the caller's endpoints, or with `role=any` the public ones as well."""
        caller = self._tokens.caller(request)
        managers = [endpoints.manager_of(row) for row in self._store.read("SELECT * FROM endpoint ORDER BY rowid")]
        every = request.query_params.get("role") == "any"
        return Json([m.shown() for m in managers if m.is_run_by(caller) or (every and m.public)])

    async def show(self, request: Request) -> Json:
        """Shows what an endpoint registered with; its configuration only to those who run it."""
        caller = self._tokens.caller(request)
        manager = endpoints.open_manager(self._store, path_id(request, "endpoint"), caller)
        metadata = dict(manager.record["metadata"])
        if not manager.is_run_by(caller):
            metadata.pop("endpoint_config", None)
        return Json({**metadata, **manager.shown(), "metadata": metadata})

    async def delete(self, request: Request) -> Json:
        """Forgets an endpoint."""
        caller = self._tokens.caller(request)
        manager = endpoints.own_manager(self._store, path_id(request, "endpoint"), caller)
        await self._registrar.delete(manager)
        return Json({"endpoint_id": manager.id})

    async def status(self, request: Request) -> Json:
        """Tells online or offline, and the last status report; also of a user endpoint, to its user and its manager."""
        caller = self._tokens.caller(request)
        endpoint_id = path_id(request, "endpoint")
        row = self._user_endpoint(endpoint_id, caller)
        if row is not None:
            details = json.loads(row["report"] or "{}")
            return Json({"status": _word(endpoints.is_online(row)), "details": details})
        manager = endpoints.open_manager(self._store, endpoint_id, caller)
        return Json({"status": _word(manager.online), "details": dict(manager.report)})

    async def lock(self, request: Request) -> Json:
        """Cuts an endpoint off for a minute."""
        caller = self._tokens.caller(request)
        manager = endpoints.own_manager(self._store, path_id(request, "endpoint"), caller)
        await self._registrar.lock(manager)
        return Json({"endpoint_id": manager.id})

    async def allowed_functions(self, request: Request) -> Json:
        """Lists the only functions that an endpoint runs, if it is so restricted."""
        caller = self._tokens.caller(request)
        manager = endpoints.open_manager(self._store, path_id(request, "endpoint"), caller)
        allowed = manager.allowed_functions
        return Json(
            {"endpoint_id": manager.id, "restricted": allowed is not None, "functions": allowed or []},
        )

    async def submit(self, request: Request) -> Json:
        """Takes tasks."""
        caller = self._tokens.caller(request)
        manager = endpoints.open_manager(self._store, path_id(request, "endpoint"), caller)
        submission = decode(await json_object(request))
        return Json(await self._submitter.submit(caller, manager, submission))

    async def timeline(self, request: Request) -> Json:
        """Lists of a manager its user endpoints, each with its starts; of a user endpoint its starts.

        A start is `{"commanded_at", "commands", "first_heartbeat_at", "first_result_at", "ended_at", "error"}`, times
        in seconds since the epoch, null when it has not happened.
        """
        caller = self._tokens.caller(request)
        endpoint_id = path_id(request, "endpoint")
        row = self._user_endpoint(endpoint_id, caller)
        if row is not None:
            return Json({"endpoint_id": endpoint_id, "starts": endpoints.timeline(self._store, endpoint_id)})
        manager = endpoints.own_manager(self._store, endpoint_id, caller)
        rows = self._store.read("SELECT * FROM user_endpoint WHERE manager = ? ORDER BY rowid", manager.id)
        return Json({"endpoint_id": endpoint_id, "user_endpoints": [self._with_starts(row) for row in rows]})

    def _with_starts(self, row: sqlite3.Row) -> dict[str, Any]:
        return {
            "endpoint_id": row["id"],
            "identity": row["identity"],
            "user_opts": json.loads(row["user_opts"]),
            "status": _word(endpoints.is_online(row)),
            "starts": endpoints.timeline(self._store, row["id"]),
        }

    def _user_endpoint(self, endpoint_id: str, caller: Client) -> sqlite3.Row | None:
        """Returns the user endpoint with this id; None when the id is none of a user endpoint.

        Raises:
            Forbidden: it is not the caller's, and the caller does not run its manager.
        """
        row = self._store.one("SELECT * FROM user_endpoint WHERE id = ?", endpoint_id)
        if row is None or caller.is_one_of(row["identity"]):
            return row
        if not endpoints.read_manager(self._store, row["manager"]).is_run_by(caller):
            raise Forbidden(f"Endpoint {endpoint_id} is not yours")
        return row


def _word(online: bool) -> str:
    return "online" if online else "offline"
