"""The metrics of a manager, in Prometheus' text format (version 0.0.4). `api` calls `of_events` and `of_manager`.

Numbers and words of ours only: no account, no identity, and of what user endpoints say nothing but the name of an
engine that there is. The format is written here because the package that does it takes 3 MB in each worker and brings
web servers along; `tests/mep/worker/test_metrics.py` has that package read what comes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from mep.worker import resources
from mep.worker.durations import BOUNDS, Durations
from mep.worker.events import Events

KIND = "text/plain; version=0.0.4; charset=utf-8"
ENGINES = ("ThreadPoolEngine", "ProcessPoolEngine", "GlobusComputeEngine", "GlobusMPIEngine")
"""Those of `mep-uep`. What else a user endpoint says is `other`, and one that says nothing has `unknown`."""
OUTCOMES = ("started", "refreshed", "refused", "superseded")
STAGES = (
    *("command", "identity", "account", "admission", "orders", "options", "template"),
    *("containment", "launch", "audit", "running", "manager"),
)
"""Of refusals; what is not here yet is shown once it has come."""
TROUBLES = ("instances", "profile", "mapping", "containment", "records", "jobs")
"""Parts of the status that are there only when something is wrong."""
HELD = ("breaker", "limit", "ban", "drain")
STATES = ("starting", "running", "draining", "stopping", "missed")

Sample = tuple[Mapping[str, str], float]


def of_events(events: Events, durations: Durations) -> str:
    """What has been decided since the worker began."""
    stages = {**dict.fromkeys(STAGES, 0), **events.refusals}
    outcomes = {outcome: events.totals[outcome] for outcome in OUTCOMES}
    outcomes["refused"] -= stages["running"]  # these had started
    decided = [({"event": event}, count) for event, count in sorted(events.totals.items())]
    told = [
        _family("mep_worker_start_time_seconds", "gauge", "When the counting began.", [({}, events.since)]),
        _family("mep_starts_total", "counter", "Start commands by outcome.", _by("outcome", outcomes)),
        _family("mep_refusals_total", "counter", "Refusals by stage.", _by("stage", stages)),
        _family("mep_decisions_total", "counter", "Decisions by event of the audit trail.", decided),
        _family("mep_starts_under_way", "gauge", "Starts that are not decided.", _by("step", durations.under_way())),
        _family("mep_start_step_seconds", "histogram", "Duration of the steps of a start.", []),
    ]
    bounds = [*map(str, BOUNDS), "+Inf"]
    for step, taken in durations.taken.items():
        cumulative = taken.cumulative()
        for bound, count in zip(bounds, cumulative, strict=True):
            told.append(_sample("mep_start_step_seconds_bucket", {"step": step, "le": bound}, count))
        told.append(_sample("mep_start_step_seconds_sum", {"step": step}, taken.sum))
        told.append(_sample("mep_start_step_seconds_count", {"step": step}, cumulative[-1]))
    return "".join(told)


def of_manager(manager: Mapping[str, Any], user_endpoints: bytes, held_back: bytes) -> str:
    """How the manager is now, made of other answers. Reads what processes use: for a thread."""
    shown, held = json.loads(user_endpoints), json.loads(held_back)["held_back"]
    endpoints, left_out = shown["user_endpoints"], shown["left_out"]
    status, counted = manager["status"], Counter((_state(each), _engine(each)) for each in endpoints)
    counted.update({(state, "unknown"): 0 for state in STATES})  # so that there is something to look at
    counted["unknown", "unknown"] = left_out
    running = [({"state": state, "engine": engine}, count) for (state, engine), count in sorted(counted.items())]
    kinds = {**dict.fromkeys(HELD, 0), **Counter(each["kind"] for each in held)}
    troubles = {name: name in status for name in TROUBLES}
    about = {name: str(manager[name]) for name in ("version", "configuration", "endpoint")}
    used = resources.of_manager(manager["pid"], {each["pid"] for each in endpoints})
    memory = {name: bytes_ for name, (bytes_, _) in used.items()}
    cpu = {name: seconds for name, (_, seconds) in used.items()}
    adopted = sum(bool(each["adopted"]) for each in endpoints)
    return "".join(
        (
            _family("mep_info", "gauge", "What runs.", [(about, 1)]),
            _family("mep_start_time_seconds", "gauge", "When the manager began to serve.", [({}, manager["began"])]),
            _family(
                "mep_connected",
                "gauge",
                "Whether start commands can come from the broker.",
                [({}, status.get("connection") == "connected")],
            ),
            _family("mep_trouble", "gauge", "Whether something is wrong, by part.", _by("part", troubles)),
            _family(
                "mep_audit_lines_lost_total",
                "counter",
                "Lines of the audit trail that could not be written.",
                [({}, manager["lost_audit_lines"])],
            ),
            _family("mep_held_back", "gauge", "Who gets no new user endpoint now, by what.", _by("by", kinds)),
            _family("mep_user_endpoints", "gauge", "User endpoints that run.", running),
            _family("mep_user_endpoints_adopted", "gauge", "Those of an earlier manager.", [({}, adopted)]),
            _family("mep_process_resident_memory_bytes", "gauge", "Memory of our processes.", _by("process", memory)),
            _family("mep_process_cpu_seconds_total", "counter", "Processor time of ours.", _by("process", cpu)),
        )
    )


def _state(endpoint: Mapping[str, Any]) -> str:
    return str(endpoint["state"]).partition(",")[0]


def _engine(endpoint: Mapping[str, Any]) -> str:
    said = endpoint["engine"]
    return "unknown" if said is None else said if said in ENGINES else "other"


def _by(label: str, values: Mapping[str, float]) -> list[Sample]:
    return [({label: name}, value) for name, value in values.items()]


def _family(name: str, kind: str, text: str, samples: Iterable[Sample]) -> str:
    lines = "".join(_sample(name, labels, value) for labels, value in samples)
    return f"# HELP {name} {text}\n# TYPE {name} {kind}\n{lines}"


def _sample(name: str, labels: Mapping[str, str], value: float) -> str:
    said = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
    return f"{name}{{{said}}} {value + 0}\n" if said else f"{name} {value + 0}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
