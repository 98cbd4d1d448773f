"""The commands that become another program: `mep python-exec`, and what the public manager starts as a user."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from mep.cli.common import DEFAULT, GivenName
from mep.daemon.failed import Failed

REST_AS_IT_IS = {"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False}
"""Whatever stands behind the first argument belongs to the program."""


def python_exec(
    context: typer.Context, module: Annotated[str, typer.Argument(help="A module, as after `python -m`.")]
) -> None:
    """Run a Python module as a program, with the Python and the packages of this installation."""
    # Root's own folder of the moment, and PYTHONPATH, are not to be where a program of root's comes from.
    isolated = ["-I"] if os.geteuid() == 0 else []
    os.execv(sys.executable, [sys.executable, *isolated, "-m", module, *context.args])  # noqa: S606 - no shell


def start_user_endpoint(name: GivenName = DEFAULT) -> None:
    """Become the user endpoint, with the hand-over on standard input. A manager runs this, nobody else."""
    if sys.stdin is None or sys.stdin.isatty():
        raise Failed(os.EX_USAGE, "only a manager starts a user endpoint: it says on standard input which one")
    program = Path(sys.executable).parent / "mep-uep"
    os.execv(program, [str(program), name])  # noqa: S606 - no shell, as meant
