"""Which modules a fresh process has loaded after some imports."""

from __future__ import annotations

import subprocess
import sys


def loaded_by(*modules: str) -> set[str]:
    """The modules that come with these, themselves included."""
    program = f"import sys; before = set(sys.modules); import {', '.join(modules)};"
    program += "print(*{name for name, module in sys.modules.items() if module} - before)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def rooms(modules: set[str]) -> set[str]:
    """The rooms of `mep` that these modules are in."""
    return {name.split(".")[1] for name in modules if name.startswith("mep.")}
