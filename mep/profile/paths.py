"""Where things lie: profiles, what is remembered, what runs, logs.

Root's system installation is spread over the system's folders; everything else keeps to one configuration folder.

    folder     system         otherwise
    config     /etc/mep       --config-dir, MEP_CONFIG_DIR, GLOBUS_COMPUTE_USER_DIR (the public package's), or
                              ~/.globus_compute: profiles, and the file `environment`
    state      /var/lib/mep   MEP_STATE_DIR, or the configuration folder: the stored login, and what outlives a crash
    run        /run/mep       MEP_RUN_DIR, or for root /run/mep: locks, and the state of user endpoints
                              without root: a folder in the configuration folder for each host and boot, as homes are
                              shared between hosts and outlive a boot
    log        /var/log/mep   the profile itself
"""

from __future__ import annotations

import dataclasses
import os
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Paths:
    """log: None when a profile's log lies in the profile. host: ours, where hosts share the folders; else nothing."""

    config: Path
    state: Path
    run: Path
    log: Path | None
    host: str = ""

    def log_file(self, profile: Path) -> Path:
        """The manager's log for the profile in this folder."""
        return (profile if self.log is None else self.log / profile.name) / "endpoint.log"

    def kept(self, name: str) -> Path:
        """What outlives a crash of the host, of the user endpoints of the profile with this name."""
        return self.kept_by_all(name) / self.host

    def kept_by_all(self, name: str) -> Path:
        """The same of all hosts that share the folder: what runs on another has not ended with a crash of this one."""
        return self.state / "user-endpoints" / name

    def orders(self, name: str) -> Path:
        """The orders of admins that stay, for the profile with this name on this host."""
        return self.orders_by_all(name) / self.host

    def orders_by_all(self, name: str) -> Path:
        """The same of all hosts that share the folder."""
        return self.state / "admin-orders" / name

    @property
    def own_runs(self) -> Path:
        """Where without root the folder for this boot of this host is, unless a variable names another."""
        return self.config / ".run"


def find_paths(config_dir: Path | None) -> Paths:
    """The paths for this call of `mep`; `config_dir` is its option --config-dir."""
    run, state = _named("MEP_RUN_DIR"), _named("MEP_STATE_DIR")
    config = config_dir or _named("MEP_CONFIG_DIR") or _named("GLOBUS_COMPUTE_USER_DIR")
    if config is None and os.geteuid() == 0:
        return Paths(Path("/etc/mep"), state or Path("/var/lib/mep"), run or _RUN, Path("/var/log/mep"))
    config = (config or _home() / ".globus_compute").absolute()
    found = Paths(config, state or config, run or _RUN, None)
    if os.geteuid() == 0:
        return found
    found = dataclasses.replace(found, host=socket.gethostname())
    if run is not None:
        return found
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]
    return dataclasses.replace(found, run=found.own_runs / f"{found.host}-{boot}")


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # no HOME, and no account with our uid: as login(1) has it then
        return Path("/")


_RUN = Path("/run/mep")


def _named(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value).absolute() if value else None
