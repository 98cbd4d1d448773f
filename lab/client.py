"""A user's own program: a plain script with the unmodified SDK, run in a process of its own as a user of the hub.

The script gets the endpoint's id and what else it needs as arguments, and prints one JSON value per line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from lab.hub import HubProcess

TIMEOUT = 120.0
PYTHON = Path(sys.executable)


class ClientFailed(Exception):
    """The script did not end with 0; the text is what it said."""


def run_script(
    hub: HubProcess, user: str, script: Path | str, *arguments: str, timeout: float = TIMEOUT, python: Path = PYTHON
) -> list[Any]:
    """Runs a script that prints JSON values, one per line; these. Arguments and errors as for `output_of`."""
    output = output_of(hub, user, script, *arguments, timeout=timeout, python=python)
    return [json.loads(line) for line in output.splitlines()]


def output_of(
    hub: HubProcess, user: str, script: Path | str, *arguments: str, timeout: float = TIMEOUT, python: Path = PYTHON
) -> str:
    """Runs a script (a path, or Python text) as `user`; what it printed.

    `python` is that of the user's environment, which has an SDK.

    Raises:
        ClientFailed: it ended with another exit code than 0, or not within `timeout` seconds.
    """
    what = [str(script)] if isinstance(script, Path) else ["-c", script]
    try:
        done = subprocess.run(
            [python, *what, *arguments],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(hub.folder),
                "LANG": "C.UTF-8",
                **hub.client_environment(user),
            },
            cwd=hub.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as e:
        raise ClientFailed(f"{what[0]} did not end within {timeout:g} s: {_tail(e.stderr)}") from None
    if done.returncode != 0:
        raise ClientFailed(f"{what[0]} ended with {done.returncode}: {done.stdout[-1000:]}{_tail(done.stderr)}")
    return done.stdout


def _tail(output: bytes | str | None) -> str:
    text = output.decode(errors="replace") if isinstance(output, bytes) else output or ""
    return text[-3000:]
