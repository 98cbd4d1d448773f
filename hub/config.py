"""hub.yaml -> HubConfig. One file, mode 0600 and owned by whoever runs the hub, because it holds secrets.

Every mistake is a `ConfigError` whose text names the key; docs/hub.md describes the file.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import stat
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import yaml
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from hub.clients import Client, Identity
from hub.limits import Limits
from hub.login.settings import APPS, MAX_AGE_DAYS, ClaimNames, LoginConfig, is_loopback, provider_id
from hub.store.store import sqlite_url

QUESTIONS_PORT = 300
"""Where the broker asks the hub about accounts: a port that only root, or whom root lets, can take while the hub is
down, because whoever answers there decides who is who."""


URL_FILE = "broker.url"
"""The name by which set-up makes `broker.url_file`."""


class ConfigError(Exception):
    """hub.yaml cannot be used; the text says which key and why, never a secret."""


@dataclass(frozen=True, slots=True)
class BrokerConfig:
    """RabbitMQ as the hub sees it (`url`, with the hub's own password) and as endpoints and clients see it."""

    url: str = field(repr=False)
    scheme: str
    host: str
    port: int
    vhost: str

    def url_for(self, account: str, password: str) -> str:
        """Makes the connection URL to hand to an endpoint or a client."""
        return f"{self.scheme}://{account}:{password}@{self.host}:{self.port}/{quote(self.vhost, safe='')}"


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """Where other hosts ask, and the files by which the hub proves its name."""

    host: str
    port: int
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class HubConfig:
    """All of hub.yaml. `clients` is by client id. `questions` is the port at which the broker asks, on loopback."""

    host: str
    port: int
    questions: int
    database: URL
    broker: BrokerConfig
    clients: Mapping[str, Client]
    limits: Limits = field(default_factory=Limits)
    tls: TlsConfig | None = None
    login: LoginConfig | None = None


def load(path: Path) -> HubConfig:
    """Reads and checks the file at `path`; relative paths in it are relative to its folder.

    Raises:
        ConfigError: unreadable, readable by others, not YAML, or a key that is unknown, missing or wrong.
    """
    _check_private(path)
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as e:
        # A YAML error quotes the line it is in, and that line may be a secret.
        where = f" (line {e.problem_mark.line + 1})" if isinstance(e, yaml.MarkedYAMLError) and e.problem_mark else ""
        raise ConfigError(f"{path}: cannot be read as YAML{where}: {type(e).__name__}") from None
    try:
        return _hub(document, path.parent)
    except ConfigError as e:
        raise ConfigError(f"{path}: {e}") from None


def _check_private(path: Path) -> None:
    try:
        info = path.stat()
    except OSError as e:
        raise ConfigError(f"{path}: {e.strerror}") from None
    if not stat.S_ISREG(info.st_mode):
        raise ConfigError(f"{path}: not a regular file")
    if info.st_uid != os.geteuid():
        raise ConfigError(f"{path}: must be owned by the account that runs the hub (uid {os.geteuid()})")
    if info.st_mode & 0o077:
        raise ConfigError(f"{path}: holds secrets, but its mode is {info.st_mode & 0o777:04o}; use: chmod 0600 {path}")


def _hub(document: Any, folder: Path) -> HubConfig:
    optional = ("listen", "allow_remote", "questions_port", "limits", "tls", "login", "clients")
    top = _mapping(document, "", required=("database", "broker"), optional=optional)
    if "clients" not in top and "login" not in top:
        raise ConfigError("clients: missing, and `login` as well: nobody could call")
    host, port = _listen(_text(top, "listen", "", "localhost:5000"), allow_remote=top.get("allow_remote", False))
    return HubConfig(
        host=host,
        port=port,
        questions=_port(top, "questions_port", "", QUESTIONS_PORT),
        database=_database(top["database"], folder),
        broker=_broker(top["broker"], folder),
        clients=_clients(top["clients"]) if "clients" in top else {},
        limits=_limits(top.get("limits", {})),
        tls=_tls(top["tls"], folder) if "tls" in top else None,
        login=_login(top["login"], folder) if "login" in top else None,
    )


def _database(value: Any, folder: Path) -> URL:
    """Reads a path, the file of SQLite, or `url` or `url_file` of PostgreSQL."""
    where = "database"
    if not isinstance(value, dict):
        return sqlite_url(folder / _text({where: value}, where, ""))
    known = _mapping(value, where, required=(), optional=("url", "url_file"))
    if len(known) != 1:
        raise ConfigError("database: give the path of a file for SQLite, or one of url and url_file for PostgreSQL")
    (key,) = known
    text = _text(known, key, where)
    try:
        url = make_url(text if key == "url" else _url_in(folder / text, f"{where}.url_file"))
    except (ArgumentError, ValueError):  # their texts have the URL
        url = None
    if url is None or url.drivername not in ("postgresql", "postgres") or not url.database:
        raise ConfigError(f"{where}.{key}: expected postgresql://USER:PASSWORD@HOST:PORT/DATABASE")
    hosts = [url.host or "localhost", *url.normalized_query.get("host", ())]
    local = all(each.startswith("/") or is_loopback(each) for host in hosts for each in host.split(","))
    if not local and url.query.get("sslmode") not in ("verify-ca", "verify-full"):
        raise ConfigError(
            f"{where}.{key}: the database is on another host, and whoever answers there would be believed;"
            " add ?sslmode=verify-full&sslrootcert=FILE, with the certificate of your authority"
        )
    return url.set(drivername="postgresql+psycopg")


def _limits(value: Any) -> Limits:
    known = _mapping(value, "limits", required=(), optional=tuple(each.name for each in fields(Limits)))
    for key, number in known.items():
        if type(number) is not int or number < 1:
            raise ConfigError(f"limits.{key}: expected a whole number from 1 on")
    return Limits(**known)


def _tls(value: Any, folder: Path) -> TlsConfig:
    known = _mapping(value, "tls", required=("listen", "certificate", "key"), optional=())
    host, port = _address(_text(known, "listen", "tls"), "tls.listen")
    return TlsConfig(host, port, folder / _text(known, "certificate", "tls"), folder / _text(known, "key", "tls"))


def _address(text: str, where: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(f"{where}: expected ADDRESS:PORT, got {text!r}")
    return host, int(port)


def _listen(text: str, *, allow_remote: Any) -> tuple[str, int]:
    host, port = _address(text, "listen")
    if not isinstance(allow_remote, bool):
        raise ConfigError("allow_remote: expected true or false")
    if not allow_remote and not is_loopback(host):
        raise ConfigError(
            f"listen: {host} is reachable from other machines, and this address has no TLS;"
            " set `tls` for them, and listen on localhost, or set 'allow_remote: true'"
        )
    return host, port


def _broker(value: Any, folder: Path) -> BrokerConfig:
    where = "broker"
    known = _mapping(
        value, where, required=(), optional=("url", "url_file", "endpoint_host", "endpoint_port", "scheme")
    )
    if ("url" in known) == ("url_file" in known):
        raise ConfigError("broker: give either url_file (mep-hub setup writes it) or url")
    url = (
        _text(known, "url", where)
        if "url" in known
        else _url_in(folder / _text(known, "url_file", where), "broker.url_file")
    )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.scheme not in ("amqp", "amqps") or not parts.username or not parts.password:
        raise ConfigError(
            f"broker.{'url' if 'url' in known else 'url_file'}: expected amqp[s]://USER:PASSWORD@HOST:PORT/VHOST"
        )
    scheme = _text(known, "scheme", where, parts.scheme)
    if scheme not in ("amqp", "amqps"):
        raise ConfigError(f"broker.scheme: expected amqp or amqps, got {scheme!r}")
    endpoint_port = _port(known, "endpoint_port", where, port or (5671 if parts.scheme == "amqps" else 5672))
    endpoint_host = _text(known, "endpoint_host", where, f"[{host}]" if ":" in host else host)
    vhost = unquote(parts.path.removeprefix("/")) or "/"
    return BrokerConfig(url, scheme, endpoint_host, endpoint_port, vhost)


def _url_in(path: Path, where: str) -> str:
    _check_private(path)
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"{where}: {path}: cannot be read, {type(e).__name__}") from None


def _clients(value: Any) -> dict[str, Client]:
    if not isinstance(value, list) or not value:
        raise ConfigError("clients: expected a list with at least one client")
    clients = [_client(entry, f"clients[{i}]") for i, entry in enumerate(value)]
    by_id = {client.client_id: client for client in clients}
    if len(by_id) != len(clients):
        raise ConfigError("clients: the same client_id appears twice")
    return by_id


def _client(value: Any, where: str) -> Client:
    secrets = ("client_secret", "client_secret_sha256")
    known = _mapping(value, where, required=("client_id", "identity"), optional=(*secrets, "linked"))
    if sum(key in known for key in secrets) != 1:
        raise ConfigError(f"{where}: give either client_secret or client_secret_sha256")
    if "client_secret" in known:
        digest = hashlib.sha256(_text(known, "client_secret", where).encode()).digest()
    else:
        digest = _sha256(_text(known, "client_secret_sha256", where), f"{where}.client_secret_sha256")
    identities = (
        _identity(known["identity"], f"{where}.identity"),
        *_linked(known.get("linked") or [], f"{where}.linked"),
    )
    return Client(_uuid(known, "client_id", where), digest, identities)


def _login(value: Any, folder: Path) -> LoginConfig:
    where = "login"
    secrets, names = ("client_secret", "client_secret_file"), ("domain", "domains")
    others = ("name", "identity_provider", "scopes", "claims", "max_age_days", "ca", "apps", "linked")
    known = _mapping(value, where, required=("url", "issuer", "client_id"), optional=(*secrets, *names, *others))
    for either in (secrets, names):
        if sum(key in known for key in either) != 1:
            raise ConfigError(f"login: give either {either[0]} or {either[1]}")
    issuer = _web_address(known, "issuer")
    secret_file = folder / _text(known, secrets[1], where, "-")
    scopes = _texts(known.get("scopes", ["openid", "profile", "email"]), "login.scopes")
    if "openid" not in scopes:
        raise ConfigError("login.scopes: must have openid")
    max_age = known.get("max_age_days", MAX_AGE_DAYS)
    if type(max_age) not in (int, float) or not 0 < max_age <= 366:
        raise ConfigError("login.max_age_days: expected a number of days, at most 366")
    claims = _mapping(
        known.get("claims", {}), "login.claims", required=(), optional=tuple(each.name for each in fields(ClaimNames))
    )
    apps, linked = _mapping_of(known, "apps"), _mapping_of(known, "linked")
    domains = _texts(known["domains"], "login.domains") if "domains" in known else []
    return LoginConfig(
        url=_web_address(known, "url").removesuffix("/"),
        issuer=issuer,
        client_id=_text(known, "client_id", where),
        client_secret=_text(known, secrets[0], where) if secrets[0] in known else _secret_in(secret_file),
        name=_text(known, "name", where, urlsplit(issuer).hostname or issuer),
        identity_provider=_uuid(known, "identity_provider", where)
        if "identity_provider" in known
        else provider_id(issuer),
        domain=_domain(known["domain"], "login.domain") if "domain" in known else None,
        domains=frozenset(_domain(each, "login.domains") for each in domains),
        scopes=tuple(scopes),
        claims=ClaimNames(**{key: _text(claims, key, "login.claims") for key in claims}),
        max_age=max_age * 86400.0,
        ca=folder / _text(known, "ca", where) if "ca" in known else None,
        apps={**APPS, **{_uuid({key: key}, key, "login.apps"): _text(apps, key, "login.apps") for key in apps}},
        linked={name.lower(): _linked(records, f"login.linked.{name}") for name, records in linked.items()},
    )


def _web_address(known: Mapping[str, Any], key: str) -> str:
    """Returns a URL that nobody on the way can read or change."""
    url = _text(known, key, "login")
    parts = urlsplit(url)
    if not parts.hostname or parts.scheme not in ("http", "https") or parts.query or parts.fragment or parts.username:
        raise ConfigError(f"login.{key}: expected https://HOST/...")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ConfigError(f"login.{key}: {parts.hostname} is another host, use https")
    return url


def _secret_in(path: Path) -> str:
    _check_private(path)
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"login.client_secret_file: {path}: cannot be read, {type(e).__name__}") from None
    if not secret:
        raise ConfigError(f"login.client_secret_file: {path}: empty")
    return secret


def _domain(text: str, where: str) -> str:
    if not isinstance(text, str) or not all(part.replace("-", "").isalnum() for part in text.split(".")):
        raise ConfigError(f"{where}: expected a domain, such as example.org")
    return text.lower()


def _texts(value: Any, where: str) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(text, str) and text for text in value):
        raise ConfigError(f"{where}: expected a list of texts")
    return value


def _mapping_of(known: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = known.get(key, {})
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise ConfigError(f"login.{key}: expected a mapping")
    return value


def _linked(value: Any, where: str) -> tuple[Identity, ...]:
    if not isinstance(value, list):
        raise ConfigError(f"{where}: expected a list of identity records")
    return tuple(_identity(record, f"{where}[{i}]") for i, record in enumerate(value))


def _identity(value: Any, where: str) -> Identity:
    texts = (
        ("username", "email", "name"),
        ("identity_provider_display_name", "organization", "status"),
    )
    known = _mapping(
        value,
        where,
        required=("id", *texts[0], "identity_provider"),
        optional=(*texts[1], "last_authentication"),
    )
    last = known.get("last_authentication")
    if last is not None and type(last) is not int:
        raise ConfigError(f"{where}.last_authentication: expected seconds since the epoch")
    return Identity(
        id=_uuid(known, "id", where),
        identity_provider=_uuid(known, "identity_provider", where),
        **{key: _text(known, key, where) for key in texts[0]},
        **{key: _text(known, key, where, "used" if key == "status" else "") for key in texts[1]},
        last_authentication=last,
    )


def _mapping(value: Any, where: str, *, required: tuple[str, ...], optional: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{where or 'the file'}: expected a mapping of keys to values")
    prefix = f"{where}." if where else ""
    for key in value:
        if key not in required and key not in optional:
            near = difflib.get_close_matches(str(key), (*required, *optional), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"{prefix}{key}: unknown key{hint}")
    for key in required:
        if key not in value:
            raise ConfigError(f"{prefix}{key}: missing")
    return value


def _text(known: Mapping[str, Any], key: str, where: str, default: str | None = None) -> str:
    value = known.get(key, default)
    if not isinstance(value, str) or (not value and default is None):
        raise ConfigError(f"{where + '.' if where else ''}{key}: expected a text")
    return value


def _port(known: Mapping[str, Any], key: str, where: str, default: int) -> int:
    value = known.get(key, default)
    if type(value) is not int or not 0 < value < 65536:
        raise ConfigError(f"{where + '.' if where else ''}{key}: expected a port number")
    return value


def _uuid(known: Mapping[str, Any], key: str, where: str) -> str:
    try:
        return str(uuid.UUID(_text(known, key, where)))
    except ValueError:
        raise ConfigError(f"{where}.{key}: expected a UUID") from None


def _sha256(text: str, where: str) -> bytes:
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    if len(digest) != hashlib.sha256().digest_size:
        raise ConfigError(f"{where}: expected 64 hexadecimal digits")
    return digest
