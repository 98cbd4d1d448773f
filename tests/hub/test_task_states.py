"""What a task that has not ended waits for, by what is heard of its user endpoint."""

from __future__ import annotations

import json
import time

import pytest

from hub.task_states import TaskStates
from tests.hub.units import add_manager, add_task, add_user_endpoint, change, new_id, run

POOL = {"total_workers": 2, "engine_type": "ThreadPoolEngine"}
BLOCKS = {"total_workers": 2, "managers": 1, "active_managers": 1}


class Site:
    """A manager, a user endpoint of it, and three tasks."""

    def __init__(self, store):
        self.store = store
        self.manager = run(add_manager(store))
        self.endpoint = run(add_user_endpoint(store, self.manager))
        self.tasks = [run(add_task(store, self.endpoint))[0] for _ in range(3)]

    def heard(self, table, endpoint, report=None, ago=0.0):
        sql = f"UPDATE {table} SET heartbeat_at = :at, heartbeat_period = 30, report = :report WHERE id = :id"
        run(change(self.store, sql, at=time.time() - ago, report=json.dumps(report or {}), id=endpoint))

    def start(self, **times):
        values = {"user_endpoint": self.endpoint, **times}
        marks = ", ".join(f":{name}" for name in values)
        run(change(self.store, f"INSERT INTO start({', '.join(values)}) VALUES ({marks})", **values))

    def states(self):
        async def asked():
            states = TaskStates(self.store)
            return [await states.of(task, self.endpoint) for task in self.tasks]

        return run(asked())

    def words(self):
        return [state.status for state in self.states()]


@pytest.fixture
def site(store):
    return Site(store)


def test_without_a_user_endpoint_tasks_wait_for_it_and_say_why(site):
    site.start(commanded_at=1)
    assert {(s.status, "offline" in s.reason) for s in site.states()} == {("waiting-for-ep", True)}
    site.heard("endpoint", site.manager)
    assert {(s.status, "being started" in s.reason) for s in site.states()} == {("waiting-for-ep", True)}
    site.start(commanded_at=2, first_heartbeat_at=3)
    site.heard("user_endpoint", site.endpoint, POOL, ago=1000)
    assert {(s.status, "has ended" in s.reason) for s in site.states()} == {("waiting-for-ep", True)}
    assert run(TaskStates(site.store).of(site.tasks[0], new_id())).status == "waiting-for-ep"


@pytest.mark.parametrize("report", [POOL, BLOCKS], ids=["pool", "blocks"])
def test_as_many_run_as_there_are_workers_and_the_oldest_first(site, report):
    site.heard("user_endpoint", site.endpoint, report)
    assert site.words() == ["running", "running", "waiting-for-launch"]
    run(change(site.store, "UPDATE task SET ended_at = 1, result = '' WHERE id = :id", id=site.tasks[0]))
    assert site.words()[1:] == ["running", "running"]


def test_without_workers_tasks_wait_for_nodes(site):
    site.heard("user_endpoint", site.endpoint, {"total_workers": 0, "managers": 0, "active_managers": 0})
    assert site.words() == ["waiting-for-nodes"] * 3


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        ({"provider_type": "SlurmProvider", "queue": "gpu"}, "its batch job in queue gpu has not begun"),
        ({"provider_type": "SlurmProvider", "queue": None}, "its batch job has not begun"),
        ({"provider_type": "SlurmProvider", "queue": "\x1b[31m" + 100 * "x"}, "in queue \\x1b[31mxxx"),
        ({"provider_type": "LocalProvider", "queue": ["gpu"]}, "they are being started"),
        ({}, "they are being started"),
    ],
)
def test_the_reason_names_the_queue_of_the_batch_system(site, report, reason):
    site.heard("user_endpoint", site.endpoint, {"total_workers": 0, "active_managers": 0, **report})
    assert all(f"no workers yet: {reason}" in s.reason or reason in s.reason for s in site.states())
    assert all(len(s.reason) < 250 and s.reason.isprintable() for s in site.states())


def test_the_reason_says_how_many_wait_before(site, monkeypatch):
    monkeypatch.setattr("hub.task_states.COUNTED", 2)
    site.heard("user_endpoint", site.endpoint, {**BLOCKS, "total_workers": 1, "managers": 1})
    site.tasks.append(run(add_task(site.store, site.endpoint))[0])
    for number, task in enumerate(site.tasks):
        run(change(site.store, "UPDATE task SET submitted_at = :at WHERE id = :id", at=number, id=task))
    busy = "All workers of your user endpoint are busy with earlier tasks"
    assert [state.reason for state in site.states()] == [
        "Your user endpoint has a worker for it",
        f"{busy}; this one is the next",
        f"{busy}; tasks of yours that wait before this one: 1",
        f"{busy}; tasks of yours that wait before this one: 2 or more",
    ]


def test_a_block_that_takes_no_more_tasks_still_runs_those_that_it_has(site):
    site.heard("user_endpoint", site.endpoint, {**BLOCKS, "active_managers": 0})
    assert site.words() == ["running", "running", "waiting-for-nodes"]


@pytest.mark.parametrize("workers", [None, "2", True, -1, 2.0, [], 10**30])
def test_a_report_that_makes_no_sense_harms_nobody(site, workers):
    site.heard("user_endpoint", site.endpoint, {"total_workers": workers, "active_managers": {}})
    assert set(site.words()) <= {"waiting-for-nodes", "running"}


def test_what_a_user_endpoint_makes_first_is_told(site):
    """A pool has told its workers before they are there; what it says of itself is a stranger's text."""
    site.heard("endpoint", site.manager)
    site.heard("user_endpoint", site.endpoint, {**POOL, "preparing": "making an environment\x1b[2J" + "x" * 1000})
    (state,) = set(site.states())
    assert state.status == "waiting-for-nodes"
    assert state.reason.startswith("Your user endpoint is not ready yet: making an environment\\x1b[2Jxxx")
    assert len(state.reason) < 400
    site.heard("user_endpoint", site.endpoint, {**POOL, "preparing": ["x"]})
    assert site.words() == ["running", "running", "waiting-for-launch"]
