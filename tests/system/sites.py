"""Managers for the system tests, and what is done to them and to the homes of their users."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.accounts import LocalAccount
from lab.hub import HubProcess
from lab.manager import MEP, ManagerProcess
from tests.accounts import PREFIX

MAPPING = [
    {"source": "{username}", "match": "(alice|bob)@example\\.org", "output": f"{PREFIX}{{0}}"},
    {"source": "{username}", "match": "ghost@example\\.org", "output": f"{PREFIX}nosuch"},
    {"source": "{username}", "match": "rooty@example\\.org", "output": "root"},
    {"source": "{username}", "match": "daemon@example\\.org", "output": "daemon"},
]
TEMPLATE = """\
heartbeat_period: {{ PERIOD | default(5) }}
idle_heartbeats_soft: {{ SOFT | default(0) }}
engine:
  type: {{ ENGINE | default("ThreadPoolEngine") }}
{%- if ENGINE is defined and "Globus" in ENGINE %}
  max_workers_per_node: 1
  address: 127.0.0.1
  provider: {type: LocalProvider, init_blocks: 1, min_blocks: 0, max_blocks: 1}
{%- elif ENGINE is not defined or "Pool" in ENGINE %}
  max_workers: 1
{%- endif %}
{%- if BROKEN is defined %}
broken: {{ NO_SUCH_OPTION }}
{%- endif %}
"""
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"PERIOD": {"type": "number", "minimum": 0.1}, "SOFT": {"type": "integer"}},
}

# The hub refuses to register what it cannot enforce; so its answer is for an ordinary endpoint. All else is real.
ASSURED_PROGRAM = """
import sys
from mep.cli.main import main
from mep.daemon.main import main as daemon
from mep.registration import registration

document = registration._document
registration._document = lambda *of, **named: {**document(*of, **named), "high_assurance": False}
daemon(sys.argv[2:]) if sys.argv[1] == "start" else main()
"""


def site_of(folder: Path, hub: HubProcess, name: str, **changes: Any) -> ManagerProcess:
    """A manager that maps alice and bob to their accounts, and others to where nobody may go.

    `changes` are other arguments of ManagerProcess.
    """
    usual = {"mapping": MAPPING, "template": TEMPLATE, "schema": SCHEMA, "config": {"public": True}}
    given = {**usual, **changes}
    # An option that nothing takes makes another user endpoint: tests tell theirs apart so.
    given["config"] = {"unknown_options": "ignore", **given["config"]}
    return ManagerProcess(folder / name, hub, "admin", name=name, **given)


def own_site(name: str, **changes: Any) -> Callable[..., Iterator[ManagerProcess]]:
    """A fixture: such a manager for one test file, which may restart and kill it."""

    @pytest.fixture(scope="module", name="site")
    def site(folder: Path, hub: HubProcess, accounts: dict[str, LocalAccount]) -> Iterator[ManagerProcess]:
        with site_of(folder, hub, name, **changes) as running:
            yield running

    return site


@contextlib.contextmanager
def edited(manager: ManagerProcess, **config: Any) -> Iterator[ManagerProcess]:
    """The manager restarted with other keys in config.yaml, and afterwards with the old ones."""
    path = manager.profile / "config.yaml"
    before = path.read_text()
    manager.stop()
    path.write_text(yaml.safe_dump({**yaml.safe_load(before), **config}))
    try:
        manager.start()
        yield manager
    finally:
        manager.stop()
        path.write_text(before)
        manager.start()


def descriptors(manager: ManagerProcess) -> int:
    """How many descriptors the manager has open, once it is at rest."""
    counts: list[int] = []
    while len(counts) < 5 or len(set(counts[-5:])) > 1:
        counts.append(len(list(Path(f"/proc/{manager.pid}/fd").iterdir())))
        time.sleep(0.1)
    return counts[-1]


def program(folder: Path, name: str, text: str, mode: int = 0o755) -> str:
    path = folder / name
    path.write_text(text)
    path.chmod(mode)
    return str(path)


@contextlib.contextmanager
def moved_away(home: Path) -> Iterator[None]:
    moved = home.rename(home.with_name(f"{home.name}_moved"))
    try:
        yield
    finally:
        if home.is_dir():
            home.rmdir()
        home.unlink(missing_ok=True)
        moved.rename(home)


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[None]:
    """A site's profiles may be looked for by everybody, as in /etc; the test's folder may not."""
    above = (folder, *folder.parents, folder.parent / "run")
    before = {each: each.stat().st_mode for each in above if each.stat().st_mode & 0o777 == 0o700}
    for each in before:
        each.chmod(0o711)
    yield
    for each, mode in before.items():
        each.chmod(mode)


def run_without_network(site: ManagerProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs one `mep` command where nobody listens: in a network of its own."""
    script = "import sys, lab.loopback as l; l.enter_private_network(); import os; os.execv(sys.argv[1], sys.argv[1:])"
    return subprocess.run(
        [sys.executable, "-c", script, MEP, *arguments],
        env=site.environment,
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
        timeout=120,
    )
