"""amqps against a real broker: who is trusted, who is not, and what the error says."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.broker import PROGRAM, PrivateBroker
from lab.certificates import Authority, Certificate
from tests.conftest import need
from wire.connection import Connection
from wire.errors import Unreachable
from wire.queues import read_source

pytestmark = pytest.mark.system


class Site:
    """A broker with TLS, and the site's authority."""

    def __init__(self, broker: PrivateBroker, authority: Authority, certificate: Path) -> None:
        self.broker = broker
        self.authority = authority
        self._certificate = certificate

    def give(self, certificate: Certificate) -> None:
        """The broker shows this certificate from now on."""
        certificate.write(self._certificate)
        self.broker.ctl("eval", "ssl:clear_pem_cache().")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    need(PROGRAM.exists(), "needs the package rabbitmq-server")
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority("a site's CA")
    certificate = folder / "broker.pem"
    authority.issue("localhost").write(certificate)
    with PrivateBroker(folder / "broker", certificate=certificate) as broker:
        yield Site(broker, authority, certificate)


@pytest.fixture
def trusted(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process trusts the site's authority."""
    trust(site.authority, tmp_path, monkeypatch)


def trust(authority: Authority, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority.write(folder / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "ca.pem"))


def connect(url: str) -> None:
    async def there_and_back() -> None:
        connection = await Connection.open(url)
        await connection.publisher()
        await connection.close()

    asyncio.run(there_and_back())


def refusal(url: str) -> str:
    with pytest.raises(Unreachable) as caught:
        connect(url)
    assert "hub" not in str(caught.value)
    assert url.split(":")[2].partition("@")[0] not in str(caught.value)
    return str(caught.value)


def refusal_with(site: Site, certificate: Certificate) -> str:
    """The refusal while the broker shows another certificate than its own."""
    site.give(certificate)
    try:
        return refusal(site.broker.tls_url)
    finally:
        site.give(site.authority.issue("localhost"))


def test_a_certificate_of_a_trusted_authority(site: Site, trusted: None) -> None:
    connect(site.broker.tls_url)


def test_an_authority_that_nobody_here_has_heard_of(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "SSL_CERT_FILE" in refusal(site.broker.tls_url)
    trust(Authority("another"), tmp_path, monkeypatch)
    text = refusal(site.broker.tls_url)
    assert "certificate is refused" in text
    assert "CA among those that this system trusts, or in the file that SSL_CERT_FILE names?" in text


def test_a_certificate_for_another_host(site: Site, trusted: None) -> None:
    text = refusal(site.broker.tls_url.replace("@localhost:", "@127.0.0.1:"))
    assert "not valid for '127.0.0.1'" in text
    assert "needs a certificate for this address" in text
    text = refusal_with(site, site.authority.issue("elsewhere.example"))
    assert "not valid for 'localhost'" in text
    assert "something else answers there" in text
    connect(site.broker.tls_url)


def test_a_certificate_that_has_expired(site: Site, trusted: None) -> None:
    text = refusal_with(site, site.authority.issue("localhost", valid_for=-1))
    assert "certificate has expired" in text
    assert "the broker needs a new one, or the clock of this host is wrong" in text


def test_ports_that_are_mixed_up(site: Site, trusted: None) -> None:
    """Both can come of a wrong amqp_port."""
    tls, plain = site.broker.tls_port, site.broker.port
    assert "is the port one for amqps" in refusal(site.broker.tls_url.replace(f":{tls}/", f":{plain}/"))
    refusal(site.broker.url.replace(f":{plain}/", f":{tls}/"))


def test_a_url_cannot_switch_verification_off(site: Site) -> None:
    lax = site.broker.tls_url + "?ssl_options=%7B%27cert_reqs%27%3A+0%7D"
    refusal(read_source({"connection_url": lax, "queue": "q"}, "info").connection_url)
