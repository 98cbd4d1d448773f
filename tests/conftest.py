"""What several test folders share: the need for root, and the parts of a whole site, each as one fixture.

`broker`, `hub`, `accounts`, `manager` are real and live for the whole session. The session has a loopback interface of
its own where the kernel allows it (`lab.loopback`), so port 5000 and every other one is free.
"""

from __future__ import annotations

import os

import pytest

from lab import loopback

CI = os.environ.get("CI") == "true"


def pytest_configure(config: pytest.Config) -> None:
    if os.geteuid() == 0:
        loopback.enter_private_network()


@pytest.fixture(scope="session")
def root() -> None:
    """For tests that become other users."""
    need(os.geteuid() == 0, "needs root")


def need(met: bool, reason: str) -> None:
    """Skips a test whose need is not met; in CI it fails instead, because there everything is there."""
    if met:
        return
    if CI:
        pytest.fail(f"{reason}, and CI has that")
    pytest.skip(reason)
