"""`RegistrationError`: why the service does not take us, with the remedy. Made from the errors of `globus_sdk`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from wire.redaction import redact

if TYPE_CHECKING:
    import globus_sdk


class RegistrationError(Exception):
    """The service does not take the registration. `exit_code` is one of os.EX_*; the text has the remedy."""

    def __init__(self, exit_code: int, text: str) -> None:
        super().__init__(redact(text))
        self.exit_code = exit_code


def unreachable(error: globus_sdk.NetworkError) -> RegistrationError:
    """No answer came."""
    text = f"cannot reach the service: {error}; is it up, and may this host reach it?"
    return RegistrationError(os.EX_TEMPFAIL, text)


def refused(error: globus_sdk.GlobusAPIError, known: str | None) -> RegistrationError:
    """The answer is no. known: the endpoint's id, when it has been registered before."""
    code = os.EX_DATAERR if error.http_status in (400, 422) else os.EX_UNAVAILABLE
    if error.http_status in (401, 403):
        code = os.EX_NOPERM
    remedies = {
        401: "check the client credentials, or run `mep login`",
        403: "the endpoint belongs to another identity, or this one may not register endpoints",
        404: f"the service does not know endpoint {known}; delete endpoint.json to register a new one",
        409: "another instance of this endpoint is running; stop that one first",
        423: "the endpoint is locked, or another instance of it is running; stop that one, or wait",
    }
    remedy = remedies.get(error.http_status, "see the text of the service")
    message = error.message or error.text
    return RegistrationError(
        code, f"the service refuses the registration (HTTP {error.http_status}): {message}; {remedy}"
    )
