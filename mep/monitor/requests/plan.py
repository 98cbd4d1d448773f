"""The last step before the launch: all that the privileged part needs to know, decided without touching anything.

`make` is pure. `LaunchPlan.spec` adds the descriptors that `children` opens.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mep.mapper.mapping import MappedIdentity
from mep.monitor.requests.name_service import Account
from mep.monitor.requests.renderer import RenderedConfig
from mep.privileged.spec import LaunchSpec
from mep.reader.loader import Profile
from mep.worker.commands import StartEndpoint

CREDENTIALS_FD = 3
"""Where the program finds its credential file; the number that the public package uses."""
REPORT_FD = 5
"""Where the program writes `ready` after its first heartbeat, `working` after its first result, `stopping` when it
takes no more tasks, and `stopped` before a clean end; ours, and optional."""
AUDIT_FD = 4
"""Where the program of a high-assurance endpoint writes a record for whatever happens to a task."""

_VERSION = re.compile(r"[0-9A-Za-z.+-]{1,64}")


@dataclass(frozen=True)
class LaunchPlan:
    """One user endpoint to be started.

    handover: the JSON object that it reads from standard input, but for what concerns descriptors. Holds passwords.
    pam: the PAM service that the account goes through, if any. audited: it tells of each task (high assurance).
    configuration: the beginning of the digest of the profile that it was made from.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    account: Account
    log: tuple[str, str]
    handover: Mapping[str, Any] = field(repr=False)
    pam: str | None
    audited: bool
    configuration: str

    def spec(self, descriptors: Mapping[int, int], rlimits: Mapping[int, int]) -> LaunchSpec:
        """What `mep.privileged` is given."""
        return LaunchSpec(
            argv=self.argv,
            environment=self.environment,
            username=self.account.name,
            uid=self.account.uid,
            gid=self.account.gid,
            groups=self.account.groups,
            directory=self.account.home,
            log=self.log,
            descriptors=descriptors,
            home=self.account.home,
            pam=self.pam,
            rlimits=rlimits,
        )


def make(
    profile: Profile, command: StartEndpoint, identity: MappedIdentity, account: Account, rendered: RenderedConfig
) -> LaunchPlan:
    """The plan for this request."""
    program = profile.config.uep_command
    return LaunchPlan(
        argv=(*program, command.name),
        environment=_environment(profile, command, account),
        account=account,
        log=(f"{account.home}/.globus_compute/{command.name}", "endpoint.log"),
        handover=_handover(profile, command, identity, rendered),
        pam=profile.config.pam.service_name if profile.config.pam.enable else None,
        audited=profile.config.high_assurance,
        configuration=profile.digest[:12],
    )


def _environment(profile: Profile, command: StartEndpoint, account: Account) -> dict[str, str]:
    """Built from nothing. The account's own variables cannot be overridden by the site's."""
    program_folder = Path(profile.config.uep_command[0]).parent
    environment = {"PATH": f"/usr/local/bin:/usr/bin:/bin:{program_folder}", **profile.environment}
    environment.update(
        HOME=account.home,
        USER=account.name,
        LOGNAME=account.name,
        SHELL=account.shell or "/bin/sh",
        GLOBUS_COMPUTE_ENDPOINT_NAME=command.name,
    )
    python = command.user_runtime.get("python")
    versions = {
        "GC_USER_PYTHON_VERSION": python.get("version") if isinstance(python, dict) else None,
        "GC_USER_SDK_VERSION": command.user_runtime.get("globus_compute_sdk_version"),
    }
    for name, version in versions.items():
        if isinstance(version, str) and _VERSION.fullmatch(version):
            environment.setdefault(name, version)
    return environment


def _handover(
    profile: Profile, command: StartEndpoint, identity: MappedIdentity, rendered: RenderedConfig
) -> dict[str, Any]:
    handover: dict[str, Any] = {
        "amqp_creds": command.credentials,
        "config": rendered.text,
        "ep_info": {
            "globus_candidate_identities": identity.candidates,
            "globus_matched_identity": identity.identity,
        },
    }
    if profile.config.allowed_functions is not None:
        handover["allowed_functions"] = list(profile.config.allowed_functions)
    return handover
