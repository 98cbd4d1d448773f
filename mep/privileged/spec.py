"""What root refuses to launch, whoever asks: `launch.start` checks each spec right before the fork.

`LaunchSpec` is plain data, made in the monitor: by `endpoints.spawn` for user endpoints, by `processes.helper` for
helpers, by `stages.mapping_programs` for mapping programs.
"""

from __future__ import annotations

import os
import re

from identity import account_name
from mep.privileged import kernel
from mep.request.launch_spec import LaunchSpec

STDIN, STDOUT, STDERR = 0, 1, 2
MAX_DESCRIPTOR = 15
"""The highest number that a passed descriptor may get in the program."""


class LaunchRefused(Exception):
    """The launch would break a rule of this folder. Nothing was started."""


_SERVICE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


def check(spec: LaunchSpec) -> None:
    """Returns if `spec` may be launched.

    Raises:
        LaunchRefused: with the rule that it breaks.
    """
    _check_account(spec)
    _check_program(spec)
    _check_descriptors(spec)
    if spec.pam is not None and not _SERVICE.fullmatch(spec.pam):
        raise LaunchRefused(f"{spec.pam!r} cannot name a PAM service")
    if not all(type(limit) is int and limit >= 0 for limit in spec.rlimits.values()):
        raise LaunchRefused("resource limits must be whole numbers")
    if spec.umask is not None and not (type(spec.umask) is int and 0 <= spec.umask <= 0o777 and not spec.umask & 0o700):
        raise LaunchRefused("a umask must be a whole number that takes nothing from the account itself")


def _check_account(spec: LaunchSpec) -> None:
    ids = (spec.uid, spec.gid, *spec.groups)
    if not all(type(i) is int and 0 <= i < 2**32 - 1 for i in ids):
        raise LaunchRefused(f"ids of account {spec.username!r} are not whole numbers in range: {ids}")
    if spec.uid == 0 or spec.gid == 0:
        raise LaunchRefused(f"account {spec.username!r} is root (uid {spec.uid}, gid {spec.gid})")
    if 0 in spec.groups:
        raise LaunchRefused(f"account {spec.username!r} is a member of root's group")
    if wrong := account_name.problem(spec.username, directory_names=True):
        raise LaunchRefused(f"no account of that name: {wrong}")
    own = spec.uid == os.getuid()
    if own and kernel.is_root():
        raise LaunchRefused(f"account {spec.username!r} is the manager's own (uid {spec.uid})")
    if not own and not kernel.is_root():
        raise LaunchRefused(f"account {spec.username!r} is another than ours, and we are not root")
    if spec.pam is not None and not kernel.is_root():
        raise LaunchRefused("only root can open sessions of PAM")


def _check_program(spec: LaunchSpec) -> None:
    if not spec.argv or not spec.argv[0].startswith("/"):
        raise LaunchRefused("the program must be an absolute path")
    texts = [*spec.argv, *spec.environment, *spec.environment.values(), spec.directory, *(spec.log or ())]
    if any(not isinstance(text, str) or "\0" in text for text in texts):
        raise LaunchRefused("arguments, environment and paths must be strings without NUL")
    if any(not name or "=" in name for name in spec.environment):
        raise LaunchRefused("an environment variable has no name, or '=' in its name")
    if not spec.directory.startswith("/") or not (spec.log is None or spec.log[0].startswith("/")):
        raise LaunchRefused("the working directory and the log folder must be absolute paths")


def _check_descriptors(spec: LaunchSpec) -> None:
    made = ({STDOUT, STDERR} if spec.log else set()) | ({STDIN} if spec.handed_over else set())
    numbers = set(spec.descriptors)
    if numbers & made or not {STDIN, STDOUT, STDERR} <= numbers | made:
        raise LaunchRefused(
            f"descriptors {sorted(numbers)} must name 0 exactly when nothing is handed over, and 1 and 2 exactly when "
            "there is no log"
        )
    if not all(0 <= number <= MAX_DESCRIPTOR for number in numbers):
        raise LaunchRefused(f"descriptors {sorted(numbers)} must not be above {MAX_DESCRIPTOR}")
