"""Makes the command that starts a worker pool of Parsl on a node, and names the function that its workers run.

Which Python the workers get:

- an environment was made for the tasks (`uep.environments`): that one's, after `worker_init`;
- nothing said: this interpreter, by absolute path, so that PATH does not matter;
- the provider has a `worker_init`: the environment that it activates, found as the public package's sites expect it:
  the Python of the `globus-compute-endpoint` then first on PATH, of VIRTUAL_ENV, of CONDA_PREFIX; else this one;
- a container, or a cloud provider that brings an image: the image's `globus-compute-endpoint`;
- a `launch_cmd` of the site's own: what it starts. Our code is on its PYTHONPATH, unless it is the public package's
  program.

Outside of images the pool is started by a script in the endpoint's directory, and runs our code from a copy of
`uep/workers` beside it: the environment of the workers needs Parsl and the SDK but nothing of ours.
Images run the public package's function, which takes the same arguments.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parsl.version import VERSION

from uep import workers
from uep.config import ConfigError
from uep.engines.htex.images import IMAGE_PROVIDERS
from uep.workers.user_modules import TASK_MODULE

OWN_FUNCTION = f"{TASK_MODULE}.execute_task"
PUBLIC_FUNCTION = "globus_compute_endpoint.engines.helper.execute_task"
PROGRAM = "process_worker_pool.py"
"""What Parsl itself would start."""
POOL = "parsl.executors.high_throughput.process_worker_pool"
IN_IMAGE = f"globus-compute-endpoint python-exec {POOL}"

_DOCKER = "{type} run {options} -v {rundir}:{rundir} -t {image} {command}"
_APPTAINER = "{type} run {options} {image} {command}"
CONTAINERS: Mapping[str, str] = {
    "docker": _DOCKER,
    "podman": _DOCKER,
    "podman-hpc": _DOCKER,
    "apptainer": _APPTAINER,
    "singularity": _APPTAINER,
    "custom": "",
}
"""How each `container_type` runs a command; `custom` is written out in `container_cmd_options`."""

_PASSED_ON = ("GC_TASK_TIMEOUT", "GC_USER_PYTHON_VERSION", "GC_USER_SDK_VERSION", "MEP_PARTIAL_IMPORTS")
"""What workers must know; some batch systems pass on nothing of the environment that a job was submitted from."""

PARSL = "MEP_PARSL"
"""The variable that tells the start script's program which Parsl the endpoint has, if it is to have the same."""

_START = """\
#!/bin/sh
# Starts the worker pool. Written by the endpoint each time it starts.
{variables}{activation}cd {package} || exit 1
{search}exec {python} -I {program} process_worker_pool "$@"
"""
_ACTIVATION = """\
# The environment that was made for the tasks, also for programs that they start.
export VIRTUAL_ENV={environment}
export PATH="$VIRTUAL_ENV/bin:$PATH"
"""
_SEARCH = """\
# worker_init has set up an environment: the workers are to run in it.
endpoint=$(command -v globus-compute-endpoint)
for python in "${{endpoint%/*}}/python3" "$VIRTUAL_ENV/bin/python3" "$CONDA_PREFIX/bin/python3"; do
    case $python in
        /python3 | /bin/python3) ;;
        *) if [ -x "$python" ]; then exec "$python" -I {program} process_worker_pool "$@"; fi ;;
    esac
done
if [ -n "$endpoint" ]; then
    export PYTHONPATH={package}${{PYTHONPATH:+:$PYTHONPATH}}
    exec "$endpoint" python-exec {pool} "$@"
fi
"""


def command_and_function(
    options: Mapping[str, Any], provider: Any, command: str, directory: Path, environment: Path | None
) -> tuple[str, str]:
    """Finds the launch command and the import path of the task function. `command` is the one that Parsl would use.

    `options` are the engine's: `container_type`, `container_uri`, `container_cmd_options`, `check_parsl_version`.
    `directory` is the endpoint's; the workers' copy of our code is put there. `environment` was made for the tasks.

    Raises:
        ConfigError: a container that is not known, or without its image.
    """
    container = options.get("container_type")
    is_parsls = command.startswith(f"{PROGRAM} ")
    in_image = command.replace(PROGRAM, IN_IMAGE, 1) if is_parsls else command
    if type(provider).__name__ in IMAGE_PROVIDERS:
        if options.get("container_uri"):
            raise ConfigError(f"container_uri: {type(provider).__name__} brings its own image")
        return in_image, PUBLIC_FUNCTION
    if container is not None:
        return _contained(container, options, in_image, directory), PUBLIC_FUNCTION
    if command.startswith("globus-compute-endpoint "):
        return command, PUBLIC_FUNCTION
    search = environment is None and bool(getattr(provider, "worker_init", ""))
    script = _write_script(directory, _own_parsl(options), environment, search=search)
    if is_parsls:
        return f"sh {shlex.quote(str(script))} {command.removeprefix(PROGRAM)}", OWN_FUNCTION
    # Parsl takes the command for a format string, twice.
    path = f"{shlex.quote(str(script.parent))}${{{{{{{{PYTHONPATH:+:$PYTHONPATH}}}}}}}}"
    return f"export PYTHONPATH={path}; {command}", OWN_FUNCTION


def _contained(container: str, options: Mapping[str, Any], command: str, directory: Path) -> str:
    if container not in CONTAINERS:
        raise ConfigError(f"container_type: {container!r} is not one of {', '.join(CONTAINERS)}")
    extra = options.get("container_cmd_options") or ""
    if container == "custom":
        if not extra:
            raise ConfigError("container_cmd_options: needed for container_type custom")
        text = extra.replace("{EXECUTOR_RUNDIR}", str(directory)).replace("{EXECUTOR_LAUNCH_CMD}", command)
    elif not options.get("container_uri"):
        raise ConfigError(f"container_uri: needed for container_type {container}")
    else:
        text = CONTAINERS[container].format(
            type=container, options=extra, rundir=directory, image=options["container_uri"], command=command
        )
    return " ".join(text.split())


def _own_parsl(options: Mapping[str, Any]) -> Mapping[str, str]:
    """Says, as a variable, which Parsl the workers must have, unless they may have any."""
    return {PARSL: VERSION} if options.get("check_parsl_version", True) else {}


def _write_script(directory: Path, variables: Mapping[str, str], environment: Path | None, *, search: bool) -> Path:
    """Writes the start script, which sets `variables`, and the copy of our code that it makes importable."""
    package = directory / "worker"
    room = package / "uep" / "workers"
    room.mkdir(mode=0o700, parents=True, exist_ok=True)
    (package / "uep" / "__init__.py").touch()
    for file in Path(workers.__path__[0]).glob("*.py"):
        shutil.copyfile(file, room / file.name)
    (package / f"{TASK_MODULE}.py").write_text("from uep.workers.execution import execute_task\n")
    program, script = room / "parsl_program.py", package / "start.sh"
    python = Path(sys.executable) if environment is None else environment / "bin" / "python"
    paths = {"package": package, "program": program, "python": python, "environment": environment or ""}
    words = {"pool": POOL, **{key: shlex.quote(str(path)) for key, path in paths.items()}}
    words["activation"] = "" if environment is None else _ACTIVATION.format(**words)
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ} | dict(variables)
    words["variables"] = "".join(
        f"export {name}; : ${{{name}:={shlex.quote(value)}}}\n" for name, value in passed_on.items()
    )
    script.write_text(_START.format(search=_SEARCH.format(**words) if search else "", **words))
    return script
