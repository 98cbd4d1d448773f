"""Tasks by REST: what clients read of them, and whose they are."""

from __future__ import annotations

import time

import pytest

from hub.amqp import topology
from hub.amqp.passwords import Passwords
from hub.callers import Callers
from hub.limits import Limits, Turns
from hub.routes import tasks as module
from hub.routes.tasks import TaskRoutes
from hub.tokens import Tokens
from tests.hub.units import ALICE, BOB, CLIENTS, CONFIG, Rest, StubBroker, add_task, change, new_id, one, run
from wire.messages import ErrorDetails, Result, Transition, pack


@pytest.fixture
def broker():
    return StubBroker()


@pytest.fixture
def rest(store, broker):
    return Rest(
        TaskRoutes(
            store, Tokens(store, Callers(store, CLIENTS), Turns(Limits())), broker, Passwords(store), CONFIG
        ).routes(),
        store,
    )


@pytest.fixture
def task(store):
    """A waiting task of Alice's: its id and its group."""
    return run(add_task(store, new_id(), has_queue=False))


def end(store, task, **result):
    body = pack(Result(task, **{"data": "value", **result}))
    run(
        change(
            store,
            "UPDATE task SET ended_at = :ended_at, result = :result WHERE id = :id",
            ended_at=time.time(),
            result=body,
            id=task,
        )
    )


def show(rest, task, caller=ALICE):
    return run(rest("GET", f"/v2/tasks/{task}", caller))


def test_a_task_has_ended_when_it_has_a_time_of_completion(rest, store, task):
    told = show(rest, task[0]).json
    assert (told["task_id"], told["task_group_id"], told["status"]) == (*task, "waiting-for-ep")
    assert told["details"] == {"reason": told["reason"], "endpoint_id": one(store, "SELECT * FROM task").user_endpoint}
    assert "completion_t" not in told
    end(
        store, task[0], details={"os": "Linux"}, task_statuses=(Transition(5_500_000_000, "execution-start", "worker"),)
    )
    told = show(rest, task[0]).json
    assert (told["status"], told["result"]) == ("success", "value")
    assert told["details"] == {"os": "Linux", "task_transitions": {"execution-start": 5.5}}
    assert float(told["completion_t"]) <= time.time()
    assert "exception" not in told


def test_details_that_are_no_object_are_left_out(rest, store, task):
    end(store, task[0], details=["os"])
    assert "details" not in show(rest, task[0]).json


def test_a_failure_says_why(rest, store, task):
    end(store, task[0], data="Traceback", error_details=ErrorDetails("CODE", "no such account"))
    told = show(rest, task[0]).json
    assert (told["status"], told["exception"], told["reason"]) == ("failed", "Traceback", "no such account")
    assert "result" not in told


def test_a_task_is_its_owners(rest, task):
    for answer in (show(rest, task[0], BOB), show(rest, new_id()), show(rest, "x")):
        assert (answer.status, answer.json["code"]) == (404, "TASK_NOT_FOUND")


def test_many_tasks_in_one_call(rest, store, task, monkeypatch):
    mine = [task[0], *(run(add_task(store, new_id()))[0] for _ in range(2))]
    theirs, _ = run(add_task(store, new_id(), BOB))
    end(store, mine[0])

    def ask(ids):
        return run(rest("POST", "/v2/batch_status", ALICE, body={"task_ids": ids})).json["results"]

    told = ask([*(task.upper() for task in mine), theirs, new_id(), 7])
    assert set(told) == set(mine)
    assert [told[task]["status"] for task in mine] == ["success", "waiting-for-ep", "waiting-for-ep"]
    monkeypatch.setattr(module, "BATCH_LIMIT", 2)
    assert set(ask(mine)) == set(mine[:2])
    assert run(rest("POST", "/v2/batch_status", ALICE, body={"task_ids": "x"})).status == 422


def test_many_large_results_are_read_part_by_part(rest, store, monkeypatch):
    mine = [run(add_task(store, new_id()))[0] for _ in range(4)]
    for task in mine:
        end(store, task, data="x" * 1000)
    read = []
    original = store.read

    async def reading(query, **values):
        rows = await original(query, **values)
        read.append(sum(len(getattr(row, "result", None) or b"") > 1000 for row in rows))
        return rows

    monkeypatch.setattr(store, "read", reading)
    for most, tasks, together in ((2500, 200, 2), (10, 200, 1), (10**6, 3, 3)):
        monkeypatch.setattr(module, "PART_BYTES", most)
        monkeypatch.setattr(module, "PART_TASKS", tasks)
        read.clear()
        told = run(rest("POST", "/v2/batch_status", ALICE, body={"task_ids": mine})).json["results"]
        assert list(told) == mine
        assert {each["result"] for each in told.values()} == {"x" * 1000}
        assert max(read) == together


def test_who_asks_for_a_group_gets_a_queue_for_what_is_to_come(rest, store, broker, task):
    path = f"/v2/taskgroup/{task[1]}"
    told = run(rest("GET", path, ALICE)).json
    assert told == {"taskgroup_id": task[1], "tasks": [{"id": task[0]}]}
    queue = topology.client_queue_prefix(ALICE.identity.id) + task[1]
    assert broker.calls == [("declare for a client", queue)]
    assert one(store, "SELECT has_queue FROM task_group").has_queue == 1
    for answer in (run(rest("GET", path, BOB)), run(rest("GET", f"/v2/taskgroup/{new_id()}", ALICE))):
        assert (answer.status, answer.json["code"]) == (404, "TASK_GROUP_NOT_FOUND")
    assert len(broker.calls) == 1


def test_where_results_are_read(rest, store):
    told = run(rest("GET", "/v2/get_amqp_result_connection_url", ALICE)).json
    account = topology.client_account(ALICE.identity.id)
    assert told["queue_prefix"] == f"{account}."
    password = told["connection_url"].removeprefix(f"amqps://{account}:").partition("@")[0]
    assert run(Passwords(store).is_valid(account, password))
