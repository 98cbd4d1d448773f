"""Become one account for good, and prove it.

Called by `launch` in the child between fork and exec. The order is the only one that works: the bounding set and the
groups can be changed only while still root, and the uid goes last because with it goes the power to change the rest.

What a login sets, and a service does not have by itself:

  login uid      set by step `loginuid`, and read back in the proof: while it is unset, any process may choose its own
  audit session  the kernel gives a new one with the login uid. Nobody can change it
  oom_score_adj  left as the manager's, which is the kernel's default: the unit says why it sets none
  keyring        a session keyring of its own, step `keyring`
  limits         core files and the spec's, which are only lowered; PAM's where it is enabled; else left as the unit's
  umask          set, step `umask`
  control group  set by whoever holds the child at the gate: a scope of its own, where systemd runs
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable

from mep.privileged import kernel
from mep.request.group_rule import GroupRule
from mep.request.launch_spec import LaunchSpec


class NotProven(Exception):
    """The ids, or the capabilities after the drop, are not what they must be."""


def prove_account(spec: LaunchSpec) -> None:
    """Asks the name service whether the account has these ids, this home and shell, and exactly these groups.

    Whoever asked for the launch was told so by others. It is asked again here, in the child, as it may take long. A
    launch without `home` is of a helper, which may have fewer groups.

    Raises:
        NotProven: the name service says otherwise.
    """
    try:
        entry = pwd.getpwnam(spec.username)
    except (KeyError, ValueError):
        raise NotProven("there is no such account") from None
    if (entry.pw_name, entry.pw_uid, entry.pw_gid) != (spec.username, spec.uid, spec.gid):
        raise NotProven(f"the account does not have uid {spec.uid} and gid {spec.gid}")
    if spec.home is not None and spec.home != entry.pw_dir:
        raise NotProven("the account has another home")
    if spec.shell is not None and spec.shell != entry.pw_shell:
        raise NotProven("the account has another shell")
    real = {spec.gid, *os.getgrouplist(spec.username, spec.gid)}
    if not real.issuperset(spec.groups) or (spec.home is not None and real != set(spec.groups)):
        raise NotProven("the account does not belong to exactly these groups")


def take_login_uid(uid: int, *, required: bool) -> None:
    """Makes `uid` the login uid, under which the kernel's audit has whatever is done from here on. For good.

    A manager that somebody has started by hand has theirs already, and the kernel may be told to let nobody change it.

    Raises:
        OSError: `required`, and the kernel has no audit, or does not let it be changed.
    """
    if kernel.login_uid() == uid:
        return
    try:
        kernel.set_login_uid(uid)
    except OSError:
        if required:
            raise


def login_uid_problem() -> str | None:
    """Why `take_login_uid` could not set one; None when it could. For a forked child: a new audit session may begin.

    Writes what there is: unset stays unset, and writing the same takes the right that it takes to change it.
    """
    found = kernel.login_uid()
    if found is None:
        return "this kernel has no audit"
    try:
        kernel.set_login_uid(found)
    except OSError as e:
        return f"the kernel does not let it be changed ({e.strerror})"
    return None


def prove_admitted(groups: tuple[int, ...], rule: GroupRule) -> None:
    """Asks the name service for the groups of the site's policy, and whether members of `groups` may go on.

    It was decided already, by ids that a helper told: one that lies must not let anybody in.

    Raises:
        NotProven: they may not.
    """
    objection = rule.objection(groups, {name: group_id(name) for name in rule.names()})
    if objection is not None:
        raise NotProven(objection)


def group_id(name: str) -> int | None:
    """The id that the name service has for a group; None when no group has exactly this name."""
    try:
        entry = grp.getgrnam(name)
    except (KeyError, ValueError):
        return None
    return entry.gr_gid if entry.gr_name == name else None


def become(
    uid: int,
    gid: int,
    groups: tuple[int, ...],
    last_capability: int,
    *,
    login_uid: int | None,
    login: bool = False,
) -> None:
    """Gives up root for account `uid`, with exactly these groups, no capabilities, and no way to gain any.

    login_uid: that of `kernel.login_uid`, once it has been taken.
    login: as in a login session (PAM), set-uid programs go on working: what they may gain is for the site to say, which
    has made the session. The process itself has nothing in either case.

    Raises:
        OSError: a step was refused by the kernel.
        NotProven: every step succeeded and yet the process is not what it must be.
    """
    if not login:
        kernel.clear_bounding_set(last_capability)
    os.setresgid(gid, gid, gid)
    os.setgroups(groups)
    os.setresuid(uid, uid, uid)
    kernel.set_dumpable(False)  # once more: with the uid the kernel sets it anew, by the system's settings
    kernel.clear_capabilities()
    if not login:
        kernel.set_no_new_privileges()
    prove(uid, gid, groups, login_uid=login_uid, login=login)


def prove(uid: int, gid: int, groups: tuple[int, ...], *, login_uid: int | None, login: bool = False) -> None:
    """Reads back every id and capability, and tries to become root again. Raises NotProven."""
    if os.getresuid() != (uid, uid, uid):
        raise NotProven("user ids")
    if os.getresgid() != (gid, gid, gid):
        raise NotProven("group ids")
    if set(os.getgroups()) != set(groups):
        raise NotProven("supplementary groups")
    if kernel.login_uid() != login_uid:
        raise NotProven("login uid")
    state = kernel.capability_sets()
    if len(state) != 6 or any(state[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")):
        raise NotProven("capabilities")
    if not login and (state["CapBnd"] != 0 or state["NoNewPrivs"] != 1):
        raise NotProven("what a set-uid program could gain")
    for regain in (_regain_uid, _regain_effective_uid, _regain_gid):
        _must_fail(regain)


def stay(uid: int, gid: int, *, helper: bool) -> None:
    """Makes sure that this process, which is not root, is the account already; a helper can gain nothing any more.

    Raises:
        OSError: a step was refused by the kernel.
        NotProven: it is another account.
    """
    if os.getresuid() != (uid, uid, uid):
        raise NotProven("user ids")
    if os.getresgid() != (gid, gid, gid):
        raise NotProven("group ids")
    kernel.outlive_parent()
    if helper:
        kernel.set_no_new_privileges()


def prove_unreadable(program: int) -> None:
    """Makes sure that this process cannot read the file that it is to execute.

    exec makes a process open to all others of its uid, until it forbids that itself: tens of milliseconds in which one
    of them can attach. Not so when its program is one that it may execute and not read (BINPRM_FLAGS_ENFORCE_NONDUMP).

    Raises:
        NotProven: it can, or the kernel is told to make such processes open as well.
    """
    try:
        os.close(os.open(f"/proc/self/fd/{program}", os.O_RDONLY | os.O_CLOEXEC))
    except PermissionError:
        pass
    else:
        raise NotProven("the account can read its program")
    with open("/proc/sys/fs/suid_dumpable", encoding="ascii") as f:  # noqa: PTH123 - no pathlib between fork and exec
        if int(f.read()) == 1:
            raise NotProven("others of the account could trace it; set sysctl fs.suid_dumpable to 0 or 2")


def _regain_uid() -> None:
    os.setuid(0)


def _regain_effective_uid() -> None:
    os.setresuid(-1, 0, -1)


def _regain_gid() -> None:
    os.setresgid(0, 0, 0)


def _must_fail(regain: Callable[[], None]) -> None:
    try:
        regain()
    except PermissionError:
        return
    raise NotProven("root can be regained")
