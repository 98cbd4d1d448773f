"""The commands about the boot of the host: `mep enable-on-boot`, `disable-on-boot`; and what else systemd is asked.

The package has the unit, `mep@NAME`, for profiles where the package's lie; systemd is told which of them it starts. It
has one of that name for ordinary users, whose own systemd (`systemctl --user`) starts it.
"""

from __future__ import annotations

import getpass
import os
import subprocess
from pathlib import Path
from typing import NoReturn

from mep.cli.common import DEFAULT, Name, load, login_app_of, need_profile, paths, profile_directory
from mep.daemon.failed import Failed, exit_codes

_LINGER = Path("/var/lib/systemd/linger")
"""Whose systemd runs from the boot on, and not only while they are logged in (loginctl(1))."""
_MOST_BYTES = 255
"""Of the name of a unit."""
_LONGEST_ENDPOINT = f"uep.{'0' * 36}.{'0' * 36}"
"""As long as what the service calls a user endpoint."""
_LONGEST_PID = 2**22


def enable_on_boot(name: Name = DEFAULT) -> None:
    """Have systemd start the endpoint with the host, from the next boot on."""
    from mep.registration.login import check_login

    directory = profile_directory(name)
    _need_unit(name)
    config = load(directory).config
    if config.client_credentials_path is None:
        _need_credentials_of_a_file()
    with exit_codes(), login_app_of(config) as app:
        check_login(app, config)  # nobody will be there to log in
    _systemctl("enable", name)
    systemctl = " ".join(_manager())
    print(f"Endpoint {name} is started when this host boots. Now:\n\n  {systemctl} start mep@{name}")
    if os.geteuid() != 0 and not _LINGER.joinpath(getpass.getuser()).exists():
        print("\nUntil you allow that it only runs while you are logged in:\n\n  loginctl enable-linger")


def _need_credentials_of_a_file() -> None:
    """Raises Failed when client credentials are variables of this shell: the unit has those of the file only."""
    from mep.reader import environment
    from mep.reader.client_credentials import ID_VARIABLE, SECRET_VARIABLE

    file = paths().config / "environment"
    with exit_codes():
        written = environment.read(file)
    ours = {name: os.environ.get(name) for name in (ID_VARIABLE, SECRET_VARIABLE)}
    names = [name for name, value in ours.items() if value and value != written.get(name)]
    if names:
        which = " and ".join(names)
        text = f"{which}: set in this shell, and not so in {file}; systemd starts the endpoint without this shell"
        remedy = f"name a file with client_credentials_path in config.yaml, or write them into {file} (mode 0600)"
        raise Failed(os.EX_CONFIG, f"{text}: {remedy}; or unset them, to use the login of `mep login`")


def disable_on_boot(name: Name = DEFAULT) -> None:
    """Have systemd not start the endpoint with the host any more. A manager that runs goes on."""
    need_profile(profile_directory(name))
    _need_unit(name)
    _systemctl("disable", name)
    systemctl = " ".join(_manager())
    print(f"Endpoint {name} is not started when this host boots. If it is to end now:\n\n  {systemctl} stop mep@{name}")


def is_enabled(name: str) -> bool:
    """Whether systemd starts the profile of this name, where the package's lie, with the host."""
    if not _has_unit():
        return False
    try:
        done = subprocess.run([*_manager(), "is-enabled", "--quiet", unit(name)], check=False, capture_output=True)
    except FileNotFoundError:
        return False
    return done.returncode == 0


def disable(name: str) -> None:
    """As `disable-on-boot`. Raises Failed."""
    _systemctl("disable", name)


def is_run_by_systemd(run_directory: Path, name: str) -> bool:
    """Whether the manager that runs is that of the unit. Raises PermissionError, NoPlace."""
    from mep.monitor import run_lock

    pid = run_lock.holder(run_directory)
    if not pid:
        return False
    try:
        groups = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8", errors="replace")
    except OSError:  # it has ended
        return False
    return any(unit(name) in line.split("/") for line in groups.splitlines())


def restart(name: str) -> NoReturn:
    """Becomes the program that has systemd restart the manager. Raises OSError."""
    os.execvp("systemctl", [*_manager(), "restart", unit(name)])  # noqa: S606 - no shell, as meant


def unit(name: str) -> str:
    """The unit of the profile of this name. Escaped here: systemctl takes `*` for any name, and `+` for `\\x2b`."""
    from mep.monitor.containment.unit_names import escape

    return f"mep@{escape(name, keep='-@')}.service"


def name_problem(name: str) -> str | None:
    """Says what is to be done about a name that gets too long in the units of user endpoints: none would start."""
    from mep.monitor.containment.unit_names import scope

    too_many = len(scope(name, _LONGEST_ENDPOINT, _LONGEST_PID)) - _MOST_BYTES
    if too_many <= 0:
        return None
    return (
        f"{name!r} is too long for the names of its user endpoints' units, by {too_many} bytes: what is no letter of"
        " ASCII, digit, '_' or '.' takes four for each byte there; take a shorter name, or one with fewer of these"
    )


def _has_unit() -> bool:
    """Whether the profile lies where the package's unit, or that for ordinary users, has it."""
    return paths().config == (Path("/etc/mep") if os.geteuid() == 0 else Path.home() / ".globus_compute")


def _manager() -> list[str]:
    """The command of systemd's for whose boot this is: the host's, or that of our own systemd."""
    return ["systemctl"] if os.geteuid() == 0 else ["systemctl", "--user"]


def _need_unit(name: str) -> None:
    """Raises Failed."""
    if not _has_unit():
        usual = "/etc/mep" if os.geteuid() == 0 else "~/.globus_compute"
        text = f"the unit mep@ is for profiles of {usual} only; for one of {paths().config} make a unit of your own:"
        own = f"ExecStart=/usr/bin/mep --config-dir {paths().config} start {name}"
        raise Failed(os.EX_USAGE, f"{text} copy it, with {own}")


def _systemctl(verb: str, name: str) -> None:
    """Raises Failed."""
    try:
        done = subprocess.run([*_manager(), verb, unit(name)], check=False, capture_output=True, text=True)
    except FileNotFoundError:
        text = "there is no systemd here; have what starts this host's services run: mep start"
        raise Failed(os.EX_UNAVAILABLE, f"{text} {name}") from None
    if done.returncode != 0:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise Failed(os.EX_UNAVAILABLE, f"{' '.join(_manager())} {verb} {unit(name)}: {said}")
