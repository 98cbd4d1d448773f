"""What cannot work is said before it is in force: the real render server, and the real program of user endpoints."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
from pathlib import Path

import pytest
from globus_compute_sdk.sdk.batch import create_user_runtime

from mep.cli import checks
from mep.daemon import trial
from mep.daemon.rehearsal import Findings
from mep.profile.paths import Paths
from mep.reader import loader

pytestmark = pytest.mark.usefixtures("root")

HTEX = "engine:\n  type: GlobusComputeEngine\n  provider:\n    type: LocalProvider\n"
SLURM = "engine:\n  type: GlobusComputeEngine\n  provider:\n    type: SlurmProvider\n"


def rehearsed(directory: Path, template: str, schema: object = None) -> Findings:
    (directory / "user_config_template.yaml.j2").write_text(template)
    (directory / "user_config_schema.json").write_text(json.dumps(schema or {}))
    return asyncio.run(trial.rehearse(loader.load(directory)))


@pytest.mark.parametrize(
    ("template", "told"),
    [
        (HTEX.replace("GlobusComputeEngine", "GlobusComputEngine"), "line 2: .*did you mean 'GlobusComputeEngine'"),
        (HTEX.replace("GlobusComputeEngine", "HighThroughputEngine"), "line 2: .*was replaced by GlobusComputeEngine"),
        (HTEX.replace("  provider", "  max_worker_per_node: 1\n  provider"), "line 3: .*mean 'max_workers_per_node'"),
        (HTEX.replace("LocalProvider", "LocalProvder"), "line 4: .*did you mean 'LocalProvider'"),
        (HTEX + "    max_block: 2\n", "line 5: .*did you mean 'max_blocks'"),
        ("idle_heartbeat_soft: 1\n" + HTEX, "line 1: .*did you mean 'idle_heartbeats_soft'"),
        (HTEX + "    launcher: {type: SrunLauncer}\n", "line 5: .*did you mean 'SrunLauncher'"),
        (HTEX + "    nodes_per_block: two\n", "nodes_per_block: expected a whole number, got 'two'"),
        (SLURM + "    walltime: two days\n", "walltime: expected a time, as"),
        (HTEX + "  strategy: simpel\n", "strategy"),
        (HTEX + "  job_status_kwargs: {max_idle: 3}\n", "did you mean 'max_idletime'"),
        (HTEX + "  address: {type: address_by_interfac, ifname: lo}\n", "did you mean 'address_by_interface'"),
        (HTEX + "  container_type: dockr\n", "'dockr' is not one of"),
        ("engine:\n  type: ThreadPoolEngine\n  max_workers: 0\n", "expected at least 1, got 0"),
        ("engine:\n  type: ThreadPoolEngine\n  allowed_serializers: [nosuch.Thing]\n", "allowed_serializers"),
        ("engine:\n\ttype: ThreadPoolEngine\n", "does not render to YAML"),
    ],
)
def test_what_a_user_endpoint_would_refuse(profile_directory: Path, template: str, told: str) -> None:
    (problem,) = rehearsed(profile_directory, template).problems
    assert re.search(told, problem), problem
    assert problem.startswith("user_config_template.yaml.j2: ")


BRANCH = "engine:\n  type: {{ 'ThreadPoolEngin' if PARTITION == 'gpu' else 'ThreadPoolEngine' }}\n"
OPTIONAL = "engine:\n  type: ThreadPoolEngine\n{% if PARTITION is defined %}  max_wrokers: 1\n{% endif %}\n"


@pytest.mark.parametrize(
    ("template", "property_"),
    [
        (BRANCH.replace("PARTITION", "(PARTITION | default('cpu') | trim('\"'))"), {"enum": ["cpu", "gpu"]}),
        (BRANCH.replace("PARTITION", "(PARTITION | trim('\"'))"), {"default": "cpu", "examples": ["gpu"]}),
        (OPTIONAL, {"type": "string"}),
        (OPTIONAL.replace("is defined", "| default(false)"), {"type": "boolean"}),
    ],
)
def test_values_of_the_schema_are_tried(profile_directory: Path, template: str, property_: object) -> None:
    (problem,) = rehearsed(profile_directory, template, {"properties": {"PARTITION": property_}}).problems
    assert "did you mean" in problem and "PARTITION" in problem


def test_a_typo_is_seen_though_an_option_is_mandatory(profile_directory: Path) -> None:
    findings = rehearsed(profile_directory, SLURM + "    account: {{ ACCOUNT }}\n    partitoin: x\n")
    assert "did you mean 'partition'" in findings.problems[0]


def test_what_only_a_made_up_value_causes_is_a_note(profile_directory: Path) -> None:
    findings = rehearsed(profile_directory, SLURM + "    walltime: {{ WALLTIME }}\n")
    assert findings.problems == []
    assert any("walltime" in note for note in findings.notes)


def test_the_client_is_described_as_clients_do(profile_directory: Path) -> None:
    sent = dataclasses.asdict(create_user_runtime())
    wanted = [f"{{{{ user_runtime.{key}.{inner} }}}}" for key in ("python", "platform") for inner in sent[key]]
    wanted += [f"{{{{ _GC.user_runtime.{key} }}}}" for key in sent]
    findings = rehearsed(profile_directory, f"engine: {{type: ThreadPoolEngine}}\n# {' '.join(wanted)}\n")
    assert (findings.problems, findings.notes) == ([], [])


def test_what_will_be_charged_and_what_is_asked_for_twice(profile_directory: Path) -> None:
    template = SLURM + "    gpus_per_node: 2\n    scheduler_options: '#SBATCH --gres=gpu:2'\n    walltime: 2-00:00:00\n"
    findings = rehearsed(profile_directory, template)
    assert findings.problems == []
    assert any("whole nodes are asked for and charged" in note for note in findings.notes)
    assert any("gpus_per_node and '--gres=gpu:2'" in note for note in findings.notes)
    shared = rehearsed(profile_directory, SLURM + "    exclusive: false\n    gpus_per_node: 2\n")
    assert not any("whole nodes" in note or "ask for the same" in note for note in shared.notes)


def test_programs_of_the_provider_are_looked_for_where_user_endpoints_do(profile_directory: Path) -> None:
    template = HTEX.replace("LocalProvider", "PBSProProvider")
    (profile_directory / "user_environment.yaml").write_text("PATH: /opt/nosuch/bin:/usr/bin\n")
    (note,) = [each for each in rehearsed(profile_directory, template).notes if "qsub" in each]
    assert "/opt/nosuch/bin:/usr/bin" in note and "user_environment.yaml" in note


def test_another_program_is_not_asked(profile_directory: Path) -> None:
    with (profile_directory / "config.yaml").open("a") as file:
        file.write("uep_command: [/usr/bin/true]\n")
    findings = rehearsed(profile_directory, HTEX + "    max_block: 2\n")
    assert findings.problems == [] and "uep_command is not mep-uep" in findings.notes[0]


def test_check_fails_with_it_also_when_only_files_are_looked_at(profile_directory: Path, tmp_path: Path) -> None:
    (profile_directory / "user_config_template.yaml.j2").write_text(HTEX + "    max_block: 2\n")
    paths = Paths(tmp_path, tmp_path, tmp_path, tmp_path)
    lines = list(checks.lines(profile_directory, paths, files_only=True))
    assert any(line.exit_code == 78 and "did you mean 'max_blocks'" in line.text for line in lines)
