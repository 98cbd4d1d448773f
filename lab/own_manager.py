"""A manager of an ordinary user: a profile in their home, and the real `mep start` with nobody's rights but theirs.

with OwnManager(account, hub, "alice") as manager:
    ...  manager.endpoint_id
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.accounts import LocalAccount
from lab.hub import HubProcess
from lab.manager import MEP, ManagerProcess


class OwnManager(ManagerProcess):
    """As a ManagerProcess, run as an account. `user` of the hub is who owns the endpoint."""

    def __init__(
        self,
        account: LocalAccount,
        hub: HubProcess,
        user: str,
        *,
        name: str = "own",
        template: str | None = None,
        config: Mapping[str, Any] | None = None,
        also: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        """arguments: more of `mep configure`. The others are as for a ManagerProcess."""
        self._account = account
        self._arguments = arguments
        become = ["setpriv", f"--reuid={account.uid}", f"--regid={account.gid}", "--init-groups", "--"]
        super().__init__(
            account.home,
            hub,
            user,
            mapping=[],
            template=template,
            config=config,
            name=name,
            also=also,
            program=(*become, MEP),
        )

    @property
    def profile(self) -> Path:
        """The folder that `mep configure` makes."""
        return self._account.home / ".globus_compute" / self.name

    @property
    def environment(self) -> dict[str, str]:
        """That of a login of the account."""
        inherited = super().environment
        for name in ("MEP_CONFIG_DIR", "MEP_RUN_DIR"):
            del inherited[name]
        login = {"HOME": str(self._account.home), "USER": self._account.name, "SHELL": "/bin/bash"}
        return {**inherited, **login, **self._also}

    def configure(self) -> None:
        """Makes the profile with `mep configure`, and edits it as its owner would. Raises ManagerFailed."""
        self._configure(self._arguments)
        self._edit()
        for path in (self.profile, *self.profile.iterdir(), self._credentials):
            os.chown(path, self._account.uid, self._account.gid)
