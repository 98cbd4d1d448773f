"""What is too much, or too large, waits at the broker or is answered with an error."""

from __future__ import annotations

import re
import time
import uuid
from pathlib import Path

import pika
import psutil
import pytest

from hub.setup.rabbitmq import MOST_BYTES
from lab.broker import PrivateBroker
from lab.waiting import until
from tests.uep import functions
from tests.uep.program import HTEX, PROCESSES, THREADS, StartUep, kept_results
from tests.uep.service import Service
from uep import error_results
from uep.workers.serialization import RESULT_LIMIT
from wire import messages

pytestmark = pytest.mark.system


def fail_at_length(size):
    raise ValueError("begin " + "x" * size + " end")


def length_when_told(go, data):
    import os
    import time

    while not os.path.exists(go):
        time.sleep(0.05)
    return len(data)


def test_flood_of_tasks(start_uep: StartUep, service: Service) -> None:
    uep = start_uep()
    service.call(functions.sleep, 0.01)
    process = psutil.Process(uep.process.pid)
    before = process.memory_info().rss
    body = messages.pack(messages.Task(str(uuid.uuid4()), service.pack(functions.sleep, 0.05)))
    for _ in range(100_000):
        properties = pika.BasicProperties(headers={"task_uuid": str(uuid.uuid4())})
        service.channel.basic_publish("tasks", service.task_queue, body, properties)
    until(lambda: service.waiting_tasks() > 50_000, "the flood to wait", 60)
    most = 0
    for _ in range(30):
        most = max(most, process.memory_info().rss)
        time.sleep(0.1)
    assert service.waiting_tasks() > 50_000
    assert most - before < 150 << 20, f"{(most - before) >> 20} MiB"
    assert uep.stop() == 0


@pytest.mark.parametrize("configuration", [THREADS, PROCESSES], ids=["threads", "processes"])
def test_flood_of_large_tasks(configuration: str, start_uep: StartUep, service: Service, tmp_path: Path) -> None:
    """As large as tasks may be: most of them wait at the broker, not in the endpoint's memory."""
    go = tmp_path / "go"
    buffer = service.pack(length_when_told, str(go), "x" * (8 << 20))
    for _ in range(120):
        service.send_buffer(buffer)
    until(lambda: service.waiting_tasks() == 120, "all tasks to wait", 60)
    process = psutil.Process(start_uep(configuration).process.pid)
    until(lambda: service.waiting_tasks() < 90, "tasks to come", 60)
    most = 0
    for _ in range(60):
        most = max(most, process.memory_info().rss)
        time.sleep(0.1)
    assert service.waiting_tasks() > 70
    assert most < 700 << 20, f"{most >> 20} MiB"
    go.touch()
    results = service.results(120, 120)
    assert {service.value(result) for result in results.values()} == {8 << 20}


@pytest.mark.parametrize("configuration", [THREADS, PROCESSES, HTEX], ids=["threads", "processes", "htex"])
def test_results_that_are_too_large(configuration: str, start_uep: StartUep, service: Service) -> None:
    start_uep(configuration)
    service.send(functions.zeros, RESULT_LIMIT + 1)
    value = service.result(30)
    assert value.error_details is not None
    assert value.error_details.code == "MaxResultSizeExceeded"
    assert re.search(r"Write it to a file.*\nMaxResultSizeExceeded\(\d+, 10485760\)$", value.data)
    service.send(fail_at_length, RESULT_LIMIT)
    error = service.result(30)
    assert error.error_details is not None
    assert error.error_details.code == "RemoteExecutionError"
    assert "ValueError: begin xxx" in error.data
    assert error.data.endswith("xxx end\n")
    assert re.search(r"\[\.\.\. \d+ characters left out \.\.\.\]", error.data)
    assert len(error.data) < 1 << 20
    assert len(service.call(functions.zeros, 5 << 20)) == 5 << 20


def test_a_result_that_the_broker_does_not_take(
    start_uep: StartUep, service: Service, broker: PrivateBroker, tmp_path: Path
) -> None:
    """RabbitMQ closes the connection when it comes. It must not keep the others from being sent, nor come for ever."""
    most = 300_000
    broker.ctl("eval", f"application:set_env(rabbit, max_message_size, {most}).")
    try:
        uep = start_uep()
        large = {service.send(functions.zeros, size): size for size in (most, 2 * most)}
        small = [service.send(functions.sleep, n / 100) for n in range(30)]
        results: dict[str, messages.Result] = {}
        while not results.keys() >= {*large, *small}:  # what was on its way with a large one comes twice
            result = service.result(60)
            results[result.task_id] = result
    finally:
        broker.ctl("eval", f"application:set_env(rabbit, max_message_size, {MOST_BYTES}).")
    for task in large:
        error = results[task].error_details
        assert error is not None
        assert error.code == "MaxResultSizeExceeded"
        assert re.search(rf"\nMaxResultSizeExceeded\(\d+, {most}\)$", results[task].data)
        assert f"takes no more than {most}" in results[task].data
    assert [service.value(results[task]) for task in small] == [n / 100 for n in range(30)]
    until(lambda: kept_results(uep.directory) == [], "all results to be removed", 60)


def test_whatever_a_worker_sends_is_bounded() -> None:
    task_id = str(uuid.uuid4())
    large = messages.pack(messages.Result(task_id, "x" * (RESULT_LIMIT + 1)))
    bounded = messages.unpack(error_results.bounded(task_id, large))
    assert isinstance(bounded, messages.Result)
    assert bounded.error_details is not None
    assert bounded.error_details.code == "MaxResultSizeExceeded"
    assert bounded.data.endswith(f"\nMaxResultSizeExceeded({RESULT_LIMIT + 1}, {RESULT_LIMIT})")
    just_so = messages.pack(messages.Result(task_id, "x" * RESULT_LIMIT))
    assert error_results.bounded(task_id, just_so) == just_so
    for rubbish in (b"x" * (RESULT_LIMIT + 1), messages.pack(messages.Task(task_id, "x" * RESULT_LIMIT))):
        refused = messages.unpack(error_results.bounded(task_id, rubbish))
        assert isinstance(refused, messages.Result)
        assert (refused.task_id, refused.error_details is None) == (task_id, False)
