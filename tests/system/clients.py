"""What users of the system tests do: their scripts, and the outcomes of their tasks."""

from __future__ import annotations

import json
from typing import Any

from lab.client import run_script
from lab.hub import HubProcess
from lab.manager import ManagerProcess

CALL = """
import json, sys
from globus_compute_sdk import Executor
from globus_compute_sdk.errors import TaskExecutionFailed

def call():
    import getpass, os
    return {"uid": os.getuid(), "euid": os.geteuid(), "groups": os.getgroups(), "pid": os.getpid(), "cwd": os.getcwd()}

with Executor(endpoint_id=sys.argv[1], user_endpoint_config=json.loads(sys.argv[2])) as ex:
    future = ex.submit(call)
    try:
        print(json.dumps(future.result(timeout=60)))
    except TaskExecutionFailed as e:
        print(json.dumps({"error": str(e).strip()}))
"""
THREE_TASKS = """
import json, sys
from globus_compute_sdk import Executor
from globus_compute_sdk.errors import TaskExecutionFailed

def work(n):
    if n == 2:
        raise ValueError("no")
    return n

with Executor(endpoint_id=sys.argv[1]) as ex:
    futures = [ex.submit(work, n) for n in range(3)]
    for future in futures:
        future.exception(timeout=60)
    print(json.dumps([future.task_id for future in futures]))
"""
"""Of which the last one fails; prints their ids."""
IDLE = {"PERIOD": 0.5, "SOFT": 2}
"""Options of a user endpoint that is soon gone."""
SUBMIT = """
import json, sys
from globus_compute_sdk import Executor
from globus_compute_sdk.errors import TaskExecutionFailed

{function}

endpoint, all_options, arguments, one_by_one = sys.argv[1], *map(json.loads, sys.argv[2:])
with Executor(endpoint_id=endpoint, api_burst_limit=8, api_burst_window_s=1) as ex:
    def outcome(future):
        try:
            print(json.dumps(future.result(timeout=100)))
        except TaskExecutionFailed as e:
            print(json.dumps({{"error": str(e).strip()}}))

    futures = []
    for options in all_options:
        ex.user_endpoint_config = options
        futures.append(ex.submit(task, *arguments))
        if one_by_one:
            outcome(futures.pop())
    for future in futures:
        outcome(future)
"""
WHERE = """
def task():
    import os
    return {"uid": os.getuid(), "pid": os.getpid()}
"""
SLEEP = """
def task(path):
    import pathlib, time
    pathlib.Path(path).touch()
    time.sleep(600)
"""


def caller(hub: HubProcess, manager: ManagerProcess) -> Any:
    def run(user: str, **options: Any) -> dict[str, Any]:
        (said,) = run_script(hub, user, CALL, manager.endpoint_id, json.dumps(options))
        assert isinstance(said, dict)
        return said

    return run


def submit(
    hub: HubProcess,
    site: ManagerProcess,
    user: str,
    *all_options: dict[str, Any],
    **how: Any,
) -> list[dict[str, Any]]:
    """`submit_to` the endpoint of a site."""
    return submit_to(hub, site.endpoint_id, user, *all_options, **how)


def submit_to(
    hub: HubProcess,
    endpoint_id: str,
    user: str,
    *all_options: dict[str, Any],
    function: str = WHERE,
    arguments: list[Any] | None = None,
    one_by_one: bool = False,
) -> list[dict[str, Any]]:
    """Submits a function `task` once with each of the options, as a user would: what came back, or {"error": text}."""
    script = SUBMIT.format(function=function)
    texts = (json.dumps(list(all_options)), json.dumps(arguments or []), json.dumps(one_by_one))
    return run_script(hub, user, script, endpoint_id, *texts)


def request_of(said: dict[str, Any]) -> str:
    """The id of the request that was refused."""
    return str(said["error"]).rsplit("(request ", 1)[1].rstrip(")")
