"""The site that the demo shows: a private broker, the hub, two local accounts, and a manager; all gone afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.accounts import LocalAccount
from lab.broker import PrivateBroker
from lab.hub import HubProcess
from lab.manager import ManagerProcess

USERS = ("alice", "bob")
STRANGER = "mallory"
PREFIX = "mepdemo_"

ENGINES = ("ThreadPoolEngine", "ProcessPoolEngine", "GlobusComputeEngine")

MAPPING = [{"source": "{username}", "match": "(alice|bob)@example\\.org", "output": PREFIX + "{0}"}]

SCHEMA = {
    "type": "object",
    "properties": {
        "engine": {"enum": ENGINES},
        "workers": {"type": "integer", "minimum": 1, "maximum": 4},
    },
    "required": ["engine"],
    "additionalProperties": False,
}

TEMPLATE = """\
{# Three engines to choose from; a site would offer the one that suits it. #}
heartbeat_period: 5
idle_heartbeats_soft: 60
engine:
  type: {{ engine }}
{%- if "Globus" in engine %}
  max_workers_per_node: {{ workers | default(1) }}
  address: 127.0.0.1
  provider:
    type: LocalProvider
    init_blocks: 1
    min_blocks: 0
    max_blocks: 1
{%- else %}
  max_workers: {{ workers | default(1) }}
{%- endif %}
"""


@dataclass(frozen=True)
class Site:
    """The parts, all running. `accounts` is by user."""

    folder: Path
    broker: PrivateBroker
    hub: HubProcess
    manager: ManagerProcess
    accounts: dict[str, LocalAccount]


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Site]:
    """Starts the site with its files in `folder`, and ends it. Raises what the parts raise."""
    with contextlib.ExitStack() as parts:
        accounts = {user: parts.enter_context(LocalAccount(PREFIX + user)) for user in USERS}
        broker = parts.enter_context(PrivateBroker(folder / "broker"))
        hub = parts.enter_context(HubProcess(folder / "hub", broker, ["admin", *USERS, STRANGER]))
        manager = parts.enter_context(
            ManagerProcess(
                folder / "mep",
                hub,
                "admin",
                mapping=MAPPING,
                template=TEMPLATE,
                schema=SCHEMA,
                config={"display_name": "Demo", "public": True},
                name="demo",
            )
        )
        yield Site(folder, broker, hub, manager, accounts)
