"""pika's errors become those of `wire.errors`, with a text that says what to do, and never a URL."""

from __future__ import annotations

import contextlib
import re
import ssl
from collections.abc import Iterator

from pika.adapters.utils.connection_workflow import AMQPConnectorStackTimeout
from pika.exceptions import AMQPError, ConnectionClosedByBroker, ProbableAccessDeniedError, ProbableAuthenticationError

from wire.errors import AccessRefused, BrokerError, ConnectionLost, QueueGone, QueueLocked, TooLarge, Unreachable
from wire.listeners import StrangerListens
from wire.network_errors import REACHABLE, describe
from wire.redaction import redact

_PORT = "is the port one for amqps (5671, 443), not for amqp?"
_ACCESS_REFUSED, _NOT_FOUND, _LOCKED, _NOT_ALLOWED = 403, 404, 405, 530
"""Reply codes of AMQP 0-9-1."""


def not_opened(error: BaseException, place: str) -> BrokerError:
    """Says why no connection to `place`, a host and a port, could be made."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ProbableAuthenticationError) or (
            isinstance(cause, ConnectionClosedByBroker) and cause.reply_code == _ACCESS_REFUSED
        ):
            return AccessRefused(f"the broker at {place} refuses this user and password")
        if isinstance(cause, ProbableAccessDeniedError) or (
            isinstance(cause, ConnectionClosedByBroker) and cause.reply_code == _NOT_ALLOWED
        ):
            return AccessRefused(f"the broker at {place} refuses the virtual host: {_text(cause)}")
        if isinstance(cause, ssl.SSLError):
            return Unreachable(f"no trustworthy connection to the broker at {place}: {describe(cause, port=_PORT)}")
        if isinstance(cause, StrangerListens):
            return Unreachable(str(cause))
        cause = _nested(cause)
    return Unreachable(f"cannot connect to the broker at {place}: {_unreached(_deepest(error))}")


def connection_closed(error: BaseException, place: str) -> ConnectionLost:
    """Says why a connection to `place` ended."""
    return ConnectionLost(f"{_text(error)} ({place})")


def channel_closed(error: BaseException, place: str) -> ConnectionLost:
    """Says why the broker at `place` closed a channel. RabbitMQ tells in words only what the largest message is."""
    text = _text(error)
    largest = re.search(r"message size \d+ is larger than \D*(\d+)", text)
    taken = "in exclusive use" in text  # 403 too, but the queue is there, and is free again some time
    text = f"channel closed: {text} ({place})"
    if largest:
        return TooLarge(text, int(largest[1]))
    if getattr(error, "reply_code", None) in (_ACCESS_REFUSED, _NOT_FOUND) and not taken:
        return QueueGone(text)
    if getattr(error, "reply_code", None) == _LOCKED:
        return QueueLocked(text)
    return ConnectionLost(text)


@contextlib.contextmanager
def as_lost() -> Iterator[None]:
    """Turns into ConnectionLost what pika raises on a channel that the broker has just closed."""
    try:
        yield
    except AMQPError as e:
        raise ConnectionLost(f"the channel was closed: {_text(e)}") from None


def _unreached(cause: BaseException) -> str:
    if isinstance(cause, AMQPConnectorStackTimeout):
        return f"no answer; {REACHABLE}"
    if isinstance(cause, OSError):
        return redact(describe(cause, port=_PORT))
    return f"{_text(cause)}; is it a broker that answers there?"


def _nested(error: BaseException) -> BaseException | None:
    """pika wraps the cause of a failed attempt in lists (`exceptions`), attributes (`exception`) and arguments."""
    inner = getattr(error, "exceptions", None) or [getattr(error, "exception", None)]
    arguments = (each for each in error.args if isinstance(each, BaseException))
    return inner[-1] or error.__cause__ or next(arguments, None)


def _deepest(error: BaseException) -> BaseException:
    while (inner := _nested(error)) is not None:
        error = inner
    return error


def _text(error: BaseException) -> str:
    deepest = _deepest(error)
    text = str(deepest) if isinstance(deepest, (AMQPError, OSError)) and str(deepest) else repr(deepest)
    return redact(text)
