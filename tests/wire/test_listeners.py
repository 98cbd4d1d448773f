"""Whose is a port: an ordinary account that takes one on loopback gets no password and no secret."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from lab.accounts import LocalAccount
from lab.broker import PrivateBroker
from lab.waiting import until
from tests.strangers import Listener
from wire.connection import Connection
from wire.errors import Unreachable
from wire.listeners import StrangerListens, account_of_connection, check_peer, check_url


@pytest.fixture(scope="module")
def eve(root: None) -> Iterator[LocalAccount]:
    with LocalAccount("meptest_listener") as account:
        yield account


def refused(address: str, port: int) -> bool:
    try:
        check_peer(address, port)
    except StrangerListens as e:
        assert "port" in str(e) and "system account" in str(e)
        return True
    return False


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "0.0.0.0", "::", "127.0.0.7"])
def test_an_ordinary_account_is_refused_wherever_it_listens(eve: LocalAccount, address: str) -> None:
    listener = Listener(address, eve.uid)
    try:
        at = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)
        assert refused(at, listener.port)
        assert refused("::ffff:127.0.0.1", listener.port) is (address in ("127.0.0.1", "0.0.0.0", "::"))
        assert not refused("192.0.2.1", listener.port), "not loopback: not ours to say"
    finally:
        listener.close()


@pytest.mark.parametrize("uid", [0, 1, 999])
def test_root_and_system_accounts_are_trusted(root: None, uid: int) -> None:
    listener = Listener("127.0.0.1", uid)
    try:
        assert not refused("127.0.0.1", listener.port)
    finally:
        listener.close()


def test_nobody_at_all_is_no_stranger() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert not refused("127.0.0.1", port)


def test_urls(eve: LocalAccount) -> None:
    listener = Listener("127.0.0.1", eve.uid)
    try:
        for url in (f"http://localhost:{listener.port}/", f"amqp://a:b@127.0.0.1:{listener.port}/%2F"):
            with pytest.raises(StrangerListens) as said:
                check_url(url)
            assert "b@" not in str(said.value)
        for url in (f"https://localhost:{listener.port}", "http://no-such-host.invalid:5000", "http://", "x"):
            check_url(url)
    finally:
        listener.close()


def test_a_stranger_on_the_port_of_the_broker_gets_not_a_word(eve: LocalAccount) -> None:
    listener = Listener("127.0.0.1", eve.uid)
    with pytest.raises(Unreachable, match=rf"listened on by an ordinary account \(uid {eve.uid}\)"):
        asyncio.run(Connection.open(f"amqp://hub:s3cret@127.0.0.1:{listener.port}/%2F"))
    assert listener.heard() == []


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_whose_a_connection_is(eve: LocalAccount, address: str) -> None:
    """That of who connects, whoever has accepted it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    connect = "import socket, sys; s = socket.create_connection((sys.argv[1], int(sys.argv[2]))); sys.stdin.read()"
    with socket.create_server((address, 0), family=family) as listening:
        port = str(listening.getsockname()[1])
        client = subprocess.Popen(
            [sys.executable, "-c", connect, address, port], stdin=subprocess.PIPE, user=eve.uid, extra_groups=[]
        )
        accepted, peer = listening.accept()
        with accepted:
            assert account_of_connection(peer, accepted.getsockname()) == eve.uid
            client.communicate()
            until(lambda: account_of_connection(peer, accepted.getsockname()) != eve.uid, "it to have gone")


@pytest.mark.system
def test_what_root_listens_on_is_connected_to(broker: PrivateBroker) -> None:
    async def work() -> None:
        connection = await Connection.open(broker.url)
        await connection.close()

    asyncio.run(work())
    until(lambda: not refused("127.0.0.1", broker.port), "nothing to be said against it")
