"""What a profile relies on outside of its folder: the programs of user endpoints, the files of the PAM service, the
folder of the audit trail, the client credentials.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from mep.profile import command_trust, own_code, places, programs, trust
from mep.profile.config import ManagerConfig
from mep.profile.errors import ConfigError, ConfigErrors
from mep.profile.profile import Profile
from mep.reader import client_credentials

PAM_FOLDER = Path("/etc/pam.d")


def check(profile: Profile) -> None:
    """Returns if only root can change these, and ordinary users can execute the programs.

    Raises:
        ConfigError: with everything that is wrong.
    """
    needed = ((sys.executable,), profile.config.uep_command)
    problems = [problem for command in needed if (problem := command_problem(command))]
    if os.geteuid() == 0:
        problems += [problem] if (problem := code_problem()) else []
        problems += own_code.variable_problems(os.environ)
    problems += needs_root(profile.config)
    if profile.config.pam.enable and (problem := pam_problem(profile.config.pam.service_name)):
        problems.append(problem)
    for key in ("audit_log_path", "public_audit_log_path"):
        if problem := audit_problem(getattr(profile.config, key), key):
            problems.append(problem)
    if problem := credentials_problem(profile.config.client_credentials_path):
        problems.append(problem)
    if problems:
        raise ConfigErrors(list(dict.fromkeys(problems)))  # the one may be the other's interpreter


def needs_root(config: ManagerConfig) -> list[str]:
    """What the configuration asks for and an ordinary user cannot have, with the remedies."""
    if os.geteuid() == 0:
        return []
    asked = {
        "pam.enable": config.pam.enable,
        "high_assurance": config.high_assurance,
    }
    return [f"{key}: only root's manager can do that; leave it out" for key, wanted in asked.items() if wanted]


def command_problem(command: Sequence[str]) -> str | None:
    """What keeps `command` from being what user endpoints are started with, and the remedy; None when nothing does.

    Whose programs they execute is an ordinary user's own affair.
    """
    if os.geteuid() != 0:
        return programs.obstacle(Path(command[0]))
    try:
        command_trust.check(command)
        command_trust.check_packages(command)
    except ConfigError as e:
        return str(e)
    obstacle = programs.obstacle(Path(command[0]))
    return obstacle and f"{obstacle}; user endpoints run as ordinary users"


def code_problem() -> str | None:
    """Who but root could change what this program imports, and the remedy; None when nobody can."""
    try:
        own_code.check()
    except ConfigError as e:
        return f"our own code: {e}"
    return None


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
    _check_pam_rules(path, folder, {path})


def _check_pam_rules(path: Path, folder: Path, seen: set[Path]) -> None:
    """Follows what the rules include: with a file or a mandatory module missing, PAM refuses every session."""
    text = path.read_text(encoding="utf-8", errors="replace").replace("\\\n", " ")
    for number, line in enumerate(text.splitlines(), 1):
        words = _WORD.findall(line.partition("#")[0])
        included = _included(words)
        if included is not None:
            found = next((each / included for each in (folder, *_VENDORS) if (each / included).exists()), None)
            if found is None:
                missing = f"line {number}: includes {included!r}, which is no file in {folder}"
                raise ConfigError(path, [f"{missing}; include one that is there, or remove the line"])
            if found not in seen:
                seen.add(found)
                trust.require_file(found, "restore it")
                _check_pam_rules(found, folder, seen)
        elif len(words) > 2 and words[1] in _MANDATORY and words[0][0] != "-" and _lacks_module(words[2]):
            missing = f"line {number}: there is no module {words[2]}"
            raise ConfigError(path, [f"{missing}; install its package, or remove the line"])
        elif len(words) > 2:
            _check_pam_module(path, number, words[2], [word.strip("[]") for word in words[3:]])


def _check_pam_module(path: Path, number: int, module: str, arguments: Sequence[str]) -> None:
    """The module of a rule, and the files that its arguments name: PAM executes them as root, or does what they say."""
    try:
        for folder in _module_folders():
            if (folder / module).exists():
                trust.require_file(folder / module, "")
        for argument in arguments:
            named = argument if argument.startswith("/") else argument.partition("=")[2]
            if named.startswith("/") and not set(named) & set("%$@{"):  # else it is another one for each user
                command_trust.check_path(Path(named))
    except ConfigError as e:
        raise ConfigError(path, [f"line {number}: {e}"]) from None


def _included(words: list[str]) -> str | None:
    """The file that a line of PAM's rules, in words, includes."""
    if len(words) > 1 and words[0] == "@include":
        return words[1]
    return words[2] if len(words) > 2 and words[1] in ("include", "substack") else None


def _lacks_module(module: str) -> bool:
    folders = _module_folders()
    return bool(folders) and not any((folder / module).exists() for folder in folders)


def _module_folders() -> list[Path]:
    return [folder for pattern in _MODULES for folder in Path("/").glob(pattern)]


_WORD = re.compile(r"\[(?:\\.|[^\]])*\]|\S+")
"""What PAM takes for one word (pam.conf(5))."""
_MANDATORY = ("required", "requisite")
_VENDORS = (Path("/usr/lib/pam.d"), Path("/usr/etc/pam.d"), Path("/usr/share/pam.d"))
_MODULES = ("lib*/security", "lib*/*/security", "usr/lib*/security", "usr/lib*/*/security")
"""Where distributions have PAM's modules."""


def audit_problem(path: Path | None, key: str = "audit_log_path") -> str | None:
    """What keeps the audit trail from being written there, and the remedy; None when nothing does. key: names it."""
    if path is None:
        return None
    try:
        places.check(path.parent)
    except ConfigError as e:
        return f"{key}: {e}"
    except OSError as e:
        return f"{key}: {path.parent} cannot be looked at: {e.strerror}"
    return None if path.parent.is_dir() else f"{key}: {path.parent} does not exist; make it: mkdir {path.parent}"


def credentials_problem(path: Path | None) -> str | None:
    """What is wrong with the file of client credentials, and the remedy; None when nothing is, or there is none."""
    try:
        if path is not None:
            client_credentials.find(path)
    except ConfigError as e:
        return str(e)
    return None
