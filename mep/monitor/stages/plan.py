"""The last step before the launch: all that the privileged part needs to know, decided without touching anything.

`make` is pure. `endpoints.spawn` opens the descriptors.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from mep.monitor.stages import admission
from mep.privileged import kernel
from mep.processes.helper import MARK
from mep.processes.printable import escaped
from mep.processes.render_protocol import MAX_REASON
from mep.profile import functions
from mep.profile.profile import Profile
from mep.request.account import Account
from mep.request.launch_plan import LaunchPlan
from mep.request.mapped_identity import MappedIdentity
from mep.request.rendered_config import RenderedConfig
from mep.request.start_endpoint import StartEndpoint

_VERSION = re.compile(r"[0-9A-Za-z.+-]{1,64}")
_MANAGERS = frozenset(
    {
        *(MARK, "GLOBUS_COMPUTE_CLIENT_ID", "GLOBUS_COMPUTE_CLIENT_SECRET"),
        *("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "MAINPID"),
    }
)
"""Variables that an ordinary user's manager was started with and that are for it alone: with whose login it registers,
and how it speaks to systemd."""


def make(
    profile: Profile, command: StartEndpoint, identity: MappedIdentity, account: Account, rendered: RenderedConfig
) -> LaunchPlan:
    """The plan for this request, whose credentials are not sealed."""
    program = profile.config.uep_command
    variables = environment(profile, command, account)
    return LaunchPlan(
        argv=(*program, command.name),
        environment=variables,
        directory=variables["CWD"],
        account=account,
        log=(f"{account.home}/.globus_compute/{command.name}", "endpoint.log"),
        handover=_handover(profile, identity, rendered),
        credentials=command.credentials.file,
        pam=profile.config.pam.service_name if profile.config.pam.enable else None,
        audited=profile.config.high_assurance,
        configuration=profile.digest[:12],
        functions=functions.fingerprint(profile.config.allowed_functions),
        umask=profile.config.umask,
        group_rule=admission.group_rule(profile.config.accounts),
    )


def environment(profile: Profile, command: StartEndpoint, account: Account) -> dict[str, str]:
    """The variables of a user endpoint: `own_environment`, and the client's versions, which have been checked."""
    variables = own_environment(profile, command, account)
    runtime = json.loads(command.user_runtime)
    python = runtime.get("python")
    versions = {
        "GC_USER_PYTHON_VERSION": python.get("version") if isinstance(python, dict) else None,
        "GC_USER_SDK_VERSION": runtime.get("globus_compute_sdk_version"),
    }
    for name, version in versions.items():
        if isinstance(version, str) and _VERSION.fullmatch(version):
            variables.setdefault(name, version)
    return variables


def own_environment(profile: Profile, command: StartEndpoint, account: Account) -> dict[str, str]:
    """Variables as templates see them, built from nothing; of an ordinary user's on what the manager was started with.

    The account's own cannot be overridden by the site's. `CWD` is its working directory, as in the public package.
    """
    program_folder = Path(profile.config.uep_command[0]).parent
    begun_with = {} if kernel.is_root() else {name: os.environ[name] for name in os.environ if name not in _MANAGERS}
    variables = {"PATH": f"/usr/local/bin:/usr/bin:/bin:{program_folder}", **begun_with, **profile.environment}
    variables.pop("PWD", None)
    cwd = variables.get("CWD")
    variables["CWD"] = str(Path("/", cwd)) if cwd else account.home
    variables.update(
        HOME=account.home,
        USER=account.name,
        LOGNAME=account.name,
        SHELL=account.shell or "/bin/sh",
        GLOBUS_COMPUTE_ENDPOINT_NAME=command.name,
    )
    return variables


def _handover(profile: Profile, identity: MappedIdentity, rendered: RenderedConfig) -> dict[str, Any]:
    handover: dict[str, Any] = {
        "config": rendered.read(),
        "ep_info": {
            "globus_candidate_identities": identity.candidates,
            "globus_matched_identity": identity.identity,
        },
    }
    if warning := rendered.warning():
        handover["ep_info"]["warning"] = escaped(warning[:MAX_REASON])
    if profile.config.allowed_functions is not None:
        pins = functions.pins(profile.config.allowed_functions)
        # A program that knows no pins gets an empty list, and runs nothing.
        handover["allowed_functions"] = [] if pins else functions.ids(profile.config.allowed_functions)
        handover |= {"pinned_functions": pins} if pins else {}
    return handover
