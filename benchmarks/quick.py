"""`make bench-quick`: ours beside the public package, in turn, on the same hub and broker, as root. About two minutes.

Prints, for the three engines with one worker each: seconds from the start command to the first heartbeat and to the
first result as the hub saw them, milliseconds of one task through a warm user endpoint, tasks per second of a batch,
and the memory of all processes of a user endpoint that has run a few tasks (PSS: what is shared counts in parts).
Then, of a manager with threads: ten starts at once, seconds until the last result; processor time of the manager's own
processes for each of these starts; their memory when all are idle, keepers of PAM sessions aside.
Medians, with the ratio to ours. Each start is a fresh user endpoint. Nothing is asserted: machines are noisy.

    ARGS="--against 92ad307"   another commit of ours beside it, too (an environment is made for it)
    ARGS="--starts 5"          fresh user endpoints per engine and package
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pwd
import statistics
import subprocess
import sys
import tempfile
import time
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
from lab.manager import MEP, ManagerProcess
from lab.peer import PublicManager

ENGINES = ("ThreadPoolEngine", "ProcessPoolEngine", "GlobusComputeEngine")
WARM_TASKS = 15
BATCH = 1000
BATCHES = 3
BURST = 10
"""Starts at once."""
IDLE = 5.0
"""Seconds after which nothing of the starts goes on any more."""

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
class EngineFigures:
    """What was measured of one engine: seconds, milliseconds, tasks per second, MiB."""

    first_heartbeat: float
    first_result: float
    warm_task: float
    tasks_per_second: float
    memory: float


@dataclass(frozen=True)
class Figures:
    """What was measured of one package. burst: seconds. processor_time: milliseconds a start. memory: MiB."""

    engines: dict[str, EngineFigures]
    burst: float
    processor_time: float
    memory: float


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="bench-quick")
    parser.add_argument("--starts", type=int, default=3, help="fresh user endpoints per engine and package")
    parser.add_argument("--against", metavar="COMMIT", help="another commit of ours, measured beside it")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("bench-quick: must be root")
    os.umask(0o022)
    programs = {"ours": MEP}
    if options.against is not None:
        programs[options.against] = str(_installed(options.against) / "bin" / "mep")
    loopback.enter_private_network()
    figures: dict[str, Figures] = {}
    with _site() as (folder, hub):
        for name, program in programs.items():
            manager = ManagerProcess(
                folder / name,
                hub,
                "admin",
                mapping=MAPPING,
                template=TEMPLATE,
                schema={},
                config={"public": True},
                program=(program,),
            )
            with manager:
                figures[name] = _measure_all(hub, manager, options.starts)
        public = PublicManager(folder / "public", hub, "admin", mapping=MAPPING, template=TEMPLATE)
        with public:
            figures["public"] = _measure_all(hub, public, options.starts)
    _print(figures)


def _installed(commit: str) -> Path:
    """The environment of another commit of ours, made by its own set-up, where that of this one is."""
    project = Path(__file__).parents[1]
    found = subprocess.run(
        ["git", "rev-parse", "--short=12", f"{commit}^{{commit}}"],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode != 0:
        sys.exit(f"bench-quick: {commit} is no commit of this repository")
    folder = Path(os.environ.get("MEP_DEV", "/opt/mep-dev")) / f"commit-{found.stdout.strip()}"
    if not (folder / "lab").is_dir():
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        archive = subprocess.run(["git", "archive", commit], cwd=project, capture_output=True, check=True)
        subprocess.run(["tar", "-x"], cwd=folder, input=archive.stdout, check=True)
    made = subprocess.run([folder / "lab" / "setup"], stdout=subprocess.PIPE, text=True, check=True)
    return Path(made.stdout.splitlines()[-1])


@contextmanager
def _site() -> Iterator[tuple[Path, HubProcess]]:
    with tempfile.TemporaryDirectory(prefix="mep-bench-") as name, LocalAccount(ACCOUNT):
        folder = Path(name)
        folder.chmod(0o755)
        with PrivateBroker(folder / "broker") as broker, HubProcess(folder / "hub", broker, ["admin", "alice"]) as hub:
            yield folder, hub


def _measure_all(hub: HubProcess, manager: ManagerProcess | PublicManager, starts: int) -> Figures:
    endpoint_id = manager.endpoint_id
    engines = {engine: _measure(hub, endpoint_id, engine, starts) for engine in ENGINES}
    edge = Edge(hub, "alice")
    try:
        before, begin = _processor_time(manager.pid), time.perf_counter()
        expected: dict[str, int] = {}
        for run in range(BURST):
            expected |= edge.submit(endpoint_id, {"ENGINE": ENGINES[0], "RUN": f"burst {run}"}, [run])
        edge.results(expected)
        burst = time.perf_counter() - begin
        processor_time = _processor_time(manager.pid) - before
        time.sleep(IDLE)
        memory = sum(_pss(process.pid) for process in _own_processes(manager.pid))
    finally:
        edge.close()
    return Figures(engines, burst, 1000 * processor_time / BURST, memory)


def _own_processes(manager: int) -> list[psutil.Process]:
    """The manager, and what it has started that is not the account's."""
    uid = pwd.getpwnam(ACCOUNT).pw_uid
    root = psutil.Process(manager)
    found = [root]
    for process in root.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if uid not in process.uids():
                found.append(process)
    return found


def _processor_time(manager: int) -> float:
    """Seconds of the manager's processes, with those of their children that have ended."""
    total = 0.0
    for process in _own_processes(manager):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += sum(process.cpu_times()[:4])
    return total


def _measure(hub: HubProcess, endpoint_id: str, engine: str, starts: int) -> EngineFigures:
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
    return EngineFigures(
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


def _print(figures: dict[str, Figures]) -> None:
    rows = [
        ("command -> first heartbeat, s", "first_heartbeat", "{:.2f}"),
        ("command -> first result, s", "first_result", "{:.2f}"),
        ("one task, warm, ms", "warm_task", "{:.0f}"),
        (f"tasks per second ({BATCH} at once)", "tasks_per_second", "{:.0f}"),
        ("memory (PSS), MiB", "memory", "{:.0f}"),
    ]
    ours, *others = figures
    print(f"{'':<38}{'engine':<22}{ours:>9}" + "".join(f"{name:>12}{'ratio':>8}" for name in others))
    for title, field, form in rows:
        for engine in ENGINES:
            values = [getattr(each.engines[engine], field) for each in figures.values()]
            _print_row(title, engine, form, values, more_is_better=field == "tasks_per_second")
            title = ""
    whole = [
        (f"{BURST} starts at once, s to last result", "burst", "{:.2f}"),
        ("manager's processor time of a start, ms", "processor_time", "{:.0f}"),
        ("memory of the manager's processes, MiB", "memory", "{:.0f}"),
    ]
    for title, field, form in whole:
        _print_row(title, "", form, [getattr(each, field) for each in figures.values()])


def _print_row(title: str, engine: str, form: str, values: list[float], *, more_is_better: bool = False) -> None:
    first, *others = values
    line = f"{title:<38}{engine:<22}{form.format(first):>9}"
    for other in others:
        ratio = first / other if more_is_better else other / first
        line += f"{form.format(other):>12}{ratio:>7.1f}x"
    print(line)


if __name__ == "__main__":
    main()
