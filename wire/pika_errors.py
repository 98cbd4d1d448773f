"""pika's errors become those of `wire.errors`, with a text that says what to do, and never a URL."""

from __future__ import annotations

import contextlib
import re
import ssl
from collections.abc import Iterator

from pika.exceptions import AMQPError, ConnectionClosedByBroker, ProbableAccessDeniedError, ProbableAuthenticationError

from wire.errors import AccessRefused, BrokerError, ConnectionLost, QueueGone, TooLarge, Unreachable
from wire.listeners import StrangerListens
from wire.redaction import redact

_REMEDIES = {
    9: "is the clock of this host right?",  # X509_V_ERR_CERT_NOT_YET_VALID, as in x509_vfy.h of OpenSSL
    10: "the broker needs a new one, or the clock of this host is wrong",
    62: "something else answers there, or the broker needs a certificate for this name",
    64: "something else answers there, or the broker needs a certificate for this address",
}
"""What to do about a certificate that is refused, by OpenSSL's code."""
_ACCESS_REFUSED, _NOT_FOUND, _NOT_ALLOWED = 403, 404, 530
"""Reply codes of AMQP 0-9-1."""


def not_opened(error: BaseException) -> BrokerError:
    """Says why no connection could be made."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ProbableAuthenticationError) or (
            isinstance(cause, ConnectionClosedByBroker) and cause.reply_code == _ACCESS_REFUSED
        ):
            return AccessRefused("the broker refuses this user and password")
        if isinstance(cause, ProbableAccessDeniedError) or (
            isinstance(cause, ConnectionClosedByBroker) and cause.reply_code == _NOT_ALLOWED
        ):
            return AccessRefused(f"the broker refuses the virtual host: {_text(cause)}")
        if isinstance(cause, ssl.SSLError):
            return Unreachable(f"no trustworthy connection to the broker: {_tls_text(cause)}")
        if isinstance(cause, StrangerListens):
            return Unreachable(str(cause))
        cause = _nested(cause)
    return Unreachable(f"cannot connect to the broker: {_text(error)}")


def connection_closed(error: BaseException) -> ConnectionLost:
    """Says why a connection ended."""
    return ConnectionLost(_text(error))


def channel_closed(error: BaseException) -> ConnectionLost:
    """Says why the broker closed a channel. RabbitMQ tells the largest message that it takes in words only."""
    text = _text(error)
    largest = re.search(r"message size \d+ is larger than \D*(\d+)", text)
    taken = "in exclusive use" in text  # 403 too, but the queue is there, and is free again some time
    text = f"channel closed: {text}"
    if largest:
        return TooLarge(text, int(largest[1]))
    if getattr(error, "reply_code", None) in (_ACCESS_REFUSED, _NOT_FOUND) and not taken:
        return QueueGone(text)
    return ConnectionLost(text)


@contextlib.contextmanager
def as_lost() -> Iterator[None]:
    """Turns into ConnectionLost what pika raises on a channel that the broker has just closed."""
    try:
        yield
    except AMQPError as e:
        raise ConnectionLost(f"the channel was closed: {_text(e)}") from None


def _tls_text(error: ssl.SSLError) -> str:
    """Says why, and what to do about it."""
    if not isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS failed ({error.reason or error}); is the port one for amqps (5671, 443), not for amqp?"
    remedy = _REMEDIES.get(
        error.verify_code,
        "is its CA among those that this system trusts, or in the file that SSL_CERT_FILE names?",
    )
    return f"its certificate is refused, {error.verify_message}; {remedy}"


def _nested(error: BaseException) -> BaseException | None:
    """pika wraps the cause of a failed attempt in lists (`exceptions`) and attributes (`exception`)."""
    inner = getattr(error, "exceptions", None) or [getattr(error, "exception", None)]
    return inner[-1] or error.__cause__


def _text(error: BaseException) -> str:
    deepest = error
    while (inner := _nested(deepest)) is not None:
        deepest = inner
    text = str(deepest) if isinstance(deepest, (AMQPError, OSError)) and str(deepest) else repr(deepest)
    return redact(text)
