"""Shows what an executor would submit to its batch system for a block, and submits nothing; for `uep.check`.

The provider itself writes the script, and its command is kept from running. What is known only when the endpoint runs
stands as a word in capitals.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import parsl.providers.cluster_provider
from parsl.providers.cluster_provider import ClusterProvider

from uep.engines.htex.output import BlockOutput

_NOT_SUBMITTED = (1, "", "not submitted")


def job_script(executor: Any, directory: Path) -> str:
    """Returns command and script; empty for providers that submit no script. `directory` is the endpoint's, and is
    written as DIRECTORY.

    Only for a process that submits nothing afterwards: what runs commands is replaced.
    """
    if not isinstance(executor.provider, ClusterProvider):
        return ""
    executor.worker_port = "PORT"
    executor.cert_dir = directory / "CERTIFICATES" if executor.encrypted else None
    executor.logconf_path = None
    executor.initialize_scaling()
    BlockOutput(executor.provider).expect("0")
    said: list[str] = []

    def run(command: str, _: float | None = None) -> tuple[int, str, str]:
        said.append(command)
        return _NOT_SUBMITTED

    parsl.providers.cluster_provider.execute_wait = run
    with contextlib.suppress(Exception):  # each provider has errors of its own for a submission that is refused
        executor._launch_block("0")
    scripts = sorted(Path(executor.provider.script_dir).iterdir())
    texts = [f"{path.name}:\n{path.read_text(errors='replace')}" for path in scripts]
    return "\n".join([*said[:1], *texts]).replace(str(directory), "DIRECTORY")
