"""The way of a task through the hub: the unmodified public client on one side, a small AMQP peer on the other."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import globus_sdk
import pytest
from globus_compute_sdk import Client, Executor
from globus_compute_sdk.errors import TaskExecutionFailed

from lab.hub import HubProcess
from lab.waiting import until
from tests.hub.peer import PeerManager, UserEndpoint
from wire.messages import Result

pytestmark = pytest.mark.system

SAMPLE = Path(__file__).parent / "command.json"
"""A start command as captured once; runtime and options, which are the client's, left out."""


def double(x):
    return 2 * x


def fail():
    raise ValueError("no")


@pytest.fixture
def executor(client: Callable[[str], Client], manager: PeerManager) -> Iterator[Executor]:
    """Alice's executor on the manager of this test."""
    Executor._default_task_group_id = None  # the public client shares it between executors, also of other users
    with Executor(manager.id, client=client("alice")) as executor:
        yield executor
        executor.shutdown(wait=False, cancel_futures=True)
        executor._task_submitter.join(10)  # it may be about to start the thread that reads results


@pytest.fixture
def endpoint(manager: PeerManager) -> Iterator[Callable[..., UserEndpoint]]:
    """Starts the user endpoint that `command`, or the next one, asks for, or one that does not check in."""
    started = []

    def start(command: dict[str, Any] | None = None, *, check_in: bool = True) -> UserEndpoint:
        started.append(UserEndpoint(command or manager.next_command()[1]))
        if check_in:
            started[-1].heartbeat()
        return started[-1]

    yield start
    for endpoint in started:
        endpoint.close()


def test_results_and_errors_reach_the_executor(executor, endpoint):
    futures = [executor.submit(double, 21), executor.submit(fail)]
    uep = endpoint()
    for _ in futures:
        uep.run(uep.take()[1])

    assert futures[0].result(timeout=10) == 42
    with pytest.raises(TaskExecutionFailed, match="no"):
        futures[1].result(timeout=10)


def test_command_and_task_carry_what_a_manager_needs(executor, manager):
    executor.user_endpoint_config = {"b": [1], "a": "x"}
    executor.resource_specification = {"num_nodes": 2}
    executor.submit(double, 1)

    properties, command = manager.next_command()

    assert properties.content_type == "application/json"
    assert abs(properties.timestamp - time.time()) < 5
    assert command["globus_username"] == "alice@example.org"
    assert [(i["username"], i["status"]) for i in command["globus_identity_set"]] == [
        ("alice@example.org", "used"),
        ("al@other.example", "private"),
    ]
    assert command["globus_effective_identity"] == command["globus_identity_set"][0]["sub"]
    kwargs = command["kwargs"]
    assert kwargs["name"] == f"uep.{manager.id}.{kwargs['amqp_creds']['endpoint_id']}"
    assert kwargs["user_opts"] == {"a": "x", "b": [1]}
    assert kwargs["user_runtime"]["globus_compute_sdk_version"]
    uep = UserEndpoint(command)
    headers, task = uep.take()
    uep.close()
    assert headers["task_uuid"] == task.task_id
    assert json.loads(headers["resource_specification"]) == {"num_nodes": 2}
    assert headers["result_serializers"] == []


def test_command_has_the_shape_of_the_sample(executor, manager):
    def shape(value):
        if isinstance(value, dict):
            return {k: shape(v) for k, v in value.items() if k not in ("user_opts", "user_runtime")}
        return [shape(value[0])] if isinstance(value, list) else type(value)

    executor.submit(double, 1)
    assert shape(manager.next_command()[1]) == shape(json.loads(SAMPLE.read_text()))


def test_user_endpoint_id_depends_on_options_but_not_on_their_order(executor, manager):
    ids = []
    for options in ({"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1}):
        executor.user_endpoint_config = options
        executor.submit(double, 1)
        ids.append(manager.next_command()[1]["kwargs"]["amqp_creds"]["endpoint_id"])
    assert ids[0] == ids[1] != ids[2]


def test_function_registered_as_source(executor, endpoint):
    source = "def helper(x):\n    return x + 1\n\ndef grow(x):\n    return helper(x) * 2\n"
    future = executor.submit_to_registered_function(executor.register_source_code(source, "grow"), (20,))
    uep = endpoint()
    uep.run(uep.take()[1])
    assert future.result(timeout=10) == 42


def test_client_run_get_task_and_batch(client, manager, endpoint):
    gcc = client("alice")
    function = gcc.register_function(double)
    done, waiting = (gcc.run(x, endpoint_id=manager.id, function_id=function) for x in (4, 5))
    uep = endpoint()
    uep.run(uep.take()[1])

    until(lambda: not gcc.get_task(done)["pending"], "the end of the task")
    assert gcc.get_result(done) == 8
    batch = client("alice").get_batch_result([done, waiting])
    assert batch[done]["result"] == 8
    assert batch[waiting]["pending"]


def test_what_a_client_reads_of_a_task_that_has_not_ended(client, manager, endpoint):
    gcc = client("alice")
    function = gcc.register_function(double)
    tasks = [gcc.run(x, endpoint_id=manager.id, function_id=function) for x in (1, 2)]

    def states():
        told = [gcc.get_task(task) for task in tasks]
        assert all(each["pending"] and each["details"]["reason"] for each in told)
        return [each["status"] for each in told]

    assert states() == ["waiting-for-ep", "waiting-for-ep"]
    assert "offline" in gcc.get_task(tasks[0])["details"]["reason"]
    uep = endpoint()
    for figures, expected in (
        ({"total_workers": 0, "active_managers": 0}, ["waiting-for-nodes", "waiting-for-nodes"]),
        ({"total_workers": 1, "active_managers": 1}, ["running", "waiting-for-launch"]),
        ({"active": False}, ["waiting-for-ep", "waiting-for-ep"]),
    ):
        uep.heartbeat(**figures)
        until(lambda expected=expected: states() == expected, f"the states {expected}")


def test_a_future_that_is_cancelled_after_its_submission_runs_all_the_same(client, executor, endpoint):
    """As docs/hub-api.md says: nothing in the public client ends a task that the service has."""
    future = executor.submit(double, 21)
    uep = endpoint()
    until(lambda: future.task_id, "the answer to the submission")
    assert future.cancel()
    uep.run(uep.take()[1])
    gcc = client("alice")
    until(lambda: not gcc.get_task(future.task_id)["pending"], "the end of the task")
    assert gcc.get_result(future.task_id) == 42
    assert future.cancelled()


def test_a_batch_in_the_form_of_older_clients(client, manager, endpoint):
    gcc = client("alice")
    functions = [gcc.register_function(each) for each in (double, fail)]
    batch = gcc.create_batch()
    for function in functions:
        batch.add(function, (4,) if function == functions[0] else ())
    group, packed = str(uuid.uuid4()), batch.prepare()["tasks"]
    tasks = [[function, manager.id, packed[function][0]] for function in reversed(functions)]
    web = gcc._compute_web_client.v2
    told = web.submit({"task_group_id": group, "create_websocket_queue": False, "tasks": tasks})
    assert told["task_group_id"] == group
    failed, done = (result["task_uuid"] for result in told["results"])
    uep = endpoint()
    for _ in tasks:
        uep.run(uep.take()[1])
    until(lambda: not gcc.get_task(done)["pending"], "the end of the task")
    assert gcc.get_result(done) == 8
    until(lambda: web.get_task(failed)["status"] == "failed", "the failure of the other")
    assert {task["id"] for task in web.get_task_group(group)["tasks"]} == {failed, done}


def test_failed_start_fails_waiting_tasks(client, executor, endpoint):
    future = executor.submit(double, 1)
    uep = endpoint(check_in=False)
    uep.heartbeat(error="no such account \ud800", heartbeat_period=3)

    with pytest.raises(TaskExecutionFailed, match="no such account"):
        future.result(timeout=10)
    task = client("alice")._compute_web_client.v2.get_task(future.task_id)
    assert task["status"] == "failed"
    assert uep.tasks.get(0.3) is None
    assert client("alice").get_endpoint_status(uep.id)["status"] == "offline"


def test_a_notice_that_comes_late_fails_nothing_that_a_successor_has(client, executor, endpoint):
    future = executor.submit(double, 1)
    uep = endpoint()
    task = uep.take()[1]
    uep.heartbeat(error="the one before it has died", heartbeat_period=3)
    waiting = executor.submit(double, 2)
    uep.run(task)
    assert future.result(timeout=10) == 2
    uep.run(uep.take()[1])
    assert waiting.result(timeout=10) == 4


def test_a_dead_one_of_which_the_broker_does_not_know_yet_is_failed_once_it_does(client, executor, endpoint):
    taken, waiting = executor.submit(double, 1), executor.submit(double, 2)
    dead = endpoint()
    dead.take()
    dead.heartbeat(error="killed by signal 9", heartbeat_period=3)
    again = client("alice")
    until(lambda: again.get_endpoint_status(dead.id)["status"] == "offline", "the notice to be read")
    assert not (taken.done() or waiting.done())
    dead.tasks.close()
    for future in (taken, waiting):
        with pytest.raises(TaskExecutionFailed, match="killed by signal 9"):
            future.result(timeout=30)


def test_first_end_counts_and_only_from_the_endpoint_that_has_the_task(client, executor, manager, endpoint):
    future = executor.submit(double, 1)
    mine = endpoint()
    task = mine.take()[1]
    Executor._default_task_group_id = None
    with Executor(manager.id, client=client("bob")) as other:
        other.submit(double, 1)
        stranger = endpoint()
        stranger.send(Result(task.task_id, "forged"))
        mine.send(Result(str(uuid.uuid4()), "unknown"))
        mine.run(task)
        assert future.result(timeout=10) == 2
        mine.send(Result(task.task_id, "again"))
        other.shutdown(wait=False, cancel_futures=True)
    assert client("alice").get_result(future.task_id) == 2


def test_nonsense_in_the_queues_harms_nobody(executor, endpoint):
    future = executor.submit(double, 3)
    uep = endpoint()
    task = uep.take()[1]
    for body in (b"", b"\x01{", b"\x01[]", b'\x01{"message_type":"result","data":{}}'):
        uep._results.publish(body)
        uep._heartbeats.publish(body)
    uep._results.publish(
        b'\x01{"message_type":"result","data":{"task_id":"%s","data":"x","task_statuses":5}}' % task.task_id.encode()
    )
    uep.heartbeat(heartbeat_period=10**400)
    uep.run(task)
    assert future.result(timeout=10) == 6


def test_tasks_wait_for_a_manager_that_comes_back(client, executor, manager, endpoint):
    future = executor.submit(double, 5)
    first = endpoint()
    first.tasks.get(ack=False)
    first.heartbeat(active=False)
    first.close()  # the broker takes the task back

    second = endpoint(manager.command_after_heartbeats())
    second.run(second.take()[1])
    assert future.result(timeout=10) == 10
    manager.heartbeat()
    assert manager.no_command(0.5)


def test_status_and_timeline(client, executor, manager, endpoint):
    gcc = client("alice")

    def is_online():
        status = gcc.get_endpoint_status(manager.id)["status"]
        assert status in ("online", "offline")
        return status == "online"

    assert not is_online()
    manager.heartbeat(0.4)
    until(is_online, "the manager to be online")
    until(lambda: not is_online(), "its heartbeat to be too old")
    manager.heartbeat(30)
    until(is_online, "the manager to be online again")
    manager.heartbeat(0)
    until(lambda: not is_online(), "its goodbye")

    executor.submit(double, 1)
    uep = endpoint()
    uep.run(uep.take()[1])
    timeline = f"/hub/v1/endpoints/{uep.id}/timeline"

    def with_results():
        return [s for s in gcc._compute_web_client.v2.get(timeline)["starts"] if s["first_result_at"]]

    start = until(with_results, "a start with a result")[0]
    assert start["commanded_at"] <= start["first_heartbeat_at"] <= start["first_result_at"]
    whole = client("admin")._compute_web_client.v2.get(f"/hub/v1/endpoints/{manager.id}/timeline")
    assert [u["endpoint_id"] for u in whole["user_endpoints"]] == [uep.id]
    for path in (timeline, f"/hub/v1/endpoints/{manager.id}/timeline"):
        with pytest.raises(globus_sdk.GlobusAPIError) as refused:
            client("bob")._compute_web_client.v2.get(path)
        assert refused.value.http_status == 403


def test_reload_tasks_reattaches(client, manager, endpoint):
    gcc = client("alice")
    function = gcc.register_function(double)
    batch = gcc.create_batch()
    for x in (1, 2):
        batch.add(function, (x,))
    group = gcc.batch_run(manager.id, batch)["task_group_id"]
    uep = endpoint()
    uep.run(uep.take()[1])
    until(lambda: gcc._compute_web_client.v2.get_task_group(group)["tasks"], "the tasks of the group")
    with Executor(manager.id, client=gcc, task_group_id=group) as executor:
        futures = list(executor.reload_tasks())
        uep.run(uep.take()[1])
        assert sorted(future.result(timeout=10) for future in futures) == [2, 4]


def test_results_survive_a_crash_of_the_hub(hub: HubProcess, executor, endpoint):
    futures = [executor.submit(double, x) for x in range(3)]
    uep = endpoint()
    first, *others = [uep.take()[1] for _ in futures]
    uep.run(first)  # the broker asks the hub about a channel's first message, then never again
    hub.kill()
    for task in others:
        uep.run(task)
    hub.start()
    assert [future.result(timeout=15) for future in futures] == [0, 2, 4]
