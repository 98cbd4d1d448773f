"""Why another host could not be reached, in plain words, with what to do about it."""

from __future__ import annotations

import errno
import socket
import ssl

REACHABLE = "is it up, and may this host reach that port (a firewall?)"
"""What to look at when no answer has come."""
_NO_ROUTE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN})
_REMEDIES = {
    9: "is the clock of this host right?",  # X509_V_ERR_CERT_NOT_YET_VALID, as in x509_vfy.h of OpenSSL
    10: "the broker needs a new one, or the clock of this host is wrong",
    62: "something else answers there, or the broker needs a certificate for this name",
    64: "something else answers there, or the broker needs a certificate for this address",
}
"""What to do about a certificate that is refused, by OpenSSL's code."""


def describe(error: OSError, whose: str = "broker", port: str = "is it the right port?") -> str:
    """Says what failed and what to do. whose: what should be there. port: the remedy when nothing speaks TLS there."""
    if isinstance(error, ssl.SSLCertVerificationError):
        usual = "is its CA among those that this system trusts, or in the file that SSL_CERT_FILE names?"
        remedy = _REMEDIES.get(error.verify_code, usual).replace("broker", whose)
        return f"its certificate is refused, {error.verify_message}; {remedy}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason or error}); {port}"
    if isinstance(error, socket.gaierror):
        return f"its name is not found ({error.strerror}); is it spelt right, and does DNS work on this host?"
    if isinstance(error, TimeoutError) or error.errno == errno.ETIMEDOUT:
        return f"no answer; {REACHABLE}"
    if isinstance(error, ConnectionRefusedError):
        return f"connection refused; is the {whose} up, and is it the right port?"
    if error.errno in _NO_ROUTE:
        return f"{error.strerror}; may this host reach it, and has it a route there?"
    return f"{error.strerror or error}; is it up, and may this host reach it?"
