"""The accounts that helpers, and mapping programs without `run_as`, run as: looked up once, before any event loop.

Each has its own. Whoever has the uid of one can kill it, so it must be nobody else's: not the one of whatever a system
gives to nobody in particular, not that of a service, and none that a mapping could give to a user.
"""

from __future__ import annotations

import grp
import os
import pwd
import time
from pathlib import Path

from identity import account_name
from mep.accounts import look_up
from mep.daemon.handed import HelperAccounts
from mep.monitor.stages import admission
from mep.privileged import kernel
from mep.processes.forked import NOBODY
from mep.processes.helper import MARK, HelperUnavailable
from mep.profile.config import ManagerConfig
from mep.request.account import Account
from mep.request.refusal import Refused

KEYS = ("worker_account", "render_account", "name_service_account", "mapping_account")
MAKE = "useradd --system --user-group --no-create-home --home-dir / --shell /usr/sbin/nologin"
"""The command that makes an account, but for its name."""
_LOOKS, _PAUSE = 20, 0.1
"""So often, and seconds between: one that a command such as `mep check` starts has no mark before its exec."""


def find(config: ManagerConfig) -> HelperAccounts:
    """The accounts that config.yaml names; our own for all, where we are not root. Waits for the name service.

    Raises:
        HelperUnavailable: one does not exist, or will not do; with the remedy.
    """
    if not kernel.is_root():
        own = look_up.account(pwd.getpwuid(os.getuid()).pw_name)
        if own is None:
            raise _refused(f"there is no account with our uid {os.getuid()}")
        return HelperAccounts(own, own, own, own)
    names = {key: getattr(config, key) for key in KEYS}
    found = {key: look_up.account(name) for key, name in names.items()}
    accounts = {key: account for key, account in found.items() if account is not None and account.name == names[key]}
    missing = {key: name for key, name in names.items() if key not in accounts}
    if missing:
        raise _refused(_missing(missing))
    for key, account in accounts.items():
        if objection := _objection(account, config):
            raise _refused(f"{key}: account {account.name!r} (uid {account.uid}) will not do: {objection}")
    if len({account.uid for account in accounts.values()}) < len(KEYS):
        raise _refused(f"{', '.join(KEYS)} must name accounts of different uids: each could end the others' processes")
    return HelperAccounts(*(accounts[key] for key in KEYS))


def readers(config: ManagerConfig) -> int | None:
    """The group whose members may ask how the manager is; None: only root, or we, where we are not root.

    Raises:
        HelperUnavailable: there is no such group.
    """
    name = config.status_group
    if name is None or not kernel.is_root():
        return None
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        text = f"status_group: there is no group {name!r} on this system; make it (groupadd), or leave the key out"
        raise _refused(text) from None


def _missing(missing: dict[str, str]) -> str:
    which = ", ".join(f"{name!r} ({key})" for key, name in missing.items())
    names = dict.fromkeys(missing.values())
    possible = [name for name in names if account_name.problem(name, directory_names=True) is None]
    remedy = " && ".join(f"{MAKE} {name}" for name in possible)
    return f"no account {which} on this system; as root: {remedy}" if remedy else f"there can be no account {which}"


def _objection(account: Account, config: ManagerConfig) -> str | None:
    other = f"make one of its own, for example: {MAKE} mep-render, and name that"
    if account.uid in (NOBODY, _overflow_uid()) or account.name in ("nobody", "nfsnobody"):
        return f"whatever else has no owner runs as this one, and could end the helpers; {other}"
    if _is_admitted(account, config):
        return f"it may have user endpoints; put it into accounts.deny_users, or {other}"
    if others := _others(account.uid):
        return f"it has other processes ({', '.join(others[:3])}), which could end the helpers; {other}"
    return None


def _overflow_uid() -> int:
    return int(Path("/proc/sys/kernel/overflowuid").read_text(encoding="ascii"))


def _is_admitted(account: Account, config: ManagerConfig) -> bool:
    policy = config.accounts
    try:
        admission.admit(account, policy, look_up.group_ids(policy.group_names()))
    except Refused:
        return False
    return True


def _others(uid: int) -> list[str]:
    """Processes of that uid that no manager has started. Only root can tell."""
    found: list[str] = []
    if os.geteuid() != 0:
        return found
    for _ in range(_LOOKS):
        found = [name for folder in Path("/proc").iterdir() if folder.name.isdigit() and (name := _other(folder, uid))]
        if not found:
            break
        time.sleep(_PAUSE)
    return found


def _other(folder: Path, uid: int) -> str | None:
    """Its pid and name, if it is one."""
    try:
        lines = (folder / "status").read_bytes().split(b"\n")
        facts = dict(line.split(b":\t", 1) for line in lines if b":\t" in line)
        if b"%d" % uid not in facts[b"Uid"].split() or facts[b"State"].startswith((b"Z", b"X")):
            return None
        # A manager has the mark as well, and with it what it has forked: its command line and environment.
        if b"%s=1" % MARK.encode() in (folder / "environ").read_bytes().split(b"\0"):
            return None
    except OSError:  # it has ended
        return None
    return f"{folder.name} {facts[b'Name'].decode('ascii', 'backslashreplace')}"


def _refused(text: str) -> HelperUnavailable:
    return HelperUnavailable(f"{text} (config.yaml)", os.EX_CONFIG)
