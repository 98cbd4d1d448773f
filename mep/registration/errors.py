"""`RegistrationError`: why the service does not take us, with the remedy. Made from the errors of `globus_sdk`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from wire.network_errors import REACHABLE, describe
from wire.redaction import redact

if TYPE_CHECKING:
    import globus_sdk

LOCKED = 423
TOO_MANY_REQUESTS = 429
_NOT_MENDED = frozenset({os.EX_USAGE, os.EX_DATAERR, os.EX_NOPERM, os.EX_CONFIG})
"""Exit codes after which trying again changes nothing; systemd/mep@.service names them, too."""
_REGISTRATION = "the registration"


class RegistrationError(Exception):
    """The service does not take the registration. `exit_code` is one of os.EX_*; the text has the remedy.

    locked: the service keeps the endpoint from being registered for a while; whoever waits is let in.
    """

    def __init__(self, exit_code: int, text: str, locked: bool = False) -> None:
        self.exit_code, self._text, self.locked = exit_code, redact(text), locked
        super().__init__(exit_code, self._text, locked)

    def __str__(self) -> str:
        return self._text

    @property
    def passes(self) -> bool:
        """Whether it may be otherwise later, with nobody doing anything about the endpoint."""
        return self.exit_code not in _NOT_MENDED


@contextlib.contextmanager
def told(login: str, known: str | None = None, url: str | None = None, what: str = _REGISTRATION) -> Iterator[None]:
    """Turns what `globus_sdk` raises inside into RegistrationError.

    login: what to do about a login that is dead. known: the endpoint's id, when it has been registered before. url: of
    the service that is asked. what: is asked for.
    """
    import globus_sdk
    from globus_sdk.login_flows import CommandLineLoginFlowEOFError
    from globus_sdk.token_storage import TokenValidationError

    try:
        yield
    except CommandLineLoginFlowEOFError:
        raise not_logged_in("nobody has logged in", login) from None
    except TokenValidationError as e:
        raise not_logged_in(str(e), login) from None
    except globus_sdk.GlobusAPIError as e:
        raise refused(e, known, login, what) from None
    except globus_sdk.NetworkError as e:
        raise unreachable(e, url) from None


def not_logged_in(why: str, login: str) -> RegistrationError:
    """There is no login, or it is not good any more."""
    return RegistrationError(os.EX_NOPERM, f"{why}; {login}")


def unreachable(error: globus_sdk.NetworkError, url: str | None = None) -> RegistrationError:
    """No answer came. url: where it was looked for, if the error itself does not know."""
    asked = getattr(getattr(error.underlying_exception, "request", None), "url", None) or url
    where = f" at {_address(asked)}" if asked else ""
    text = f"cannot reach the service{where}: {_cause(error)}"
    return RegistrationError(os.EX_TEMPFAIL, text)


def refused(
    error: globus_sdk.GlobusAPIError, known: str | None, login: str, what: str = _REGISTRATION
) -> RegistrationError:
    """The answer is no."""
    import globus_sdk

    message, status = error.message or error.text, error.http_status
    if status == TOO_MANY_REQUESTS or status >= 500:
        text = f"the service cannot answer now (HTTP {status}): {message}; try again later"
        return RegistrationError(os.EX_TEMPFAIL, text)
    if isinstance(error, globus_sdk.AuthAPIError) and (what == _REGISTRATION or _is_of_login(error)):
        return not_logged_in(f"not logged in any more (HTTP {status}): {message}", login)
    if error.info.consent_required or error.info.authorization_parameters:
        return not_logged_in(f"the login does not do any more (HTTP {status}): {message}", login)
    code = os.EX_DATAERR if status in (400, 422) else os.EX_UNAVAILABLE
    if status in (401, 403):
        code = os.EX_NOPERM
    elif status in (404, 410) and known is not None:
        code = os.EX_DATAERR  # it has been deleted: no later attempt will find it
    remedies = {
        401: login,
        403: "the endpoint belongs to another identity, or this one may not register endpoints",
        404: f"the service does not know endpoint {known}; delete endpoint.json to register a new one",
        409: "another instance of this endpoint is running, perhaps on another host: stop it there, or have the service"
        " cut it off with `mep stop --remote`",
        410: f"endpoint {known} has been deleted; delete endpoint.json to register a new one",
        LOCKED: "the endpoint is locked: another instance may be running, or one was cut off a moment ago",
    }
    if known is None:
        remedies |= dict.fromkeys((404, 410), "is it a Globus Compute service?")
    mended = status in remedies and (what == _REGISTRATION or status == 401)
    remedy = remedies[status] if mended else "see the text of the service"
    text = f"the service refuses {what} (HTTP {status}): {message}; {remedy}"
    return RegistrationError(code, text, locked=status == LOCKED)


def _is_of_login(error: globus_sdk.AuthAPIError) -> bool:
    """Whether a token was refused, and not what was asked for with it."""
    return error.http_status == 401 or "error" in (error.raw_json or {})  # RFC 6749, 5.2


def _address(url: str) -> str:
    """Scheme, host and port of a URL: neither secrets nor what was asked."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _cause(error: globus_sdk.NetworkError) -> str:
    """The plain cause and what to do, out of what several libraries have wrapped around it."""
    import globus_sdk

    if isinstance(error, globus_sdk.GlobusTimeoutError):
        return f"no answer in time; {REACHABLE}"
    innermost: BaseException = error.underlying_exception
    seen: set[int] = set()
    while id(innermost) not in seen:
        seen.add(id(innermost))
        inner = [getattr(innermost, "reason", None), *innermost.args, innermost.__cause__, innermost.__context__]
        innermost = next((each for each in inner if isinstance(each, BaseException)), innermost)
    if isinstance(innermost, OSError):
        return describe(innermost, "service", "is the port one for https?")
    return f"{str(innermost) or type(innermost).__name__}; {REACHABLE}"
