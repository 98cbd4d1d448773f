"""The real program, whose tasks are to have another Python: what its user sees while they wait, and when it fails."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.uep import functions
from tests.uep.environments.conftest import VERSION
from tests.uep.program import PROCESSES, StartUep
from tests.uep.service import Service

pytestmark = pytest.mark.system


def test_tasks_have_the_python_of_the_client(
    start_uep: StartUep, service: Service, block: dict[str, Any], tmp_path: Path
) -> None:
    task = service.send(functions.interpreter)
    client = {"GC_USER_PYTHON_VERSION": f"{VERSION}.1", "GC_USER_SDK_VERSION": ""}
    uep = start_uep(f"{PROCESSES}python: {json.dumps(block)}\n", environment=client)
    beat = service.heartbeat_where(lambda beat: "preparing" in beat)
    assert beat["preparing"].startswith(f"making the environment of tasks, Python {VERSION} with globus-compute-sdk ")
    seen = service.value(service.results(1, timeout=90)[task])
    assert seen["version"].startswith(f"{VERSION}.")
    assert seen["prefix"].startswith(f"{tmp_path}/environments/python{VERSION}-")
    service.heartbeat_where(lambda beat: "preparing" not in beat)
    assert uep.stop() == 0


def test_what_went_wrong_is_told(start_uep: StartUep, service: Service, block: dict[str, Any]) -> None:
    uep = start_uep(f"{PROCESSES}python: {json.dumps({**block, 'requirements': 'nosuchpackage'})}\n")
    notice = service.heartbeat_where(lambda beat: "error" in beat)
    assert "cannot be made: uv pip install failed" in notice["error"]
    assert "nosuchpackage" in notice["error"].partition("its output:")[2]
    assert uep.process.wait(30) == os.EX_CONFIG


def test_a_block_that_is_wrong_is_told_before_anything_starts(start_uep: StartUep, service: Service) -> None:
    uep = start_uep(f"{PROCESSES}python: {{versoin: client}}\n")
    assert "did you mean 'version'" in service.heartbeat_where(lambda beat: "error" in beat)["error"]
    assert uep.process.wait(30) == os.EX_CONFIG
