"""Names the versions of both sides, for errors that may be due to their difference.

The client's versions are in GC_USER_PYTHON_VERSION and GC_USER_SDK_VERSION, if anybody has said.
"""

from __future__ import annotations

import functools
import os
import platform
import sys
from typing import Any

from uep.workers.serialization import sdk


@functools.cache
def details() -> dict[str, Any]:
    """Collects the worker's versions; the client warns its user when they differ from its own."""
    found = {"os": platform.platform(), "python_version": platform.python_version()}
    try:
        version = sdk().version.__version__
        import dill  # type: ignore[import-untyped,unused-ignore]
    except Exception:  # noqa: BLE001 - a broken environment shows as the task's own traceback
        return found
    return {**found, "dill_version": dill.__version__, "globus_compute_sdk_version": version}


def difference() -> str:
    """Says that an error may be due to the client's versions; nothing when they are like the worker's."""
    python, sdk = (os.environ.get(f"GC_USER_{name}_VERSION") for name in ("PYTHON", "SDK"))
    ours = details()
    other_python = python is not None and _minor(python) != _minor(ours["python_version"])
    other_sdk = sdk is not None and sdk != ours.get("globus_compute_sdk_version", sdk)
    return f"This may be because the versions differ: {both_sides()}.\n" if other_python or other_sdk else ""


def both_sides(*, pythons_differ: bool = False) -> str:
    """Names both sides' versions, as far as they are known. `pythons_differ`: they certainly do."""
    python, sdk = (os.environ.get(f"GC_USER_{name}_VERSION", "?") for name in ("PYTHON", "SDK"))
    ours = details()
    worker = f"Python {ours['python_version']} and globus-compute-sdk {ours.get('globus_compute_sdk_version', '?')}"
    if python == sdk == "?":
        client = ""
    elif pythons_differ and python is not None and _minor(python) == _minor(ours["python_version"]):
        client = "the client that sent it has another one than the client that started the endpoint, "
    else:
        client = f"the client that started the endpoint has Python {python} and globus-compute-sdk {sdk}, "
    return f"{client}the worker has {worker} ({here()})"


def other_parsl(endpoints: str, workers: str, python: str | None = None) -> str:
    """Says that the two sides cannot talk to each other, and the remedy. `python` is the worker's, with its host."""
    return (
        f"The workers have another Parsl than the endpoint, and may not understand it: parsl {workers}"
        f"{f' ({python})' if python else ''}, the endpoint has parsl {endpoints}. In the workers' environment run:"
        f" {sys.executable if python else 'python'} -m pip install parsl=={endpoints}"
    )


def here() -> str:
    """Names this Python and this host."""
    return f"{sys.executable} on {platform.node()}"


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]
