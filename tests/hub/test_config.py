"""hub.yaml: every mistake is told by the key it is in, and no secret is ever in the text."""

from __future__ import annotations

import copy
import hashlib
import re

import pytest
import yaml

from hub import config
from hub.limits import Limits
from hub.store.store import sqlite_url

GOOD = {
    "listen": "127.0.0.1:5000",
    "database": "hub.db",
    "broker": {"url": "amqp://hub:s3cret@127.0.0.1:5672/%2F"},
    "clients": [
        {
            "client_id": "5D7BB7B2-3E36-4E3B-9E50-9A6BCB0C9D4B",
            "client_secret": "s3cret",
            "identity": {
                "id": "2f252320-f8bb-52e8-8b23-773b37352928",
                "username": "alice@example.org",
                "email": "alice@example.org",
                "name": "Alice",
                "identity_provider": "85453953-8e33-5ac9-97a8-bdff5c84320a",
            },
        }
    ],
}
LOGIN = {
    "url": "https://hub.example.org:5443/",
    "issuer": "https://sso.example.org/realms/site",
    "client_id": "mep-hub",
    "client_secret": "s3cret",
    "domain": "example.org",
}


@pytest.fixture
def write(tmp_path):
    def write(change=lambda document: None, mode=0o600):
        document = copy.deepcopy(GOOD)
        change(document)
        path = tmp_path / "hub.yaml"
        path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
        path.chmod(mode)
        return path

    return write


def test_good_file(write, tmp_path):
    loaded = config.load(write())
    assert (loaded.host, loaded.port, loaded.database) == ("127.0.0.1", 5000, sqlite_url(tmp_path / "hub.db"))
    assert loaded.broker.url_for("uep.x", "pw") == "amqp://uep.x:pw@127.0.0.1:5672/%2F"
    client = loaded.clients["5d7bb7b2-3e36-4e3b-9e50-9a6bcb0c9d4b"]
    assert client.is_secret("s3cret")
    assert not client.is_secret("other")
    assert client.identity.status == "used"
    assert "s3cret" not in repr(loaded)


def test_the_url_of_the_broker_may_be_in_a_file_of_its_own(write, tmp_path):
    def change(document):
        document["broker"] = {"url_file": "broker.url"}

    path = write(change)
    url_file = tmp_path / "broker.url"
    url_file.write_text("amqp://hub:s3cret@127.0.0.1:5672/mep\n")
    url_file.chmod(0o644)
    with pytest.raises(config.ConfigError, match="chmod 0600"):
        config.load(path)
    url_file.chmod(0o600)
    loaded = config.load(path).broker
    assert (loaded.url, loaded.vhost) == ("amqp://hub:s3cret@127.0.0.1:5672/mep", "mep")
    url_file.write_text("s3cret")
    with pytest.raises(config.ConfigError, match=r"broker.url_file: expected amqp") as said:
        config.load(path)
    assert "s3cret" not in str(said.value)


def test_what_is_not_given_is_safe(write):
    """The port at which the broker asks is one that only root gives away."""
    loaded = config.load(write(lambda document: document.pop("listen")))
    assert (loaded.host, loaded.port) == ("localhost", 5000)
    assert loaded.questions < 1024


def test_endpoints_may_see_the_broker_elsewhere(write):
    def change(document):
        document["broker"].update(endpoint_host="amqp.example.org", endpoint_port=5671, scheme="amqps")

    assert config.load(write(change)).broker.url_for("a", "b") == "amqps://a:b@amqp.example.org:5671/%2F"


def test_secret_as_hash(write):
    def change(document):
        del document["clients"][0]["client_secret"]
        document["clients"][0]["client_secret_sha256"] = hashlib.sha256(b"s3cret").hexdigest()

    assert next(iter(config.load(write(change)).clients.values())).is_secret("s3cret")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda d: d.pop("database"), "database: missing"),
        (lambda d: d.update(datebase="x"), "datebase: unknown key; did you mean 'database'?"),
        (lambda d: d.update(listen="5000"), "listen: expected ADDRESS:PORT"),
        (lambda d: d.update(limits={"requests_at_onc": 1}), "limits.requests_at_onc: unknown key; did you mean"),
        (lambda d: d.update(limits={"tasks_waiting": 0}), "limits.tasks_waiting: expected a whole number"),
        (lambda d: d.update(limits={"endpoints": True}), "limits.endpoints: expected a whole number"),
        (lambda d: d.update(limits=None), "limits: expected a mapping"),
        (lambda d: d.update(listen="0.0.0.0:5000"), "allow_remote: true"),
        (lambda d: d.update(listen="hub.example.org:5000"), "allow_remote: true"),
        (
            lambda d: d.update(tls={"listen": "5443", "certificate": "c", "key": "k"}),
            "tls.listen: expected ADDRESS:PORT",
        ),
        (lambda d: d.update(tls={"listen": "localhost:5443", "key": "k"}), "tls.certificate: missing"),
        (lambda d: d.update(tls=None), "tls: expected a mapping"),
        (lambda d: d["broker"].update(url="http://hub:s3cret@h/"), "broker.url: expected amqp[s]://"),
        (lambda d: d["broker"].update(endpoint_port="x"), "broker.endpoint_port"),
        (lambda d: d.update(clients=[]), "clients: expected a list"),
        (lambda d: d["clients"].append(d["clients"][0]), "client_id appears twice"),
        (lambda d: d["clients"][0].update(client_id="x"), "clients[0].client_id: expected a UUID"),
        (lambda d: d["clients"][0].update(client_secret_sha256="0" * 64), "either client_secret or"),
        (lambda d: d["clients"][0]["identity"].pop("email"), "clients[0].identity.email: missing"),
        (lambda d: d["clients"][0].update(linked=[{}]), "clients[0].linked[0].id: missing"),
        (lambda d: d.pop("clients"), "clients: missing, and `login` as well"),
        (lambda d: d.update(login=None), "login: expected a mapping"),
        (lambda d: d.update(login=LOGIN | {"isuer": "x"}), "login.isuer: unknown key; did you mean 'issuer'?"),
        (lambda d: d.update(login=LOGIN | {"issuer": "http://sso.example.org"}), "login.issuer: sso.example.org is"),
        (lambda d: d.update(login=LOGIN | {"issuer": "sso.example.org"}), "login.issuer: expected https://"),
        (lambda d: d.update(login=LOGIN | {"url": "http://hub.example.org"}), "login.url: hub.example.org is another"),
        (lambda d: d.update(login=LOGIN | {"url": "https://a@hub.example.org"}), "login.url: expected https://"),
        (lambda d: d.update(login=LOGIN | {"client_secret_file": "x"}), "give either client_secret or"),
        (lambda d: d.update(login=LOGIN | {"domains": ["a.org"]}), "give either domain or domains"),
        (lambda d: d.update(login=LOGIN | {"domain": "@example.org"}), "login.domain: expected a domain"),
        (lambda d: d.update(login=LOGIN | {"scopes": ["email"]}), "login.scopes: must have openid"),
        (lambda d: d.update(login=LOGIN | {"max_age_days": 0}), "login.max_age_days: expected a number"),
        (lambda d: d.update(login=LOGIN | {"claims": {"user": "x"}}), "login.claims.user: unknown key"),
        (lambda d: d.update(login=LOGIN | {"apps": {"x": "X"}}), "login.apps.x: expected a UUID"),
        (lambda d: d.update(login=LOGIN | {"linked": {"a@b.c": [{}]}}), "login.linked.a@b.c[0].id: missing"),
    ],
)
def test_mistakes_are_told_by_key(write, change, text):
    with pytest.raises(config.ConfigError, match=re.escape(text)) as error:
        config.load(write(change))
    assert "s3cret" not in str(error.value)


def test_file_must_be_private(write):
    with pytest.raises(config.ConfigError, match="chmod 0600"):
        config.load(write(mode=0o640))


def test_yaml_error_quotes_no_line(tmp_path):
    path = tmp_path / "hub.yaml"
    path.write_text("clients:\n  client_secret: [s3cret\n")
    path.chmod(0o600)
    with pytest.raises(config.ConfigError, match="line 3") as error:
        config.load(path)
    assert "s3cret" not in str(error.value)


def test_remote_when_allowed(write):
    assert config.load(write(lambda d: d.update(listen="[::]:5000", allow_remote=True))).host == "::"


def test_limits(write):
    assert config.load(write()).limits == Limits()
    assert config.load(write(lambda d: d.update(limits={"endpoints": 7}))).limits == Limits(endpoints=7)


def test_logins(write, tmp_path):
    login = config.load(write(lambda d: d.update(login=LOGIN))).login
    assert login.return_url == "https://hub.example.org:5443/login/return"
    assert login.code_url == "https://hub.example.org:5443/v2/web/auth-code"
    assert (login.name, login.client_secret, login.domain) == ("sso.example.org", "s3cret", "example.org")
    assert login.apps["4cf29807-cf21-49ec-9443-ff9a3fb9f81c"] == "Globus Compute"
    assert "s3cret" not in repr(login)
    secret = tmp_path / "secret"
    secret.touch(mode=0o600)
    secret.write_text("other\n")

    def change(document):
        document["login"] = {k: v for k, v in LOGIN.items() if k not in ("client_secret", "domain")}
        document["login"] |= {"client_secret_file": "secret", "domains": ["Example.org"]}
        document.pop("clients")

    loaded = config.load(write(change))
    assert (loaded.login.client_secret, loaded.login.domains, loaded.clients) == ("other", {"example.org"}, {})
    secret.chmod(0o644)
    with pytest.raises(config.ConfigError, match="chmod 0600"):
        config.load(write(change))


@pytest.mark.parametrize("where", ["url", "url_file"])
def test_postgresql_by_a_url_whose_password_is_shown_to_nobody(write, tmp_path, where):
    url = "postgresql://hub:s3cret@127.0.0.1:5433/hub"
    (tmp_path / "database.url").touch(mode=0o600)
    (tmp_path / "database.url").write_text(f"{url}\n")
    loaded = config.load(write(lambda d: d.update(database={where: url if where == "url" else "database.url"})))
    assert loaded.database.render_as_string(hide_password=False) == url.replace(":", "+psycopg:", 1)
    assert "s3cret" not in f"{loaded} {loaded.database} {loaded.database!r}"


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("mysql://hub:s3cret@127.0.0.1/hub", "expected postgresql://"),
        ("postgresql://hub:s3cret@127.0.0.1:x/hub", "expected postgresql://"),
        ("postgresql://hub:s3cret@127.0.0.1", "expected postgresql://"),
        ("s3cret", "expected postgresql://"),
        ("postgresql://hub:s3cret@/hub?host=/run/postgresql,db.example.org", "add ?sslmode=verify-full"),
        ("postgresql://hub:s3cret@db.example.org/hub", "add ?sslmode=verify-full"),
        ("postgresql://hub:s3cret@db.example.org/hub?sslmode=require", "add ?sslmode=verify-full"),
    ],
)
def test_a_database_that_cannot_be_or_that_anybody_could_pose_as(write, url, text):
    with pytest.raises(config.ConfigError) as refused:
        config.load(write(lambda d: d.update(database={"url": url})))
    assert text in str(refused.value)
    assert "database.url" in str(refused.value)
    assert "s3cret" not in str(refused.value)


def test_a_database_on_another_host_that_must_prove_its_name(write):
    url = "postgresql://hub:s3cret@db.example.org/hub?sslmode=verify-full"
    assert config.load(write(lambda d: d.update(database={"url": url}))).database.host == "db.example.org"
