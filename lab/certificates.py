"""A certificate authority of a test's own, and certificates for brokers.

ca = Authority("a site's CA")
ca.write(folder / "ca.pem")                            what clients are to trust
ca.issue("localhost").write(folder / "broker.pem")     certificate and key, what a server needs
ca.issue("localhost", valid_for=-1)                    expired yesterday
"""

from __future__ import annotations

import datetime
import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY = datetime.timedelta(days=1)
_PEM = serialization.Encoding.PEM


class Certificate:
    """One certificate with its key."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate = certificate
        self._key = key

    def write(self, path: Path) -> None:
        """Both in one file, in the place of what was there."""
        no_encryption = serialization.NoEncryption()
        key = self._key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, no_encryption)
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(self._certificate.public_bytes(_PEM) + key)


class Authority:
    """Issues certificates, valid for whoever trusts its own."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        self._own = (
            _builder(self._name, self._name, self._key, 10)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    def write(self, path: Path) -> None:
        """Its certificate, for everyone to read."""
        path.write_bytes(self._own.public_bytes(_PEM))

    def issue(self, host: str, valid_for: int = 5) -> Certificate:
        """A certificate for `host` until so many days from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder(_name(host), self._name, key, valid_for)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return Certificate(certificate, key)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, valid_for: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 10 * _DAY)
        .not_valid_after(now + valid_for * _DAY)
    )
