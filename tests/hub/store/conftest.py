"""The store on each database that it knows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import URL, make_url, text

from hub.store.store import Store, sqlite_url
from lab.postgres import PrivatePostgres, programs
from tests.conftest import need


@pytest.fixture(scope="session")
def postgres(root: None, folder: Path) -> Iterator[PrivatePostgres]:
    """A PostgreSQL of this session's own."""
    need(programs() is not None, "needs the package postgresql")
    with PrivatePostgres(folder / "postgres") as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> URL:
    """An empty database."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "hub.db")
    return emptied(url_of(request.getfixturevalue("postgres")))


@pytest.fixture
def store(database: URL) -> Iterator[Store]:
    """The store on it."""
    with closing(Store(database)) as opened:
        yield opened


def url_of(postgres: PrivatePostgres) -> URL:
    """Its URL as the store takes it."""
    return make_url(postgres.url).set(drivername="postgresql+psycopg")


def emptied(url: URL) -> URL:
    """Drops what an earlier test has left."""
    with closing(Store(url)) as store, store._writes.begin() as db:
        db.execute(text("DROP SCHEMA public CASCADE"))
        db.execute(text("CREATE SCHEMA public"))
    return url
