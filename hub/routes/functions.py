"""Functions: registered code. Anybody may run a public one, only its owner may see or run any other."""

from __future__ import annotations

import json
import uuid

from sqlalchemy import bindparam, delete, func, insert, select
from starlette.requests import Request
from starlette.routing import Route

from hub.limits import Limits
from hub.store import tables
from hub.store.store import Store
from hub.tokens import Tokens
from hub.web import (
    Forbidden,
    Invalid,
    Json,
    NotFound,
    TooMany,
    check_size,
    field,
    json_object,
    path_id,
    text_field,
)

NAME_LENGTH = 1024
"""Characters of a function's name."""
DESCRIPTION_LENGTH = 64 * 2**10
"""Of its description, which the public client takes from its documentation."""
META_BYTES = 64 * 2**10

_COUNT = select(func.count().label("n")).where(tables.function.c.owner == bindparam("owner"))


class FunctionRoutes:
    """Calls under `/v2/functions` and `/v3/functions`."""

    def __init__(self, store: Store, tokens: Tokens, limits: Limits) -> None:
        self._store = store
        self._limits = limits
        self._tokens = tokens

    def routes(self) -> list[Route]:
        """Lists the calls."""
        return [
            Route("/v2/functions", self.register, methods=["POST"]),
            Route("/v3/functions", self.register, methods=["POST"]),
            Route("/v2/functions/{id}", self.show, methods=["GET"]),
            Route("/v2/functions/{id}", self.delete, methods=["DELETE"]),
        ]

    async def register(self, request: Request) -> Json:
        """Stores a function under a new id."""
        caller = await self._tokens.caller(request)
        body = await json_object(request)
        if body.get("group") or body.get("ha_endpoint_id"):
            raise Invalid("group, ha_endpoint_id: functions cannot be shared with groups or bound to endpoints here")
        row = await self._store.one(_COUNT, owner=caller.identity.id)
        if row is not None and row.n >= self._limits.functions:
            raise TooMany(
                f"You have {row.n} functions, the most is {self._limits.functions}; delete what is not needed"
            )
        code = field(body, "function_code", str)
        record = {
            "function_name": text_field(body, "function_name", NAME_LENGTH),
            "description": text_field(body, "description", DESCRIPTION_LENGTH, None),
            "serialized": field(body, "serialized", bool, True),
            "meta": field(body, "meta", dict, None),
        }
        check_size(record["meta"], "meta", META_BYTES)
        function_id = str(uuid.uuid4())
        await self._store.execute(
            insert(tables.function).values(
                id=function_id,
                owner=caller.identity.id,
                public=field(body, "public", bool, False),
                code=code,
                record=json.dumps(record),
            )
        )
        return Json({"function_uuid": function_id})

    async def show(self, request: Request) -> Json:
        """Shows all about a function, its code included."""
        caller = await self._tokens.caller(request)
        function_id = path_id(request, "function")
        row = await self._store.one(select(tables.function).where(tables.function.c.id == function_id))
        if row is None:
            raise NotFound("function", function_id)
        if not row.public and not caller.is_one_of(row.owner):
            raise Forbidden(f"Function {function_id} is not public and not yours")
        record = json.loads(row.record)
        return Json(
            {
                "function_uuid": function_id,
                **record,
                "metadata": record["meta"],
                "function_code": row.code,
                "public": row.public,
                "owner": row.owner,
            }
        )

    async def delete(self, request: Request) -> Json:
        """Forgets a function; tasks that were submitted before still run."""
        caller = await self._tokens.caller(request)
        function_id = path_id(request, "function")
        known = tables.function.c
        row = await self._store.one(select(known.owner).where(known.id == function_id))
        if row is None:
            raise NotFound("function", function_id)
        if not caller.is_one_of(row.owner):
            raise Forbidden(f"Function {function_id} is not yours")
        await self._store.execute(delete(tables.function).where(known.id == function_id))
        return Json({"function_uuid": function_id})
