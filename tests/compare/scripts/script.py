"""What a client script of the comparison is, and what it knows of where it runs.

What scripts end with, and what is expected of them, is in the form that `outcome` has.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from globus_compute_sdk import Client, Executor

from tests.compare.scripts.outcome import canonical

TIMEOUT = 60.0
"""Seconds for a result; one that has not come is a TimeoutError."""
TIMEOUT_OF_KILLED = 30.0
"""The same for tasks that may end their worker: they run when the others have ended, and some are never answered."""

THREADS, PROCESSES, PARSL = "ThreadPoolEngine", "ProcessPoolEngine", "GlobusComputeEngine"
SANDBOXED = (PARSL,)
"""The engines that the test's template gives `run_in_sandbox`."""

STRATEGY = "globus_compute_sdk.serialize.concretes."


@dataclass(frozen=True)
class Script:
    """`expected` is the outcome that the script should have, without the frames of a traceback. One that `kills` may
    end the worker that it runs in, so it runs when the others have ended."""

    name: str
    run: Callable[[Site], Any]
    expected: dict[str, str]
    engines: tuple[str, ...]
    kills: bool


SCRIPTS: dict[str, Script] = {}


def script(
    *,
    returns: Any = None,
    fails: str | None = None,
    raises: str | None = None,
    on: tuple[str, ...] = (THREADS, PROCESSES, PARSL),
    name: str = "",
    kills: bool = False,
) -> Callable[[Callable[[Site], Any]], Callable[[Site], Any]]:
    """Registers a script that returns this value, or whose task fails with this last line of its traceback, or that
    ends with this exception (with its module) in the client."""
    if fails is not None:
        expected = {"error": "globus_compute_sdk.errors.error_types.TaskExecutionFailed", "remote": fails}
    else:
        expected = {"value": canonical(returns)} if raises is None else {"error": raises}

    def register(run: Callable[[Site], Any]) -> Callable[[Site], Any]:
        title = name or run.__name__
        assert title not in SCRIPTS, title
        SCRIPTS[title] = Script(title, run, expected, on, kills)
        return run

    return register


class Site:
    """Where the scripts send their tasks."""

    def __init__(self, endpoint_id: str, engine: str, config: dict[str, Any]) -> None:
        self.endpoint_id = endpoint_id
        self.engine = engine
        self.config = config
        self.timeout = TIMEOUT
        self.client = Client()

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The result of one task."""
        with self.executor() as executor:
            return executor.submit(function, *args, **kwargs).result(self.timeout)

    @contextmanager
    def executor(self, client: Client | None = None, **options: Any) -> Iterator[Executor]:
        """An executor with a task group of its own: two in one group would take each other's results.

        Its end does not wait: a result that never comes is an outcome too.
        """
        executor = Executor(
            endpoint_id=self.endpoint_id,
            client=client or self.client,
            user_endpoint_config=self.config,
            api_burst_limit=8,
            api_burst_window_s=1,
            **options,
        )
        executor.task_group_id = None
        try:
            yield executor
        finally:
            executor.shutdown(wait=False, cancel_futures=True)

    def run_batch(self, calls: dict[str, list[Any]], **options: Any) -> dict[str, Any]:
        """The answer to a batch: `calls` has lists of positional arguments by function id."""
        batch = self.client.create_batch(user_endpoint_config=self.config, **options)
        for function_id, many in calls.items():
            for args in many:
                batch.add(function_id, args)
        return self.client.batch_run(self.endpoint_id, batch)

    def ended(self, *task_ids: str) -> None:
        """Returns once these tasks have ended."""
        deadline = time.monotonic() + TIMEOUT
        web = self.client._compute_web_client.v2  # get_batch_result would say nothing of those that failed
        while True:
            answers = web.get_task_batch(task_ids)["results"]
            if all(answers[task_id]["status"] in ("success", "failed") for task_id in task_ids):
                return
            assert time.monotonic() < deadline, answers
            time.sleep(0.2)
