"""The metrics of a manager, as Prometheus' own client package reads them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mep.worker import metrics, resources
from mep.worker.api import METRICS, Api
from mep.worker.durations import _MOST, BOUNDS, Durations
from mep.worker.event_loop import EventLoop
from mep.worker.events import Events
from uep.engines.registry import ENGINES

PROJECT_ROOT = Path(__file__).parents[3]
STATUS = {"connection": "connected", "user_endpoints": "3 user endpoints", "records": "audit trail: a disk is full"}
MANAGER: dict[str, Any] = {
    "pid": os.getpid(),
    "endpoint": "ID",
    "began": 5,
    "configuration": 'a"b\\c\nd',
    "status": STATUS,
    "line": "connected",
    "errors": [],
    "lost_audit_lines": 7,
    "orders": {"drain": {"since": 1, "until": 0, "reason": "a service day", "by_uid": 0}, "bans": []},
}
ENDPOINT: dict[str, Any] = {
    "name": "uep",
    "account": "secret_account",
    "uid": 1234,
    "identity": "secret-identity",
    "username": "secret@example.org",
    "state": "running, asked again",
    "adopted": True,
    "pid": 2**22,
    "cgroup": None,
    "figures": '{"engine": "ThreadPoolEngine"}',
}
HELD = {"kind": "breaker", "uid": 1234, "until": 5, "reason": "4 failed starts in a row"}
Values = dict[str, dict[tuple[tuple[str, str], ...], float]]


def scraped(
    endpoints: list[dict[str, Any]], events: Events | None = None, durations: Durations | None = None, **more: Any
) -> tuple[Values, str]:
    """What the API answers, as it is read: the values of each metric by labels; and as it came."""
    facts = {"manager": {**MANAGER, **more}, "left_out": 2, "user_endpoints": endpoints, "held_back": [HELD]}

    async def ask() -> bytes:
        return json.dumps(facts).encode()

    loop = EventLoop()
    try:
        answer = loop.run_until_complete(Api(ask, events or Events(), durations or Durations()).answer(METRICS))
    finally:
        loop.close()
    assert (answer.status, answer.kind) == (200, metrics.KIND)
    text, values = answer.body.decode(), Values()
    for family in text_string_to_metric_families(text):
        assert family.type in ("counter", "gauge", "histogram") and family.documentation, family.name
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            assert labels not in values.setdefault(sample.name, {}), "each once"
            values[sample.name][labels] = sample.value
    return values, text


def by(label: str, value: str) -> tuple[tuple[str, str], ...]:
    return ((label, value),)


def test_how_the_manager_is() -> None:
    values, _ = scraped([ENDPOINT])
    ((about, one),) = values["mep_info"].items()
    assert (dict(about)["configuration"], one) == (MANAGER["configuration"], 1), "whatever a label holds"
    assert values["mep_connected"] == {(): 1}
    assert values["mep_trouble"][by("part", "records")] == 1 and sum(values["mep_trouble"].values()) == 1
    assert values["mep_audit_lines_lost_total"] == {(): 7}
    assert values["mep_held_back"] == {
        by("by", kind): count for kind, count in (("breaker", 1), ("limit", 0), ("ban", 0), ("drain", 1))
    }
    assert values["mep_start_time_seconds"] == {(): 5}
    assert scraped([], status={"connection": "not connected (refused)"})[0]["mep_connected"] == {(): 0}


def test_user_endpoints_by_state_and_engine() -> None:
    values, _ = scraped([ENDPOINT, {**ENDPOINT, "state": "starting", "figures": "", "adopted": False}])
    there = {tuple(dict(labels).values()): count for labels, count in values["mep_user_endpoints"].items() if count}
    assert there == {
        ("ThreadPoolEngine", "running"): 1,
        ("unknown", "starting"): 1,
        ("unknown", "unknown"): 2,
    }, "those that were left out count, too"
    assert values["mep_user_endpoints_adopted"] == {(): 1}


def test_nothing_of_users_is_told_and_they_make_no_labels() -> None:
    said = [json.dumps({"engine": f'x{number}"}} 1\nmep_connected 0'}) for number in range(50)]
    values, text = scraped([{**ENDPOINT, "figures": each} for each in said])
    assert "secret" not in text and "1234" not in text
    assert values["mep_connected"] == {(): 1}
    assert {dict(labels)["engine"] for labels in values["mep_user_endpoints"]} == {"other", "unknown"}


def test_engines_are_those_that_there_are() -> None:
    assert set(metrics.ENGINES) == set(ENGINES)


def test_decisions_are_counted() -> None:
    events = Events()
    for event, stage in (
        *(("started", None), ("started", None), ("refreshed", None)),
        *(("refused", "identity"), ("refused", "running"), ("refused", "new")),
    ):
        events.add({"event": event, "request": "r", "stage": stage})
    values, _ = scraped([], events)
    assert values["mep_starts_total"] == {
        by("outcome", outcome): count
        for outcome, count in (("started", 2), ("refreshed", 1), ("refused", 2), ("superseded", 0))
    }, "one that ended later had started"
    refused = {dict(labels)["stage"]: count for labels, count in values["mep_refusals_total"].items() if count}
    assert refused == {"identity": 1, "running": 1, "new": 1}
    assert values["mep_decisions_total"][by("event", "refused")] == 3


def test_steps_of_a_start_are_timed() -> None:
    now = [0.0]
    durations = Durations(lambda: now[0])
    for event, at in (("received", 0.0), ("mapped", 0.2), ("starting", 3.0), ("started", 3.0)):
        now[0] = at
        durations.add({"event": event, "request": "r1"})
    durations.add({"event": "checked in", "request": "r1", "seconds": 400.0})
    for number, events in enumerate(
        (["received"], ["received", "mapped"], ["received", "refused"], ["received", "mapped", "refreshed"])
    ):
        for event in events:
            durations.add({"event": event, "request": f"other{number}"})
    durations.add({"event": "exited", "request": "other1"})
    values, _ = scraped([], None, durations)
    counts = {dict(labels)["step"]: count for labels, count in values["mep_start_step_seconds_count"].items()}
    assert counts == {"identification": 3, "preparation": 1, "launch": 1, "check_in": 1}
    sums = {dict(labels)["step"]: count for labels, count in values["mep_start_step_seconds_sum"].items()}
    assert sums == pytest.approx({"identification": 0.2, "preparation": 2.8, "launch": 0, "check_in": 400})
    buckets = {
        dict(labels)["le"]: count
        for labels, count in values["mep_start_step_seconds_bucket"].items()
        if dict(labels)["step"] == "check_in"
    }
    assert list(map(float, buckets)) == [*BOUNDS, float("inf")] and list(buckets.values()) == [0] * len(BOUNDS) + [1]
    preparing = (("le", "5.0"), ("step", "preparation"))
    assert values["mep_start_step_seconds_bucket"][preparing] == 1
    assert values["mep_starts_under_way"] == {
        by("step", step): count for step, count in (("identification", 1), ("preparation", 1), ("launch", 0))
    }


def test_what_never_ends_is_forgotten() -> None:
    durations = Durations()
    for number in range(_MOST + 5):
        durations.add({"event": "received", "request": f"r{number}"})
    assert durations.under_way()["identification"] == _MOST


def test_our_processes_and_no_user_endpoint() -> None:
    program = [sys.executable, "-c", "import time; time.sleep(600)", "-m", "mep.mapper.server"]
    ours, users = (subprocess.Popen(program) for _ in range(2))
    try:
        used = resources.of_manager(os.getpid(), {users.pid})
        assert set(used) == {"manager", "mapper"}
        assert used["manager"][0] > 2**20 and used["manager"][1] > 0
        assert set(resources.of_manager(os.getpid(), {users.pid, ours.pid})) == {"manager"}
    finally:
        for process in (ours, users):
            process.kill()
            process.wait()


def test_the_document_names_each_metric() -> None:
    document = (PROJECT_ROOT / "docs" / "api.md").read_text()
    for family in text_string_to_metric_families(scraped([])[1]):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert f"`{name}`" in document, name
