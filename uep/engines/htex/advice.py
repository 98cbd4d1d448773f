"""What an admin should know of a provider before users meet it: programs that are missing, and what will be charged."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

from uep.config import ConfigError

PROGRAMS: Mapping[str, tuple[str, ...]] = {
    "SlurmProvider": ("sbatch", "squeue", "scancel"),
    "PBSProProvider": ("qsub", "qstat", "qdel"),
    "TorqueProvider": ("qsub", "qstat", "qdel"),
    "GridEngineProvider": ("qsub", "qstat", "qdel"),
    "LSFProvider": ("bsub", "bjobs", "bkill"),
    "CondorProvider": ("condor_submit", "condor_q", "condor_rm"),
}
"""What each provider runs, in the endpoint's PATH."""

_ALSO_AS: Mapping[str, Mapping[str, str]] = {
    "SlurmProvider": {
        "gpus_per_node": r"--(?:gres[= ]\S*gpu|gpus(?:-per-(?:node|task|socket))?\b)|-G\b",
        "gres": r"--gres\b",
        "exclusive": r"--exclusive\b",
        "partition": r"(?:--partition|-p)\b",
        "account": r"(?:--account|-A)\b",
        "qos": r"(?:--qos|-q)\b",
        "constraint": r"(?:--constraint|-C)\b",
        "mem_per_node": r"--mem(?:-per-(?:cpu|gpu))?\b",
        "cores_per_node": r"(?:--cpus-per-task|-c)\b",
        "nodes_per_block": r"(?:--nodes|-N)\b",
        "walltime": r"(?:--time|-t)\b",
    },
    "PBSProProvider": {"walltime": r"\bwalltime=", "account": r"-A\b", "queue": r"-q\b", "nodes_per_block": r"select="},
    "TorqueProvider": {"walltime": r"\bwalltime=", "account": r"-A\b", "queue": r"-q\b", "nodes_per_block": r"nodes="},
    "LSFProvider": {"walltime": r"-W\b", "queue": r"-q\b", "project": r"-P\b"},
}
"""Keys of a provider, and the same wish where it stands in `scheduler_options`."""


def advice(options: Mapping[str, Any]) -> list[str]:
    """Notes on a provider's mapping, as the configuration has it and as it was found to be in order."""
    return [*_missing(options["type"]), *_charged(options), *_twice(options)]


def check_submission(mapping: object) -> None:
    """Returns if the program is there that the provider of this mapping submits jobs with.

    Raises:
        ConfigError: it is not in PATH; a shell would say so of each job, and not where it has looked.
    """
    provider = mapping.get("type") if isinstance(mapping, dict) else None
    submits = PROGRAMS.get(str(provider), ())[:1]
    if missing := [program for program in submits if shutil.which(program) is None]:
        raise ConfigError(_not_found(str(provider), missing))


def _not_found(provider: str, programs: list[str]) -> str:
    return (
        f"{provider} runs {', '.join(programs)}, not found in the PATH of user endpoints"
        f" ({os.environ.get('PATH', '')}); its administrators set PATH in user_environment.yaml"
    )


def _missing(provider: str) -> Iterator[str]:
    if missing := [program for program in PROGRAMS.get(provider, ()) if shutil.which(program) is None]:
        yield _not_found(provider, missing)


def _charged(options: Mapping[str, Any]) -> Iterator[str]:
    if options["type"] == "SlurmProvider" and options.get("exclusive") is not False:
        said = "exclusive: true" if "exclusive" in options else "Parsl's default, exclusive: true"
        yield f"SlurmProvider: whole nodes are asked for and charged ({said}); to share nodes write exclusive: false"


def _twice(options: Mapping[str, Any]) -> Iterator[str]:
    asked = str(options.get("scheduler_options") or "")
    lines = "\n".join(line for line in asked.splitlines() if re.match(r"#(SBATCH|PBS|BSUB|\$)", line.strip()))
    for key, pattern in _ALSO_AS.get(options["type"], {}).items():
        if options.get(key) and (again := re.search(rf"(?<![\w-])(?:{pattern})\S*", lines)):
            asked_as = f"{key} and {again[0]!r} in scheduler_options"
            yield f"{options['type']}: {asked_as} ask for the same; leave one of them out"
    if options["type"] == "SlurmProvider" and options.get("gpus_per_node") and "gpu" in str(options.get("gres") or ""):
        yield "SlurmProvider: gpus_per_node and gres ask for the same; leave one of them out"
