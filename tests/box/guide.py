"""docs/install.md and docs/hub.md as something to type: the code under each of their headings."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from lab.accounts import LocalAccount
from lab.client import ClientFailed
from lab.waiting import until

DOCS = Path(__file__).parents[2] / "docs"
INSTALL, HUB = "install.md", "hub.md"
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
TIME_LIMIT = 180.0


def code(page: str, heading: str, language: str = "sh") -> str:
    """The code block under the heading that begins or ends so."""
    sections = re.split(r"^## ", (DOCS / page).read_text(), flags=re.MULTILINE)[1:]
    (section,) = [text for text in sections if heading in text.splitlines()[0]]
    (block,) = re.findall(rf"^```{language}\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)
    assert isinstance(block, str)
    return block


def run(script: str) -> subprocess.CompletedProcess[str]:
    """A shell script as root types it, in an ordinary login's environment."""
    return subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", script],
        cwd="/root",
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIME_LIMIT,
    )


class Login:
    """Root's shell, in which the pages are typed, one after another; what one has set, the next one finds.

    site: variables that the pages let a site set before them. A context manager.
    """

    def __init__(self, site: Mapping[str, str]) -> None:
        assert os.geteuid() == 0
        self._folder = tempfile.TemporaryDirectory()
        self._said = Path(self._folder.name, "said")
        with self._said.open("wb") as said:
            self._shell = subprocess.Popen(
                ["/bin/bash", "-euo", "pipefail"],
                cwd="/root",
                env={**ENVIRONMENT, **site},
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> Login:
        return self

    def __exit__(self, *_: object) -> None:
        self._shell.kill()
        self._shell.communicate()
        self._folder.cleanup()

    def follow(self, page: str, heading: str, folder: Path = Path("/root")) -> str:
        """Types the commands under a heading in `folder`; what they said. They must succeed."""
        typed, done = Path(self._folder.name, "typed"), Path(self._folder.name, "done")
        typed.write_text(code(page, heading))
        before = self._said.stat().st_size
        assert self._shell.stdin is not None
        self._shell.stdin.write(f"cd {folder}; . {typed} </dev/null; >{done}\n".encode())
        self._shell.stdin.flush()
        until(lambda: done.exists() or self._shell.poll() is not None, f"{page}: {heading}", TIME_LIMIT)
        said = self._said.read_bytes()[before:].decode(errors="replace")
        assert done.exists(), f"{page}: {heading}: {said}"
        done.unlink()
        return said


def type_as(account: LocalAccount, script: str, **variables: str) -> str:
    """A script as a user types it at home, with a Python that has the public client; what it said.

    Raises:
        ClientFailed: it did not end with 0.
    """
    home = str(account.home)
    path = f"{Path(sys.executable).parent}:{ENVIRONMENT['PATH']}"
    done = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", script],
        cwd=home,
        env={"PATH": path, "HOME": home, "LANG": "C.UTF-8", **variables},
        user=account.uid,
        group=account.gid,
        extra_groups=[],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIME_LIMIT,
    )
    if done.returncode != 0:
        raise ClientFailed(f"ended with {done.returncode}: {done.stdout[-1000:]}{done.stderr[-3000:]}")
    return done.stdout
