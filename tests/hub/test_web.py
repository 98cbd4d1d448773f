"""What every REST call shares: errors that the public client reads, bodies, ids, and what the log says of a request."""

from __future__ import annotations

import json
import logging
import uuid

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hub import web
from tests.hub.units import Rest, run


def routes_that(handle):
    return [Route("/{rest:path}", handle, methods=["GET", "POST"])]


def raising(error):
    async def handle(request: Request) -> Response:
        raise error

    return Rest(routes_that(handle))


def test_an_error_has_what_clients_read():
    answer = run(raising(web.ApiError(423, "RESOURCE_LOCKED", "not now"))("GET", "/v2/x"))
    assert answer.status == 423
    body = answer.json
    assert uuid.UUID(body.pop("request_id"))
    told = {"status": "Failed", "code": "RESOURCE_LOCKED", "message": "not now", "reason": "not now"}
    assert body == {**told, "http_status_code": 423}
    assert "retry-after" not in answer.headers


def test_who_cannot_be_served_now_is_told_when_to_come_again():
    assert run(raising(web.ApiError(503, "X", "x"))("GET", "/")).headers["retry-after"] == "2"


def test_kinds_of_errors():
    assert (web.NotFound("task group", "7").status, web.NotFound("task group", "7").code) == (
        404,
        "TASK_GROUP_NOT_FOUND",
    )
    assert str(web.NotFound("task", "7")) == "There is no task 7"
    assert web.Forbidden("no").status == 403
    assert web.Invalid("no").status == 422


def test_a_lone_surrogate_can_be_answered():
    assert web.Json({"error": "\ud800"}).body == b'{"error":"\\ud800"}'


def test_the_log_has_one_short_line_for_a_request_whatever_its_path(caplog):
    """A line break must not forge a line of the log, and an escape sequence not steer the reader's terminal."""
    caplog.set_level(logging.INFO)
    path = "/x\n2026-01-01 INFO hub.tokens: forged \x1b[2J" + "y" * 100_000
    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": [], "server": ("h", 1)}
    web.error_response(Request(scope), web.NotFound("call", path))
    (line,) = caplog.messages
    assert line.isprintable()
    assert len(line) < 1000


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"7", b"[" * 100_000, b"\xff"])
def test_a_body_that_is_no_object_is_refused(raw):
    async def handle(request: Request) -> Response:
        return web.Json(await web.json_object(request))

    answer = run(Rest(routes_that(handle))("POST", "/", raw=raw))
    assert (answer.status, answer.json["code"]) == (422, "INVALID_REQUEST")


def test_a_form_is_read_with_the_first_value_of_each_field():
    async def handle(request: Request) -> Response:
        return web.Json(await web.form(request))

    answer = run(Rest(routes_that(handle))("POST", "/", raw=b"a=1&a=2&b=&c=%E4"))
    assert answer.json == {"a": "1", "b": "", "c": "\ufffd"}


def test_an_id_in_the_path_is_canonical_or_not_there():
    async def handle(request: Request) -> Response:
        return web.Json(web.path_id(request, "task"))

    given = "2F252320-F8BB-52E8-8B23-773B37352928"
    rest = Rest([Route("/{id}", handle)])
    assert run(rest("GET", f"/{given}")).json == given.lower()
    refused = run(rest("GET", "/" + "z" * 500))
    assert refused.status == 404
    assert "z" * 65 not in refused.json["message"]


def test_fields_are_checked_and_named():
    body = {"text": "x", "flag": False, "none": None}
    assert web.field(body, "text", str) == "x"
    assert web.field(body, "flag", bool) is False
    assert web.field(body, "none", str, "default") == "default"
    assert web.field(body, "absent", dict, None) is None
    for key, kind, text in (
        ("absent", str, "absent: missing"),
        ("none", str, "none: missing"),
        ("text", int, "text: wrong"),
    ):
        with pytest.raises(web.Invalid, match=text):
            web.field(body, key, kind)


@pytest.mark.parametrize("value", ["x", "", None, 7, [], {}])
def test_what_is_no_uuid_is_refused_with_the_field(value):
    with pytest.raises(web.Invalid, match="tasks: expected a UUID"):
        web.uuid_field(value, "tasks")


def test_json_is_compact():
    assert web.Json({"a": [1, 2]}).body == json.dumps({"a": [1, 2]}, separators=(",", ":")).encode()
