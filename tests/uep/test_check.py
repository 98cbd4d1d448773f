"""`mep-uep --check`, the real program, and what an engine refuses before it asks a scheduler for anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from uep.config import ConfigError
from uep.engines.base import EngineContext
from uep.engines.htex import advice, providers
from uep.engines.registry import make_engine

HTEX = "engine:\n  type: GlobusComputeEngine\n  provider:\n    type: "


def asked(question: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "uep.cli", "--check"]
    return subprocess.run(program, input=question, capture_output=True, text=True, check=False, timeout=120)


def test_an_answer_for_each_configuration() -> None:
    done = asked(json.dumps(["engine: {type: ThreadPoolEngine}", f"{HTEX}LocalProvder", "nonsense: 1", "\t"]))
    assert done.returncode == 0, done.stderr
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    fine, provider, key, tab = (answer["problem"] for answer in answers)
    assert fine is None
    assert "did you mean 'LocalProvider'" in provider
    assert "unknown key 'nonsense'" in key
    assert "not YAML" in tab


def test_a_question_that_is_none() -> None:
    assert asked("{").returncode == os.EX_DATAERR


@pytest.mark.parametrize(
    ("provider", "command", "asked_for"),
    [
        ("{type: SlurmProvider, partition: x, gpus_per_node: 2}", "sbatch", ["--exclusive", "--gpus-per-node=2"]),
        ("{type: PBSProProvider, queue: x, cpus_per_node: 3}", "qsub", ["-q x", "ncpus=3"]),
        ("{type: LSFProvider, queue: x, cores_per_node: 3}", "bsub", ["#BSUB -q x"]),
        ("{type: GridEngineProvider, queue: x, walltime: '02:00:00'}", "qsub -q x", ["h_rt=02:00:00"]),
        ("{type: TorqueProvider, queue: x, nodes_per_block: 3}", "qsub", ["nodes=3"]),
        ("{type: CondorProvider, cores_per_slot: 3}", "condor_submit", ["RequestCpus = 3"]),
    ],
)
def test_the_job_that_would_be_submitted(
    provider: str, command: str, asked_for: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the provider writes it, and nothing is submitted."""
    for program in ("sbatch", "qsub", "bsub", "condor_submit"):
        (tmp_path / program).write_text(f"#!/bin/sh\ntouch {tmp_path}/submitted\n")
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    configuration = f"engine: {{type: GlobusComputeEngine, provider: {provider}}}"
    program = [sys.executable, "-m", "uep.cli", "--check", "--scripts"]
    done = subprocess.run(
        program, input=json.dumps([configuration]), capture_output=True, text=True, check=True, timeout=120
    )
    (answer,) = json.loads(done.stdout)
    assert answer["problem"] is None
    script = answer["script"]
    assert script.startswith(command)
    assert all(each in script for each in asked_for), script
    assert "sh DIRECTORY/worker/start.sh" in script and "--port=PORT" in script
    assert "mep-check-" not in script
    assert not (tmp_path / "submitted").exists()


def test_no_job_without_a_batch_system() -> None:
    program = [sys.executable, "-m", "uep.cli", "--check", "--scripts"]
    question = json.dumps(["engine: {type: ThreadPoolEngine}", f"{HTEX}LocalProvider"])
    done = subprocess.run(program, input=question, capture_output=True, text=True, check=True, timeout=120)
    assert [answer["script"] for answer in json.loads(done.stdout)] == ["", ""]


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2-00:00:00", "48:00:00"),
        ("1-12", "36:00:00"),
        ("1-12:30", "36:30:00"),
        ("01:00:00", "01:00:00"),
        ("30:00", "00:30:00"),
    ],
)
def test_forms_of_a_walltime(text: str, time: str) -> None:
    assert providers.provider({"type": "SlurmProvider", "walltime": text}).walltime == time


@pytest.mark.parametrize("text", ["2d", "1-", "-1:00", "1:2:3:4", "UNLIMITED", "1:-2:3", ""])
def test_what_is_no_walltime(text: str) -> None:
    for name in ("SlurmProvider", "PBSProProvider", "LSFProvider"):
        with pytest.raises(ConfigError, match=f"{name}.walltime: expected a time, as 'HH:MM:SS'"):
            providers.provider({"type": name, "walltime": text})


@pytest.mark.parametrize("name", sorted(advice.PROGRAMS))
def test_a_scheduler_that_is_not_in_path(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/opt/nosuch/bin")
    engine = make_engine({"type": "GlobusComputeEngine", "provider": {"type": name}}, EngineContext("id", tmp_path))
    with pytest.raises(ConfigError, match=f"{advice.PROGRAMS[name][0]}.*/opt/nosuch/bin.*user_environment.yaml"):
        engine.start()


@pytest.mark.parametrize(
    ("options", "twice"),
    [
        ({"gpus_per_node": 2, "scheduler_options": "#SBATCH --gres=gpu:a100:2"}, "gpus_per_node"),
        ({"gpus_per_node": 2, "scheduler_options": "#SBATCH --gpus=2"}, "gpus_per_node"),
        ({"gpus_per_node": 2, "scheduler_options": "#SBATCH -G 2"}, "gpus_per_node"),
        ({"gpus_per_node": 2, "gres": "gpu:2"}, "gpus_per_node"),
        ({"partition": "a", "scheduler_options": "#SBATCH -p b"}, "partition"),
        ({"account": "a", "scheduler_options": "#SBATCH --account=b"}, "account"),
        ({"walltime": "1:00:00", "scheduler_options": "#SBATCH --time=2:00:00"}, "walltime"),
        ({"partition": "a", "scheduler_options": "#SBATCH --comment=a-p"}, None),
        ({"gpus_per_node": 2, "scheduler_options": "#SBATCH --constraint=gpu"}, None),
        ({"gpus_per_node": 2, "gres": "tmp:20G"}, None),
    ],
)
def test_what_is_asked_for_twice(options: dict[str, Any], twice: str | None) -> None:
    notes = advice.advice({"type": "SlurmProvider", "exclusive": False, **options})
    told = [note for note in notes if "ask for the same" in note]
    assert len(told) == (0 if twice is None else 1), told
    assert twice is None or twice in told[0]
