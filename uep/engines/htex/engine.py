"""GlobusComputeEngine and GlobusMPIEngine: tasks on whatever Parsl can reach, from this machine to a batch system.

Parsl's HighThroughputExecutor (MPIExecutor), used directly: its interchange starts right after check-in, the first
blocks are asked for at once, and a task's arrival is not left to a timer. `scaling` then keeps the number of blocks as
the provider says.

Options: those of the executor, and `provider`, `address`, `strategy`, `job_status_kwargs`, `encrypted` (default true)
and the container options of `worker_command`. The executor's names are known only when Parsl is imported: an option
that it does not take, or not with such a value, is reported by `start`.
"""

from __future__ import annotations

import contextlib
import logging
import math
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, ClassVar

from uep.config import ConfigError, unknown
from uep.engines.base import Engine, EngineContext, TaskRequest
from uep.engines.options import Kinds, check
from uep.workers import parsl_program

log = logging.getLogger(__name__)

COMMAND_TIME = 5.0
"""Seconds for the interchange to answer a question."""
SHUTDOWN_TIME = 5.0
"""Seconds for the interchange to end."""
PREFETCH = 8
"""Tasks that wait on the node, beside those that run, when there is only one: they could go nowhere else."""

_OURS: Mapping[str, Kinds] = {
    "provider": dict,
    "address": (str, dict),
    "strategy": (str, dict),
    "job_status_kwargs": dict,
    "encrypted": bool,
    "container_type": str,
    "container_uri": str,
    "container_cmd_options": str,
}
_STRATEGY = {"strategy": "simple", "max_idletime": 120.0, "strategy_period": 5.0}
_OLD_STRATEGIES: Mapping[str, str] = {"SimpleStrategy": "simple"}
"""What the types of older configurations, whose `strategy` is a mapping, are called now."""


class GlobusComputeEngine(Engine):
    """See the module."""

    PREFETCHES: ClassVar[bool] = True
    OPTIONS: ClassVar[Mapping[str, Kinds]] = _OURS
    TAKES_OTHERS: ClassVar[bool] = True
    NOT_HERE: ClassVar[Mapping[str, str]] = {
        "executor": "the options of the executor belong directly under engine",
        "enable_mpi_mode": "MPI needs GlobusMPIEngine",
        "mpi_launcher": "MPI needs GlobusMPIEngine",
    }

    def __init__(self, context: EngineContext, options: Mapping[str, Any]) -> None:
        super().__init__(context, options)
        self._executor: Any = None
        self._scaling: Any = None
        self._function = ""
        self._stopping = False

    def start(self) -> None:
        self._check_serializers()
        if not log.isEnabledFor(logging.DEBUG):
            logging.getLogger("parsl").setLevel(logging.WARNING)
        from uep.engines.htex.scaling import Scaling

        with parsl_program.partial_parsl_imports(type_checks=True):
            executor = self._make_executor()
            scaling = Scaling(executor, **self._strategy())
        executor.start()
        threading.Thread(target=self._watch, args=(executor,), name="interchange-watch", daemon=True).start()
        self._executor = executor
        self._scaling = scaling
        scaling.start()

    def stop(self) -> None:
        executor, self._executor, self._stopping = self._executor, None, True
        if self._scaling is not None:
            self._scaling.stop()
            self._scaling = None
        if executor is not None:
            executor.shutdown(timeout=SHUTDOWN_TIME)

    def status(self) -> dict[str, Any]:
        executor = self._executor
        if executor is None:
            return self._status_before_start()
        provider = executor.provider
        managers = executor.command_client.run("MANAGERS", timeout_s=COMMAND_TIME)
        packages = executor.command_client.run("MANAGERS_PACKAGES", timeout_s=COMMAND_TIME)
        running = sum(min(m["tasks"], m["worker_count"]) for m in managers)
        self._note_failure(executor)
        return {
            "managers": len(managers),
            "active_managers": sum(1 for m in managers if m["active"]),
            "total_workers": sum(m["worker_count"] for m in managers),
            "idle_workers": sum(max(0, m["worker_count"] - m["tasks"]) for m in managers),
            "pending_tasks": max(0, executor.outstanding() - running),
            "outstanding_tasks": executor.outstanding(),
            "total_tasks": executor._task_counter,
            "scaling_enabled": provider.max_blocks > 0,
            "mem_per_worker": executor.mem_per_worker,
            "cores_per_worker": executor.cores_per_worker,
            "prefetch_capacity": executor.prefetch_capacity,
            "max_blocks": provider.max_blocks,
            "min_blocks": provider.min_blocks,
            "max_workers_per_node": _finite(executor.max_workers_per_node),
            "nodes_per_block": provider.nodes_per_block,
            "node_info": _nodes(managers, packages, executor.blocks_to_job_id),
            "engine_type": self.name,
            "provider_type": type(provider).__name__,
            "queue": _first(provider, "queue", "partition"),
            "account": _first(provider, "account", "allocation", "project"),
        }

    def _launch(self, task: TaskRequest) -> Future[bytes]:
        resources = self._resources(task)
        arguments = (task.task_id, self.context.endpoint_id)
        context: dict[str, Any] = {
            "task_executor": {"f": self._function, "a": arguments, "k": self.task_options(task)},
        }
        if resources:
            context["resource_spec"] = resources
        executor, scaling = self._executor, self._scaling
        running: Future[bytes] = executor.submit_payload(context, task.body)
        scaling.task_came()
        running.add_done_callback(lambda done: self._ended(executor, scaling, done))
        return running

    def _resources(self, task: TaskRequest) -> dict[str, Any]:
        """What the task wants, completed by Parsl. Raises InvalidResourceSpecification, as Parsl does."""
        resources = dict(task.resource_specification)
        self._executor.validate_resource_spec(resources)
        return resources

    def _executor_class(self) -> Any:
        from parsl.executors.high_throughput.executor import HighThroughputExecutor

        return HighThroughputExecutor

    def _make_executor(self) -> Any:
        from uep.engines.htex import providers
        from uep.engines.htex.worker_command import command_and_function

        options = {key: value for key, value in self._options.items() if key not in _NOT_THE_EXECUTORS}
        provider = providers.provider(self._options.get("provider", {"type": "LocalProvider"}))
        address = self._address(provider)
        # Without an address the executor would ask a service on the internet for one.
        options |= {"provider": provider, "address": address or "127.0.0.1", "label": self._label()}
        options |= {"encrypted": self._options.get("encrypted", True)}
        if self.PREFETCHES and _is_one_node_here(provider):
            options.setdefault("prefetch_capacity", PREFETCH)
        executor = providers.call(self.name, self._executor_class(), options)
        if address is None:
            executor.address, executor.all_addresses = None, providers.local_addresses()
        self._prepare(executor)
        executor.launch_cmd, self._function = command_and_function(
            self._options, provider, executor.launch_cmd, self.context.directory
        )
        return executor

    def _address(self, provider: Any) -> str | None:
        """Where the interchange listens; None: everywhere, for workers on other machines."""
        from uep.engines.htex import providers

        if "address" in self._options:
            return providers.address(self._options["address"])
        return "127.0.0.1" if type(provider).__name__ == "LocalProvider" and provider.nodes_per_block == 1 else None

    def _prepare(self, executor: Any) -> None:
        """What Parsl's DataFlowKernel would set, and how to start the interchange."""
        executor.run_dir = str(self.context.directory)
        executor.run_id = self.context.endpoint_id
        executor.log_config = None
        executor.monitoring_messages = None
        executor.interchange_launch_cmd = [sys.executable, parsl_program.__file__, "interchange"]
        executor._check_python_mismatch = False  # worker_init may bring another Python: the wire format is the same
        scripts = self.context.directory / "submit_scripts"
        scripts.mkdir(mode=0o700, exist_ok=True)
        executor.provider.script_dir = str(scripts)

    def _label(self) -> str:
        return f"{self._options.get('label', self.name)}-{self._executor_class().__name__}"

    def _strategy(self) -> dict[str, Any]:
        """The arguments of `Scaling`."""
        given = {key: value for key, value in self._options.get("job_status_kwargs", {}).items() if value is not None}
        strategy = self._options.get("strategy")
        if isinstance(strategy, dict):
            given = _of_old_strategy(strategy) | given
        elif strategy is not None:
            given.setdefault("strategy", strategy)
        for key, value in given.items():
            if key not in _STRATEGY:
                raise ConfigError(f"job_status_kwargs: {unknown('option', key, _STRATEGY)}")
            check(f"job_status_kwargs.{key}", value, str if key == "strategy" else (int, float))
        return {**_STRATEGY, **given}

    def _watch(self, executor: Any) -> None:
        """Fails the tasks when the interchange ends by itself: nobody else would notice."""
        executor.interchange_proc.wait()
        if not self._stopping:
            error = RuntimeError("Parsl's interchange ended unexpectedly")
            self.failure = str(error)
            executor.set_bad_state_and_fail_all(error)

    def _ended(self, executor: Any, scaling: Any, done: Future[bytes]) -> None:
        self._note_failure(executor)
        if done.exception() is not None:  # the machinery's; a task's own is in its result
            scaling.task_was_lost()

    def _note_failure(self, executor: Any) -> None:
        if executor.bad_state_is_set and self.failure is None:
            self.failure = str(executor.executor_exception)

    def _status_before_start(self) -> dict[str, Any]:
        """The same figures, from the configuration alone: Parsl is not imported yet."""
        options = self._options
        provider = options.get("provider", {"type": "LocalProvider"})
        return {
            **dict.fromkeys(("managers", "active_managers", "total_workers", "idle_workers"), 0),
            **dict.fromkeys(("pending_tasks", "outstanding_tasks", "total_tasks"), 0),
            "scaling_enabled": True,
            "mem_per_worker": options.get("mem_per_worker"),
            "cores_per_worker": options.get("cores_per_worker", 1.0),
            "prefetch_capacity": options.get("prefetch_capacity", 0),
            "max_blocks": provider.get("max_blocks", 1),
            "min_blocks": provider.get("min_blocks", 0),
            "max_workers_per_node": options.get("max_workers_per_node"),
            "nodes_per_block": provider.get("nodes_per_block", 1),
            "node_info": {},
            "engine_type": self.name,
            "provider_type": provider.get("type"),
            "queue": provider.get("queue") or provider.get("partition"),
            "account": provider.get("account") or provider.get("allocation") or provider.get("project"),
        }


class GlobusMPIEngine(GlobusComputeEngine):
    """For tasks that are MPI programs: they say with a resource specification how many nodes and ranks they need."""

    PREFETCHES = False
    NOT_HERE: ClassVar[Mapping[str, str]] = {"executor": GlobusComputeEngine.NOT_HERE["executor"]}

    def _executor_class(self) -> Any:
        from parsl.executors.high_throughput.mpi_executor import MPIExecutor

        return MPIExecutor

    def _resources(self, task: TaskRequest) -> dict[str, Any]:
        from parsl.executors.errors import InvalidResourceSpecification

        given = {"num_nodes": None, **task.resource_specification}
        for name in ("num_nodes", "num_ranks", "ranks_per_node"):
            if name in given and (type(given[name]) is not int or given[name] < 1):
                raise InvalidResourceSpecification({name}, f"It must be a whole number, got {given[name]!r}")
        provider, nodes = self._executor.provider, given["num_nodes"]
        # Inside of a batch job that somebody else has started only the worker pool knows the nodes.
        if type(provider).__name__ != "LocalProvider" and nodes > provider.nodes_per_block:
            text = f"{nodes} nodes, but a block has {provider.nodes_per_block}"
            raise InvalidResourceSpecification({"num_nodes"}, text)
        given.setdefault("ranks_per_node", math.ceil(given.get("num_ranks", nodes) / nodes))
        return super()._resources(replace(task, resource_specification=given))


_NOT_THE_EXECUTORS = frozenset(_OURS) | frozenset(Engine.OPTIONS)


def _nodes(
    managers: list[dict[str, Any]], packages: Mapping[str, Any], jobs: Mapping[str, Any]
) -> dict[str, list[dict[str, Any]]]:
    """What runs in each batch job: by job id, a description for each node."""
    nodes: dict[str, list[dict[str, Any]]] = {}
    for manager in managers:
        installed = packages.get(manager["manager"], {})
        node = {
            "worker_count": manager["worker_count"],
            "idle_duration": manager["idle_duration"],
            "parsl_version": manager["parsl_version"],
            "endpoint_version": installed.get("globus-compute-endpoint"),
            "sdk_version": installed.get("globus-compute-sdk"),
            "python_version": manager["python_version"],
        }
        nodes.setdefault(str(jobs.get(manager["block_id"], manager["block_id"])), []).append(node)
    return nodes


def _is_one_node_here(provider: Any) -> bool:
    """Whether there is never more than this machine, and no batch system that would end its block."""
    return type(provider).__name__ == "LocalProvider" and provider.nodes_per_block == 1 and provider.max_blocks == 1


def _of_old_strategy(strategy: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping that `strategy` once was, in words of `job_status_kwargs`."""
    if strategy.get("type") not in _OLD_STRATEGIES:
        raise ConfigError(f"strategy: {unknown('type', strategy.get('type'), _OLD_STRATEGIES)}")
    rest = {key: value for key, value in strategy.items() if key != "type" and value is not None}
    return {"strategy": _OLD_STRATEGIES[strategy["type"]], **rest}


def _first(provider: Any, *names: str) -> Any:
    return next((value for name in names if (value := getattr(provider, name, None))), None)


def _finite(number: float) -> float | None:
    """JSON has no infinity, which is Parsl's word for no limit."""
    with contextlib.suppress(OverflowError):
        return int(number)
    return None
