"""Many tasks, and the client's other calls."""

import shutil
import tempfile
import uuid
from pathlib import Path

from globus_compute_sdk import Client
from globus_compute_sdk.errors import TaskPending

from tests.compare.scripts.outcome import failure_of
from tests.compare.scripts.script import PARSL, PROCESSES, THREADS, TIMEOUT, script


@script(returns=[n * n for n in range(1000)])
def thousand_tasks(site):
    def square(n):
        return n * n

    with site.executor() as executor:
        futures = [executor.submit(square, n) for n in range(1000)]
        return [future.result(TIMEOUT) for future in futures]


@script(raises="builtins.NotImplementedError")
def executor_map(site):
    with site.executor() as executor:
        return list(executor.map(lambda x: x, [1]))


@script(returns=[{2, 3, 4}, {"a!", "b!"}, 5])
def batch(site):
    plus = site.client.register_function(lambda n: n + 1)
    shout = site.client.register_function(lambda text: text + "!")
    tasks = site.run_batch({plus: [(1,), (2,), (3,)], shout: [("a",), ("b",)]})["tasks"]
    site.ended(*tasks[plus], *tasks[shout])
    results = site.client.get_batch_result(tasks[plus] + tasks[shout])
    values = [{results[task]["result"] for task in tasks[function]} for function in (plus, shout)]
    return [*values, sum(1 for each in results.values() if not each["pending"] and each["status"] == "success")]


@script(returns=(1, "TaskExecutionFailed: ZeroDivisionError: division by zero"))
def batch_with_a_failure(site):
    divide = site.client.register_function(lambda n: 1 / n)
    tasks = site.run_batch({divide: [(1,), (0,)]})["tasks"][divide]
    site.ended(*tasks)
    results = site.client.get_batch_result(tasks)  # leaves the failed one out
    return len(results), failure_of(lambda: site.client.get_result(tasks[1]))


# It has no way to give options, and so reaches the template's default engine only.
@script(returns=8, on=(THREADS,))
def client_run(site):
    cube = site.client.register_function(lambda n, power=1: n**power)
    task = site.client.run(2, endpoint_id=site.endpoint_id, function_id=cube, power=3)
    site.ended(task)
    return site.client.get_result(task)


DETAILS = ["dill_version", "endpoint_id", "globus_compute_sdk_version", "os", "python_version"]


SHOWN = ["completion_t", "details", "pending", "result", "status"]


@script(returns=(SHOWN, False, "success", [*DETAILS, "task_transitions"], DETAILS))
def get_task(site):
    function = site.client.register_function(lambda: None)
    (task,) = site.run_batch({function: [()]})["tasks"][function]
    site.ended(task)
    shown = site.client.get_task(task)
    there = sorted(key for key, value in shown["details"].items() if isinstance(value, str))
    return sorted(shown), shown["pending"], shown["status"], sorted(shown["details"]), there


@script(returns=("TaskPending", "done"))
def get_result_while_pending(site):
    def wait(path):
        import os
        import time

        deadline = time.monotonic() + 60
        while not os.path.exists(path):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return "done"

    folder = Path(tempfile.mkdtemp(prefix="mep-compare-"))
    folder.chmod(0o755)
    try:
        function = site.client.register_function(wait)
        (task,) = site.run_batch({function: [(str(folder / "go"),)]})["tasks"][function]
        try:
            pending = site.client.get_result(task)
        except TaskPending as e:
            pending = type(e).__name__
        (folder / "go").touch()
        site.ended(task)
        return pending, site.client.get_result(task)
    finally:
        shutil.rmtree(folder)


@script(returns="TaskExecutionFailed: ValueError: failed")
def get_result_of_a_failure(site):
    def f():
        raise ValueError("failed")

    function = site.client.register_function(f)
    (task,) = site.run_batch({function: [()]})["tasks"][function]
    site.ended(task)
    return failure_of(lambda: site.client.get_result(task))


@script(returns=[0, 1, 4, 9, "TaskExecutionFailed: ZeroDivisionError: division by zero"])
def reload_tasks(site):
    function = site.client.register_function(lambda n: n * n if n < 4 else n / 0)
    group = site.run_batch({function: [(n,) for n in range(5)]}, create_websocket_queue=True)["task_group_id"]
    with site.executor(Client()) as executor:
        futures = list(executor.reload_tasks(group))
        values = [future.result(TIMEOUT) for future in futures[:4]]
        return [*sorted(values), failure_of(lambda: futures[4].result(TIMEOUT))]


@script(returns="TaskExecutionFailed: ValueError", on=(THREADS, PROCESSES))
def resource_specification_in_a_pool(site):
    with site.executor(resource_specification={"num_nodes": 2}) as executor:
        said = failure_of(lambda: executor.submit(lambda: 1).result(TIMEOUT))
    return ": ".join(said.split(": ")[:2])


@script(returns="TaskExecutionFailed: parsl.executors.errors.InvalidResourceSpecification", on=(PARSL,))
def resource_specification_without_mpi(site):
    with site.executor(resource_specification={"num_nodes": 2}) as executor:
        said = failure_of(lambda: executor.submit(lambda: 1).result(TIMEOUT))
    return ": ".join(said.split(": ")[:2])


@script(raises="globus_sdk.services.compute.errors.ComputeAPIError")
def unknown_function(site):
    with site.executor() as executor:
        return executor.submit_to_registered_function(str(uuid.uuid4())).result(TIMEOUT)


@script(returns=(True, True, "CancelledError", 2))
def cancelled(site):
    with site.executor() as executor:
        future = executor.submit(lambda: 1)
        accepted = future.cancel()
        other = executor.submit(lambda: 2).result(TIMEOUT)
        return accepted, future.cancelled(), failure_of(lambda: future.result(1)), other


@script(returns=("ValueError", 5))
def registered_twice(site):
    def f():
        return 5

    with site.executor() as executor:
        function = executor.register_function(f)
        again = failure_of(lambda: executor.register_function(f))
        return again, executor.submit_to_registered_function(function).result(TIMEOUT)


@script(returns=[2, "from source"])
def registered_as_source(site):
    source = "import math\ndef helper(x):\n    return math.sqrt(x)\ndef f(x, y):\n    return [round(helper(x)), y]\n"
    with site.executor() as executor:
        function = executor.register_source_code(source, "f")
        return executor.submit_to_registered_function(function, (4,), {"y": "from source"}).result(TIMEOUT)


@script(returns=True)
def hardware_report(site):
    with site.executor() as executor:
        return "Compute Endpoint worker" in executor.get_worker_hardware_details()
