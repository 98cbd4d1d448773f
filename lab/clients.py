"""What people use on top of the SDK: each in an environment of its own, and each with another version of the SDK.

MEP_CLIENTS names the folder of these environments; `lab/setup clients` makes it (the Makefile does both).
"""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(os.environ.get("MEP_CLIENTS", "/opt/mep-dev/clients"))
WHEELS = FOLDER / "wheels"
"""The packages that tasks of these clients install."""


def python(name: str) -> Path:
    """The interpreter of a client's environment, whether it is there or not."""
    return program(name, "python")


def program(name: str, program: str) -> Path:
    """A program of a client's environment, whether it is there or not."""
    return FOLDER / name / "bin" / program


def packages(name: str) -> Path:
    """The folder of a client's packages, for PYTHONPATH."""
    (found,) = (FOLDER / name / "lib").glob("python3.*/site-packages")
    return found
