"""`LaunchSpec`: all that one privileged launch depends on. `privileged.spec.check` says what root refuses to launch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mep.request.group_rule import GroupRule


@dataclass(frozen=True)
class LaunchSpec:
    """One program to start as one account.

    argv: the program (an absolute path, executed without a search) and its arguments.
    environment: the whole environment of the program.
    username, uid, gid, groups: the account; `groups` are its supplementary groups, primary group included.
    directory: the working directory, entered after the drop (root may not see a user's home on NFS).
    log: folder and file name for standard output and error; the folder is made, and the file opened for appending,
        after the drop, so that links in it lead nowhere that the user could not go.
    descriptors: number in the program -> open descriptor of ours. 0 is mandatory unless something is handed over; 1 and
        2 are the log's, or mandatory without one. All other descriptors are closed.
    handed_over: the parts of what the program reads on descriptor 0, when it is no open descriptor: bytes, and open
        files, which are read after the drop.
    pam: the PAM service through which the account must go, with a session for as long as the program lives; None for
        none, and then nothing that the program executes can gain any right.
    home: the account's home, when the program is to be the account with all that it has; None for helpers of ours.
    shell: its login shell, by which it was admitted; None for one that was not.
    group_rule: what its groups must keep to.
    umask: of the program; None means 077. A PAM module that sets one has the last word.
    login_uid_required: nothing is executed where the kernel does not let the account's uid be made the login uid.
    rlimits: resource (resource.RLIMIT_*) -> limit, soft and hard. A lower hard limit that is in force stays.
    program: an open file that is executed in the place of argv[0], which the account may execute and must not read:
        nobody of its uid can then look into the process, from its exec on.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    username: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    directory: str
    log: tuple[str, str] | None
    descriptors: Mapping[int, int]
    handed_over: Sequence[bytes | int] = field(default=(), repr=False)
    home: str | None = None
    shell: str | None = None
    group_rule: GroupRule = field(default_factory=GroupRule)
    pam: str | None = None
    umask: int | None = None
    login_uid_required: bool = False
    rlimits: Mapping[int, int] = field(default_factory=dict)
    program: int | None = None
