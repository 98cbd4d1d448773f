"""What a profile relies on outside of its folder: the programs of user endpoints, and the file of the PAM service."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from mep.profile import command_trust, programs, trust
from mep.profile.errors import ConfigError, ConfigErrors
from mep.profile.profile import Profile

PAM_FOLDER = Path("/etc/pam.d")


def check(profile: Profile) -> None:
    """Returns if only root can change these, and ordinary users can execute the programs.

    Raises:
        ConfigError: with everything that is wrong.
    """
    needed = ((sys.executable,), profile.config.uep_command)
    problems = [problem for command in needed if (problem := command_problem(command))]
    if profile.config.pam.enable and (problem := pam_problem(profile.config.pam.service_name)):
        problems.append(problem)
    if problems:
        raise ConfigErrors(list(dict.fromkeys(problems)))  # the one may be the other's interpreter


def command_problem(command: Sequence[str]) -> str | None:
    """What keeps `command` from being what user endpoints are started with, and the remedy; None when nothing does."""
    try:
        command_trust.check(command)
    except ConfigError as e:
        return str(e)
    obstacle = programs.obstacle(Path(command[0]))
    return obstacle and f"{obstacle}; user endpoints run as ordinary users"


def pam_problem(service_name: str) -> str | None:
    """What is wrong with the file of a PAM service, and the remedy; None when nothing is."""
    try:
        check_pam_service(service_name)
    except ConfigError as e:
        return str(e)
    return None


def check_pam_service(service_name: str, folder: Path = PAM_FOLDER) -> None:
    """Returns if PAM has a file for the service, which nobody but root can change.

    Without one PAM would go by the rules of `other`, whatever they are. Raises ConfigError.
    """
    path = folder / service_name.lower()  # as PAM does
    if path.parent != folder or path.name == "..":
        raise ConfigError(folder, [f"pam.service_name: {service_name!r} cannot name a file here; write a plain name"])
    trust.require_file(
        path, "the package installs /etc/pam.d/mep; copy that, or set pam.service_name to a service that exists"
    )
