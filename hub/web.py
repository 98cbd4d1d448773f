"""What every REST call shares: errors as Globus services word them, decoded bodies, and who is calling.

`globus_sdk` reads `code`, `message` and `request_id` from an error body; older texts of the Compute service are under
`reason`. Each error has a request id that is also logged.
"""

from __future__ import annotations

import json
import logging
import math
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse

from wire.nesting import is_shallow
from wire.printable import printable

log = logging.getLogger(__name__)

LONGEST_LOGGED = 200
"""Characters of what a caller sent that reach the log."""
DEEPEST = 100
"""Objects and lists in each other in a body: what is read here is written again, deeper in the stack."""
MOST_FIELDS = 100
"""Fields of a form."""


class ApiError(Exception):
    """A request that is refused: HTTP status, a code for programs, a text for people."""

    def __init__(self, status: int, code: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.code = code
        self.more: dict[str, Any] = {}
        """What else the body of the answer has."""


class NotFound(ApiError):
    """404: `what` with this id does not exist, or is none of the caller's business."""

    def __init__(self, what: str, which: str) -> None:
        super().__init__(404, f"{what.upper().replace(' ', '_')}_NOT_FOUND", f"There is no {what} {which}")


class Forbidden(ApiError):
    """403: it exists, and the caller may not do this."""

    def __init__(self, text: str) -> None:
        super().__init__(403, "FORBIDDEN", text)


class NeedsLogin(ApiError):
    """403: a login with these parameters mends it, and the public client tries so."""

    def __init__(self, code: str, text: str, **parameters: Any) -> None:
        super().__init__(403, code, text)
        self.more = {"authorization_parameters": {"session_message": text, **parameters}}


class Invalid(ApiError):
    """422: the request does not fit; the text names the field."""

    def __init__(self, text: str) -> None:
        super().__init__(422, "INVALID_REQUEST", text)


class TooLarge(ApiError):
    """413: more than is taken; the text says how much is."""

    def __init__(self, text: str) -> None:
        super().__init__(413, "PAYLOAD_TOO_LARGE", text)


class TooMany(ApiError):
    """429: more than one client may have; the text says how much that is."""

    def __init__(self, text: str) -> None:
        super().__init__(429, "TOO_MANY_REQUESTS", text)


class Json(JSONResponse):
    """A JSON answer in ASCII: texts from endpoints may hold lone surrogates, which UTF-8 has no bytes for.

    Numbers that JSON has no word for (NaN, infinity), which an endpoint may have said all the same, are null.
    """

    def render(self, content: Any) -> bytes:
        try:
            text = json.dumps(content, separators=(",", ":"), allow_nan=False)
        except ValueError:
            text = json.dumps(_without_nan(content), separators=(",", ":"))
        return text.encode()


def json_list(parts: AsyncIterator[list[Any]], before: bytes = b"[", after: bytes = b"]") -> StreamingResponse:
    """Answers with a list of which a part is made once the client has taken the one before.

    before, after: what is around it.
    """
    return StreamingResponse(_written(parts, before, after), media_type="application/json")


async def _written(parts: AsyncIterator[list[Any]], before: bytes, after: bytes) -> AsyncIterator[bytes]:
    yield before
    comma = b""
    async for part in parts:
        if part:
            yield comma + bytes(Json(part).body)[1:-1]
            comma = b","
    yield after


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def error_response(request: Request, error: Exception) -> Json:
    """Answers a request that ended with an `ApiError`, as Starlette's handler for it."""
    assert isinstance(error, ApiError)
    request_id = str(uuid.uuid4())
    path, text = printable(request.url.path, LONGEST_LOGGED), printable(str(error), LONGEST_LOGGED)
    log.info("%s %s: %d %s (request %s)", request.method, path, error.status, text, request_id)
    body = {
        "status": "Failed",
        "code": error.code,
        "message": str(error),
        "reason": str(error),
        "http_status_code": error.status,
        "request_id": request_id,
        **error.more,
    }
    headers = {"Retry-After": "2"} if error.status in (429, 503) else None
    return Json(body, error.status, headers)


async def json_object(request: Request) -> dict[str, Any]:
    """Reads the request's body.

    Raises:
        Invalid: it is not a JSON object, or nested too deep.
    """
    try:
        body = json.loads(await request.body(), parse_constant=_no_json, parse_float=_finite)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise Invalid("The body must be a JSON object")
    if not is_shallow(body, DEEPEST):
        raise Invalid(f"The body must have no more than {DEEPEST} objects and lists in each other")
    return body


def _no_json(constant: str) -> None:
    raise ValueError(constant)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text[:LONGEST_LOGGED])
    return number


async def form(request: Request) -> dict[str, str]:
    """Reads a form-encoded body; returns the first value of each field.

    Raises:
        Invalid: there are too many fields.
    """
    text = (await request.body()).decode("utf-8", "replace")
    try:
        fields = parse_qs(text, keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        raise Invalid(f"The form must have no more than {MOST_FIELDS} fields") from None
    return {key: values[0] for key, values in fields.items()}


def path_id(request: Request, what: str) -> str:
    """Returns the id in the path, canonical.

    Raises:
        NotFound: it is not a UUID.
    """
    text = request.path_params["id"]
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise NotFound(what, text[:64]) from None


def field(body: Mapping[str, Any], key: str, kind: type | tuple[type, ...], default: Any = ...) -> Any:
    """Returns `body[key]`, of type `kind`; null counts as not given.

    Raises:
        Invalid: it is missing and there is no default, or of another type.
    """
    value = body.get(key)
    if value is None:
        if default is ...:
            raise Invalid(f"{key}: missing")
        return default
    if not isinstance(value, kind):
        raise Invalid(f"{key}: wrong type {type(value).__name__}")
    return value


def text_field(body: Mapping[str, Any], key: str, most: int, default: Any = ...) -> Any:
    """Returns `body[key]`, a text of `most` characters at most; null counts as not given.

    Raises:
        Invalid: it is missing and there is no default, or no text.
        TooLarge: it is longer.
    """
    value = field(body, key, str, default)
    if value is not None and len(value) > most:
        raise TooLarge(f"{key}: has {len(value)} characters, the most is {most}")
    return value


def check_size(value: Any, key: str, most: int) -> None:
    """Refuses what has more than `most` bytes as JSON.

    Raises:
        TooLarge: it has.
    """
    size = len(json.dumps(value))
    if size > most:
        raise TooLarge(f"{key}: has {size} bytes as JSON, the most is {most}")


def uuid_field(value: Any, key: str) -> str:
    """Returns `value` as a canonical UUID.

    Raises:
        Invalid: it is none.
    """
    try:
        return str(uuid.UUID(value))
    except (ValueError, TypeError, AttributeError):
        raise Invalid(f"{key}: expected a UUID") from None
