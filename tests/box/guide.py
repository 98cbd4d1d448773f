"""docs/install.md as something to run: the code under each of its headings."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

GUIDE = Path(__file__).parents[2] / "docs" / "install.md"


def code(heading: str, language: str = "sh") -> str:
    """The code block under the heading that begins or ends so."""
    sections = re.split(r"^## ", GUIDE.read_text(), flags=re.MULTILINE)[1:]
    (section,) = [text for text in sections if heading in text.splitlines()[0]]
    (block,) = re.findall(rf"^```{language}\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)
    assert isinstance(block, str)
    return block


def follow(heading: str, folder: Path, **variables: str) -> str:
    """Runs the commands under a heading as root in `folder`; what they said. They must succeed."""
    done = run(code(heading), folder, variables)
    assert done.returncode == 0, f"{heading}: {done.stdout}{done.stderr}"
    return done.stdout


def run(
    script: str, folder: Path | str = "/root", variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A shell script as root types it, in an ordinary login's environment."""
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8", **(variables or {})}
    assert os.geteuid() == 0
    return subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
