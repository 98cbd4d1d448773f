"""A service and a profile to register with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mep.profile.profile import Profile
from mep.reader import loader
from tests.mep.registration.service import Service


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """The one that `globus_sdk` finds by the environment."""
    told = Service()
    server = told.start()
    monkeypatch.delenv("GLOBUS_SDK_ENVIRONMENT", raising=False)
    for name in ("COMPUTE", "AUTH"):
        monkeypatch.setenv(f"GLOBUS_SDK_SERVICE_URL_{name}", told.url)
    yield told
    server.shutdown()
    server.server_close()


@pytest.fixture
def profile(profile_directory: Path) -> Profile:
    return loader.load(profile_directory)
