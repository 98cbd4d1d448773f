"""The API of a manager over its real chain: the monitor's facts, the worker's process, the socket, and who may ask."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from mep.worker import figures, resources
from mep.worker.api import DESCRIPTION, METRICS, Api
from mep.worker.durations import Durations
from mep.worker.event_loop import EventLoop
from mep.worker.events import MOST, Events

PROJECT_ROOT = Path(__file__).parents[3]

OPENAPI = json.loads(DESCRIPTION.read_bytes())
ENDPOINT: dict[str, Any] = {
    "name": "uep",
    "account": "bob",
    "uid": 1234,
    "identity": "an-identity",
    "username": "bob@example.org",
    "request": "r1",
    "state": "running",
    "since": 1.0,
    "checked_in_after": 0.5,
    "adopted": False,
    "pid": os.getpid(),
    "scope": None,
    "cgroup": None,
    "configuration": "abc",
    "jobs": "",
    "ending": "",
    "figures": '{"engine": "ThreadPoolEngine", "waiting": 3, "running": 2, "done": 1, "batch_jobs": ["7"]}',
}
ORDERS = {
    "drain": {"since": 1, "until": 0, "reason": "a service day", "by_uid": 0},
    "bans": [{"target": "bob", "since": 1, "until": 2**31, "reason": "asked for it", "by_uid": 0, "ends": True}],
}
HELD = {"kind": "breaker", "uid": 1234, "until": 5, "reason": "4 failed starts in a row"}


def facts(**more: Any) -> bytes:
    status = {"connection": "connected", "user_endpoints": "1 user endpoint"}
    errors = [{"time": 1, "level": "ERROR", "text": "a disk is full"}]
    about = {"pid": 42, "endpoint": "ID", "began": 1, "configuration": "abc", "status": status, "line": "connected"}
    said = {"manager": {**about, "errors": errors, "lost_audit_lines": 0, "orders": ORDERS}, "left_out": 0}
    return json.dumps({**said, "user_endpoints": [ENDPOINT], "held_back": [HELD], **more}).encode()


class Asked:
    """An API of these facts, in this process, and who asks it: a socket pair's other end for each request."""

    def __init__(self, said: bytes, events: Events | None = None) -> None:
        self.questions = 0
        self._said = said
        self.api = Api(self._facts, events or Events(), Durations())

    async def _facts(self) -> bytes:
        self.questions += 1
        return self._said

    def get(self, target: str) -> tuple[int, dict[str, Any]]:
        loop = EventLoop()
        try:
            answer = loop.run_until_complete(self.api.answer(target))
        finally:
            loop.close()
        return answer.status, json.loads(answer.body)


def schema(path: str, status: str = "200") -> dict[str, Any]:
    """What the description says of an answer."""
    answer = OPENAPI["paths"][path]["get"]["responses"][status]["content"]["application/json"]["schema"]
    return {**answer, "components": OPENAPI["components"]}


def test_the_description_has_what_the_program_answers() -> None:
    """Each path, each parameter, and the form of each answer: nothing more, nothing less."""
    events = Events()
    events.add({"event": "refused", "request": "r1", "stage": "admission", "reason": "no", "identity": "i"})
    asked = Asked(facts(), events)
    described = {
        path: {parameter["name"] for parameter in said["get"]["parameters"]} for path, said in OPENAPI["paths"].items()
    }
    assert described == {path: set(parameters) for path, parameters in asked.api.paths.items()}
    for path, said in OPENAPI["paths"].items():
        assert list(said) == ["get"]
        if path != METRICS:  # which is text: test_metrics.py
            status, answer = asked.get(path)
            assert status == 200
            jsonschema.Draft202012Validator(schema(path)).validate(answer)
        status, answer = asked.get(f"{path}?nosuch=1")
        assert status == 400
        jsonschema.Draft202012Validator(schema(path, "400")).validate(answer)
    everything = json.dumps(OPENAPI)
    assert set(OPENAPI["components"]["schemas"]["UserEndpoint"]["properties"]) == set(
        asked.get("/v1/user-endpoints")[1]["user_endpoints"][0]
    )
    assert all(f'"#/components/schemas/{name}"' in everything for name in OPENAPI["components"]["schemas"])


def test_the_document_names_each_path_and_parameter() -> None:
    document = (PROJECT_ROOT / "docs" / "api.md").read_text()
    for path, said in OPENAPI["paths"].items():
        assert f"`{path}`" in document
        for parameter in said["get"]["parameters"]:
            assert f"`{parameter['name']}`" in document
    for name in OPENAPI["components"]["schemas"]["UserEndpoint"]["properties"]:
        assert f"`{name}`" in document


def test_what_is_told_of_a_user_endpoint() -> None:
    status, answer = Asked(facts()).get("/v1/user-endpoints")
    (told,) = answer["user_endpoints"]
    assert (status, told["engine"], told["waiting"], told["running"], told["done"]) == (
        200,
        "ThreadPoolEngine",
        3,
        2,
        1,
    )
    assert told["batch_jobs"] == ["7"] and told["blocks"] is None
    assert told["memory_bytes"] > 2**20 and told["cpu_seconds"] > 0


def test_who_is_held_back_by_whom() -> None:
    _, answer = Asked(facts()).get("/v1/held-back")
    assert [(each["kind"], each["target"], each["until"]) for each in answer["held_back"]] == [
        ("drain", None, None),
        ("ban", "bob", 2**31),
        ("breaker", None, 5),
    ]
    assert answer["held_back"][2]["account"] == "bob"
    assert Asked(facts()).get("/v1/status")[1]["held_back"] == 3


@pytest.mark.parametrize(
    "target", ["/v1/status?a=1&a=2", *(f"/v1/events?limit{value}" for value in ("=0", "=1e3", ""))]
)
def test_what_is_asked_wrongly(target: str) -> None:
    status, answer = Asked(facts()).get(target)
    assert status == 400 and answer["error"]


@pytest.mark.parametrize(
    "target", ["/", "/v1", "/v1/../v1/status", "//v1/status", "http://[", "*", "/v1/status\x00", "/%2e"]
)
def test_what_is_not_there(target: str) -> None:
    assert Asked(facts()).get(target)[0] in (400, 404)


def test_the_newest_events_are_kept_and_counted() -> None:
    now = [1_000_000.0]
    events = Events(lambda: now[0])
    for number in range(MOST + 50):
        now[0] += 1
        events.add({"event": "received", "request": f"r{number}", "account": "bob" if number % 2 else "ada"})
    asked = Asked(facts(), events)
    newest = asked.get("/v1/events?limit=1000&account=bob")[1]["events"]
    assert len(newest) == MOST / 2 and newest[0]["request"] == f"r{MOST + 49}"
    assert asked.get("/v1/events?request=r1049")[1]["events"] == [newest[0]]
    assert asked.get("/v1/events?request=r1")[1]["events"] == [], "it is too old"
    counted = asked.get("/v1/status")[1]["events"]
    assert counted["totals"] == {"received": MOST + 50} == counted["last_hour"]
    assert 60 <= counted["last_minute"]["received"] <= 120
    now[0] += 86400
    assert asked.get("/v1/status")[1]["events"]["last_day"] == {}


@pytest.mark.parametrize(
    "said",
    [
        *("", "x", "[]", "null", "[" * 10**5),
        '{"waiting": -1, "done": 1e400, "running": true, "engine": 5, "batch_jobs": {}}',
        '{"waiting": "5", "blocks": NaN, "workers": 1e300, "batch_jobs": [1, null, {}], "provider": [], "more": 1}',
        f'{{"waiting": 1{"0" * 400}, "done": -1{"0" * 400}, "blocks": Infinity, "workers": -Infinity}}',
    ],
)
def test_what_a_user_endpoint_makes_up_is_left_out(said: str) -> None:
    assert figures.read(said) == figures.NOTHING


def test_what_a_user_endpoint_says_is_bounded_and_steers_nothing() -> None:
    said = {"engine": "\x1b[2J" + "x" * 1000, "batch_jobs": ["\x1b"] * 1000, "waiting": 3.9}
    read = figures.read(json.dumps(said))
    assert read["engine"].startswith("\\x1b[2J") and len(read["engine"]) < 100
    assert read["batch_jobs"] == ["\\x1b"] * 20 and read["waiting"] == 3


def test_cgroups_of_both_versions(tmp_path: Path) -> None:
    second = tmp_path / "uep.scope"
    second.mkdir()
    (second / "memory.current").write_text("4096\n")
    (second / "cpu.stat").write_text("usage_usec 1500000\nuser_usec 1000000\n")
    assert resources.used(str(second), 1) == (4096, 1.5)
    first = tmp_path / "memory" / "uep.scope"
    first.mkdir(parents=True)
    (first / "memory.usage_in_bytes").write_text("8192\n")
    cpu = tmp_path / "cpu,cpuacct" / "uep.scope"
    cpu.mkdir(parents=True)
    (cpu / "cpuacct.usage").write_text("2500000000\n")
    assert resources.used(str(first), 1) == (8192, 2.5)
    assert resources.used(str(tmp_path / "gone"), 1) == (None, None)


def test_without_a_cgroup_all_processes_count() -> None:
    alone, _ = resources.used(None, os.getpid())
    child = os.fork()
    if child == 0:
        time.sleep(600)
    try:
        both, cpu = resources.used(None, os.getpid())
        assert alone is not None and both is not None and cpu is not None
        assert both > alone
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert resources.used(None, child) == (None, None)
