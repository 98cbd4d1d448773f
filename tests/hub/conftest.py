"""For unit tests a database of their own; for the others real clients, and a manager that does what a test tells it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from globus_compute_sdk import Client
from globus_compute_sdk.sdk.auth.globus_app import get_globus_app
from globus_compute_sdk.sdk.executor import _ResultWatcher

from hub.store.store import Store, sqlite_url
from lab.hub import HubProcess
from lab.waiting import until
from tests.hub.peer import PeerManager


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A database of this test's own."""
    with closing(Store(sqlite_url(tmp_path / "hub.db"))) as opened:
        yield opened


@pytest.fixture
def client(hub: HubProcess, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Client]]:
    """A public client of the named user."""

    def make(user: str) -> Client:
        for name, value in hub.client_environment(user).items():
            monkeypatch.setenv(name, value)
        return Client(app=get_globus_app())

    yield make
    for thread in threading.enumerate():
        if isinstance(thread, _ResultWatcher):
            _end(thread)


def _end(watcher: _ResultWatcher) -> None:
    """Ends the public client's AMQP thread, which would read until the interpreter ends, and closes what it leaves."""
    until(lambda: watcher.ident is not None, "the thread to start")
    connection = until(lambda: watcher._connection or not watcher.is_alive(), "its connection, or its end")
    watcher.shutdown(cancel_futures=True)
    watcher.join(10)
    if connection is not True:
        connection.ioloop.close()


@pytest.fixture
def manager(client: Callable[[str], Client]) -> Iterator[PeerManager]:
    """A registered public endpoint of `admin`, whose manager is this test."""
    answer = client("admin").register_endpoint("demo", None, {"hostname": "here"}, multi_user=True, public=True)
    manager = PeerManager(answer)
    yield manager
    manager.close()
