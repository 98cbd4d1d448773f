"""The site's GC_TASK_TIMEOUT, in the environment of the real program."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from globus_compute_sdk import ShellFunction

from lab.waiting import until
from tests.uep import functions
from tests.uep.program import HTEX, PROCESSES, THREADS, StartUep
from tests.uep.service import Service

pytestmark = pytest.mark.system

NAMES = ("ThreadPoolEngine", "ProcessPoolEngine", "GlobusComputeEngine")


@pytest.mark.parametrize("config", [THREADS, PROCESSES, HTEX], ids=NAMES)
def test_tasks_end(config: str, start_uep: StartUep, service: Service) -> None:
    """Workers run tasks in their main threads: also one that sleeps ends. In threads of the endpoint it cannot."""
    start_uep(config, environment={"GC_TASK_TIMEOUT": "0.5"})
    for function in (functions.spin,) if config == THREADS else (functions.spin, functions.sleep, functions.stubborn):
        service.send(function, 300)
        result = service.result(60)
        assert result.error_details is not None
        assert result.data.endswith("TaskTimeout: the task ran longer than the 0.5 s that the site allows\n")
    assert service.call(functions.sleep, 0.1) == 0.1


@pytest.mark.parametrize("config", [PROCESSES, HTEX], ids=NAMES[1:])
def test_what_tasks_have_started_ends(config: str, start_uep: StartUep, service: Service, tmp_path: Path) -> None:
    start_uep(config, environment={"GC_TASK_TIMEOUT": "1"})
    service.send(ShellFunction(f"echo $$ >{tmp_path}/shell; sleep 300 & echo $! >{tmp_path}/sleep; wait"))
    assert "TaskTimeout" in service.result(60).data
    for name in ("shell", "sleep"):
        pid = int((tmp_path / name).read_text())
        until(lambda pid=pid: _is_gone(pid), f"the {name} to end")


def _is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
