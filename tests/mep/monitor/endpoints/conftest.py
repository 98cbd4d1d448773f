"""A table with stub neighbours, and user endpoints of an earlier manager."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mep.monitor.endpoints.table import EndpointTable
from mep.profile.config import ManagerConfig
from mep.request.account import Account
from tests.mep.credentials import StubSealer
from tests.mep.monitor.endpoints.neighbours import Earlier, Heard, NoScopes

TableMaker = Callable[..., EndpointTable]


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def sealer() -> StubSealer:
    return StubSealer()


@pytest.fixture
def containment() -> NoScopes:
    return NoScopes()


@pytest.fixture
def earlier(tmp_path: Path, alice: Account) -> Iterator[Earlier]:
    made = Earlier(tmp_path, alice)
    yield made
    made.close()


@pytest.fixture
def make_table(tmp_path: Path, heard: Heard, containment: NoScopes, sealer: StubSealer) -> TableMaker:
    """A table of tmp_path; `config` as given. To be called in an event loop."""

    def make(**config: object) -> EndpointTable:
        settings = ManagerConfig(**config)  # type: ignore[arg-type]
        return EndpointTable(tmp_path, lambda: settings, containment, heard, sealer, heard.counts.append)  # type: ignore[arg-type]

    return make
