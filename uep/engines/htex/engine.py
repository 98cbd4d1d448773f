"""GlobusComputeEngine: runs tasks on whatever Parsl can reach, from this machine to a batch system.

Uses Parsl's HighThroughputExecutor directly, without the rest of Parsl: the interchange starts right after check-in,
the first blocks are asked for at once, and a task's arrival is not left to a timer. `scaling` then keeps the number of
blocks as the provider says.

Options: those of the executor, and `provider`, `address`, `strategy`, `job_status_kwargs`, `worker_patience`,
`submit_patience`, `encrypted` and `check_parsl_version` (default true), and the container options of `worker_command`.
The names of the executor's options are known only when Parsl is imported: `start` reports an option that the executor
does not take, or not with such a value.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, ClassVar

from uep.config import ConfigError
from uep.engines.base import Engine, EngineContext, TaskRequest
from uep.engines.htex import advice, commands, figures
from uep.engines.htex.images import IMAGE_PROVIDERS
from uep.engines.htex.pauses import Patience
from uep.engines.htex.placement import Placement
from uep.engines.htex.scaling import Scaling, make_strategy, strategy_of
from uep.engines.options import Kinds
from uep.workers import parsl_program
from uep.workers.parsl_import import partial_parsl_imports

log = logging.getLogger(__name__)

SHUTDOWN_TIME = 5.0
"""Seconds for the interchange to end."""
PATIENCE = 600.0
"""Seconds of `worker_patience` and `submit_patience`, unless they are set."""
PREFETCH = 8
"""Tasks that wait on the node, beside those that run, when there is only one: they could go nowhere else."""

_OURS: Mapping[str, Kinds] = {
    "provider": dict,
    "address": (str, dict),
    "strategy": (str, dict),
    "job_status_kwargs": dict,
    "worker_patience": (int, float),
    "submit_patience": (int, float),
    "encrypted": bool,
    "check_parsl_version": bool,
    "container_type": str,
    "container_uri": str,
    "container_cmd_options": str,
}


class GlobusComputeEngine(Engine):
    """Tasks over Parsl. Its options are in the text of the module."""

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
        if context.high_assurance and not options.get("encrypted", True):
            raise ConfigError(
                f"{self.name}.encrypted: this endpoint has high assurance, so what goes between endpoint and workers"
                " has to be encrypted: leave out `encrypted: false`"
            )
        self._executor: Any = None
        self._placement: Placement | None = None
        self._scaling: Any = None
        self._function = ""
        self._stopping = False
        self._submitting = threading.Lock()
        self._patience = self._read_patience()

    @property
    def python_problem(self) -> str:
        provider = self._options.get("provider", {})
        if provider.get("type") in IMAGE_PROVIDERS or "container_type" in self._options:
            return "the image has the Python of tasks"
        return "launch_cmd starts a Python of its own" if "launch_cmd" in self._options else ""

    def start(self) -> None:
        self._check_serializers()
        if not log.isEnabledFor(logging.DEBUG):
            logging.getLogger("parsl").setLevel(logging.WARNING)
            logging.getLogger("parsl.providers").setLevel(logging.CRITICAL)  # `blocks` tells it, and not each time
        advice.check_submission(self._options.get("provider"))
        with partial_parsl_imports(type_checks=True):
            executor = self._make_executor()
            scaling = Scaling(executor, self._patience, self._give_up, **strategy_of(self._options))
        if self.context.high_assurance:
            self._placement = Placement(executor, lambda *where: self.when_placed(*where))
        executor.start()
        self._executor = executor
        self._scaling = scaling
        threading.Thread(target=self._watch, args=(executor,), name="interchange-watch", daemon=True).start()
        scaling.start()

    def check(self) -> list[str]:
        self._check_serializers()
        options = self._options.get("provider", {"type": "LocalProvider"})
        with partial_parsl_imports(type_checks=True):
            from uep.engines.htex import providers

            try:
                self._make_executor()
                strategy = strategy_of(self._options)
                make_strategy(strategy["strategy"], strategy["max_idletime"])
            except ConfigError as e:
                if not providers.needs_the_users_credentials(options, e):
                    raise
                return [f"{e}; it may be different for users, who have credentials of their own"]
        return advice.advice(options)

    def job_script(self) -> str:
        from uep.engines.htex.job_script import job_script

        return job_script(self._make_executor(), self.context.directory)

    def stop(self) -> None:
        executor, self._executor, self._stopping = self._executor, None, True
        if self._scaling is not None:
            self._scaling.stop()
            self._scaling = None
        if executor is not None:
            executor.shutdown(timeout=SHUTDOWN_TIME)
        if self._placement is not None:
            self._placement.stop()

    @property
    def trouble(self) -> str:
        return "" if self._scaling is None else str(self._scaling.blocks.trouble)

    @property
    def jobs(self) -> list[str]:
        return [] if self._scaling is None else list(self._scaling.blocks.jobs())

    def status(self) -> dict[str, Any]:
        executor = self._executor
        if executor is None:
            return figures.before_start(self.name, self._options)
        found = figures.of_executor(self.name, executor)
        self._note_failure(executor)
        return found

    def _launch(self, task: TaskRequest) -> Future[bytes]:
        resources = self._resources(task)
        arguments = (task.task_id, self.context.endpoint_id)
        context: dict[str, Any] = {
            "task_executor": {"f": self._function, "a": arguments, "k": self.task_options(task)},
        }
        if resources:
            context["resource_spec"] = resources
        executor, scaling = self._executor, self._scaling
        with self._submitting:  # tasks come from the loop's thread, those that are tried again from another
            running: Future[bytes] = self._submitted(task, lambda: executor.submit_payload(context, task.body))
        scaling.task_came()
        running.add_done_callback(lambda done: self._ended(executor, scaling, done))
        return running

    def _submitted(self, task: TaskRequest, submit: Callable[[], Any]) -> Any:
        return submit() if self._placement is None else self._placement.submit(task.task_id, submit)

    def _is_final(self, error: BaseException) -> bool:
        from parsl.executors.errors import InvalidResourceSpecification

        return super()._is_final(error) or isinstance(error, InvalidResourceSpecification)

    def _resources(self, task: TaskRequest) -> dict[str, Any]:
        """Has Parsl complete what the task wants.

        Raises:
            InvalidResourceSpecification: the task wants what there is not.
        """
        resources = dict(task.resource_specification)
        self._executor.validate_resource_spec(resources)
        return resources

    def _executor_class(self) -> Any:
        from parsl.executors.high_throughput.executor import HighThroughputExecutor

        return HighThroughputExecutor

    def _make_executor(self) -> Any:
        from uep.engines.htex import providers
        from uep.engines.htex.worker_command import command_and_function

        commands.install()
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
            self._options, provider, executor.launch_cmd, self.context.directory, self._environment
        )
        return executor

    def _read_patience(self) -> Patience:
        """Reads how long tasks wait for what may never come.

        Raises:
            ConfigError: no time at all.
        """
        times = {name: self._options.get(name, PATIENCE) for name in ("worker_patience", "submit_patience")}
        for name, seconds in times.items():
            if seconds <= 0:
                raise ConfigError(f"{self.name}.{name}: expected a number of seconds, got {seconds!r}")
        return Patience(times["worker_patience"], times["submit_patience"])

    def _address(self, provider: Any) -> str | None:
        """Finds where the interchange listens; None: everywhere, for workers on other machines."""
        from uep.engines.htex import providers

        if "address" in self._options:
            return providers.address(self._options["address"])
        return "127.0.0.1" if type(provider).__name__ == "LocalProvider" and provider.nodes_per_block == 1 else None

    def _prepare(self, executor: Any) -> None:
        """Sets what Parsl's DataFlowKernel would set, and how to start the interchange."""
        executor.run_dir = str(self.context.directory)
        executor.run_id = self.context.endpoint_id
        executor.log_config = None
        executor.monitoring_messages = None
        executor.interchange_launch_cmd = [sys.executable, "-I", parsl_program.__file__, "interchange"]
        executor._check_python_mismatch = False  # worker_init may bring another Python: the wire format is the same
        scripts = self.context.directory / "submit_scripts"
        scripts.mkdir(mode=0o700, exist_ok=True)
        executor.provider.script_dir = str(scripts)

    def _label(self) -> str:
        return f"{self._options.get('label', self.name)}-{self._executor_class().__name__}"

    def _watch(self, executor: Any) -> None:
        """Fails the tasks when the interchange ends by itself: nobody else would notice."""
        executor.interchange_proc.wait()
        if not self._stopping:
            self._give_up(RuntimeError("Parsl's interchange ended unexpectedly"))

    def _give_up(self, error: Exception) -> None:
        """Fails all tasks, now and later; the failure is set first, so that none is tried again."""
        from uep.engines.htex.blocks import fail_all

        self.failure = str(error)
        if self._executor is not None:
            fail_all(self._executor, error)

    def _ended(self, executor: Any, scaling: Any, done: Future[bytes]) -> None:
        self._note_failure(executor)
        if done.exception() is not None:  # the machinery's; a task's own is in its result
            scaling.task_was_lost()

    def _note_failure(self, executor: Any) -> None:
        if executor.bad_state_is_set and self.failure is None:
            self.failure = str(executor.executor_exception)


_NOT_THE_EXECUTORS = frozenset(_OURS) | frozenset(Engine.OPTIONS)


def _is_one_node_here(provider: Any) -> bool:
    """Tells whether there is never more than this machine, and no batch system that would end its block."""
    return type(provider).__name__ == "LocalProvider" and provider.nodes_per_block == 1 and provider.max_blocks == 1
