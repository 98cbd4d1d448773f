"""What people type on a terminal of their account, with the names of the public package."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from lab.accounts import LocalAccount
from lab.hub import HubProcess
from lab.manager import MEP


class Terminal:
    """A shell of an account, in its home, in which `globus-compute-endpoint` is our program."""

    def __init__(self, account: LocalAccount, hub: HubProcess, folder: Path, variables: Mapping[str, str]) -> None:
        """`folder`, which users can enter, is for the names of our program; `variables` are more of the environment."""
        self.account = account
        names = folder / f"names of {account.name}"
        names.mkdir(exist_ok=True)
        if not (names / "globus-compute-endpoint").exists():
            (names / "globus-compute-endpoint").symlink_to(MEP)
        self.environment = {
            "PATH": f"{names}:/usr/bin:/bin",
            "HOME": str(account.home),
            "USER": account.name,
            "LOGNAME": account.name,
            "SHELL": "/bin/bash",
            "LANG": "C.UTF-8",
            "GLOBUS_SDK_ENVIRONMENT": "local",
            "GLOBUS_SDK_SERVICE_URL_AUTH": f"http://localhost:{hub.port}/",
            **variables,
        }

    def type(self, commands: str) -> str:
        """What the commands print, in the order of their lines; each of them must end well."""
        done = subprocess.run(
            ["bash", "-e", "-u", "-o", "pipefail", "-c", commands],
            env=self.environment,
            cwd=self.account.home,
            user=self.account.uid,
            group=self.account.gid,
            extra_groups=[],
            umask=0o022,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, f"{commands} ended with {done.returncode}: {done.stdout}"
        return done.stdout
