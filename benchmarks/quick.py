"""`make bench-quick`: ours beside the public package, in turn, on the same hub and broker, as root. About two minutes.

Prints, for the three engines with one worker each: seconds from the start command to the first heartbeat and to the
first result as the hub saw them, milliseconds of one task through a warm user endpoint, tasks per second of a batch,
and the memory of all processes of a user endpoint that has run a few tasks (PSS: what is shared counts in parts);
medians, with the ratio of the two. Each start is a fresh user endpoint. Nothing is asserted: machines are noisy.
"""

from __future__ import annotations

import argparse
import os
import pwd
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.edge import Edge
from lab import loopback, timeline
from lab.accounts import LocalAccount
from lab.broker import PrivateBroker
from lab.hub import HubProcess
from lab.manager import ManagerProcess
from lab.peer import PublicManager

ENGINES = ("ThreadPoolEngine", "ProcessPoolEngine", "GlobusComputeEngine")
WARM_TASKS = 15
BATCH = 1000
BATCHES = 3

ACCOUNT = "mepbench_alice"
MAPPING = [{"source": "{username}", "match": "alice@example\\.org", "output": ACCOUNT}]
TEMPLATE = """\
heartbeat_period: 5
engine:
  type: {{ ENGINE }}
{%- if "Globus" in ENGINE %}
  address: 127.0.0.1
  max_workers_per_node: 1
  provider: {type: LocalProvider, init_blocks: 1, min_blocks: 0, max_blocks: 1}
{%- else %}
  max_workers: 1
{%- endif %}
"""


@dataclass(frozen=True)
class Figures:
    """What was measured of one engine: seconds, milliseconds, tasks per second, MiB."""

    first_heartbeat: float
    first_result: float
    warm_task: float
    tasks_per_second: float
    memory: float


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="bench-quick")
    parser.add_argument("--starts", type=int, default=3, help="fresh user endpoints per engine and package")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("bench-quick: must be root")
    os.umask(0o022)
    loopback.enter_private_network()
    with _site() as (folder, hub):
        ours = ManagerProcess(
            folder / "ours", hub, "admin", mapping=MAPPING, template=TEMPLATE, schema={}, config={"public": True}
        )
        with ours:
            figures_ours = _measure_all(hub, ours.endpoint_id, options.starts)
        theirs = PublicManager(folder / "public", hub, "admin", mapping=MAPPING, template=TEMPLATE)
        with theirs:
            figures_public = _measure_all(hub, theirs.endpoint_id, options.starts)
    _print(figures_ours, figures_public)


@contextmanager
def _site() -> Iterator[tuple[Path, HubProcess]]:
    with tempfile.TemporaryDirectory(prefix="mep-bench-") as name, LocalAccount(ACCOUNT):
        folder = Path(name)
        folder.chmod(0o755)
        with PrivateBroker(folder / "broker") as broker, HubProcess(folder / "hub", broker, ["admin", "alice"]) as hub:
            yield folder, hub


def _measure_all(hub: HubProcess, endpoint_id: str, starts: int) -> dict[str, Figures]:
    return {engine: _measure(hub, endpoint_id, engine, starts) for engine in ENGINES}


def _measure(hub: HubProcess, endpoint_id: str, engine: str, starts: int) -> Figures:
    edge = Edge(hub, "alice")
    others = _processes()
    try:
        fresh: list[dict[str, Any]] = [{"ENGINE": engine, "RUN": run} for run in range(starts)]
        edge.run(endpoint_id, fresh[0], [1])
        warm = [edge.run(endpoint_id, fresh[0], [n]) for n in range(WARM_TASKS)]
        memory = sum(_pss(pid) for pid in _processes() - others)
        batches = [edge.run(endpoint_id, fresh[0], list(range(BATCH))) for _ in range(BATCHES)]
        for config in fresh[1:]:
            edge.run(endpoint_id, config, [1])
    finally:
        edge.close()
    seen = [s for s in timeline.starts(hub, "admin", endpoint_id) if s.user_options["ENGINE"] == engine]
    return Figures(
        first_heartbeat=statistics.median(s.first_heartbeat for s in seen if s.first_heartbeat is not None),
        first_result=statistics.median(s.first_result for s in seen if s.first_result is not None),
        warm_task=1000 * statistics.median(warm),
        tasks_per_second=BATCH / statistics.median(batches),
        memory=memory,
    )


def _processes() -> set[int]:
    """The processes of the account: also those that an engine has detached from its user endpoint."""
    uid = pwd.getpwnam(ACCOUNT).pw_uid
    return {process.pid for process in psutil.process_iter() if uid in process.uids()}


def _pss(pid: int) -> float:
    """MiB; nothing for a process that has just ended."""
    try:
        return float(psutil.Process(pid).memory_full_info().pss) / 2**20
    except psutil.NoSuchProcess:
        return 0.0


def _print(ours: dict[str, Figures], public: dict[str, Figures]) -> None:
    rows = [
        ("command -> first heartbeat, s", "first_heartbeat", "{:.2f}"),
        ("command -> first result, s", "first_result", "{:.2f}"),
        ("one task, warm, ms", "warm_task", "{:.0f}"),
        (f"tasks per second ({BATCH} at once)", "tasks_per_second", "{:.0f}"),
        ("memory (PSS), MiB", "memory", "{:.0f}"),
    ]
    print(f"{'':<32}{'engine':<22}{'ours':>8}{'public':>9}{'ratio':>8}")
    for title, field, form in rows:
        for engine in ENGINES:
            a, b = getattr(ours[engine], field), getattr(public[engine], field)
            ratio = a / b if field == "tasks_per_second" else b / a
            print(f"{title:<32}{engine:<22}{form.format(a):>8}{form.format(b):>9}{ratio:>7.1f}x")
            title = ""


if __name__ == "__main__":
    main()
