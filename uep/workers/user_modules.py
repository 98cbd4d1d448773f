"""Keeps what tasks import apart from what the endpoint and its workers import for themselves.

All of them run isolated, by `python -I`: no module of the user's can take the place of one that they need. What
PYTHONPATH names, and the user's own site-packages, is added here:

`append`     behind everything, in processes of ours: of two modules of one name ours is found
`put_first`  in front, in processes that run tasks, once all is loaded: the task finds its own, whatever we have loaded
             under that name. Ours go on with what they hold

Processes that do not run isolated have the user's path from the beginning, and are left as they are.
"""

from __future__ import annotations

import contextlib
import os
import re
import site
import sys
from collections.abc import Iterator
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder
from types import ModuleType

TASK_MODULE = "mep_task"
"""By which Parsl's workers find `execute_task`: no name that a user would give a module."""
NAMED_IN_PICKLES = "dill"
"""The package that packed functions name: the user's own is there only while a task runs."""

_added: list[str] = []
_has_own_for_pickles = False
_theirs: dict[str, ModuleType] = {}
"""Modules of the user's own package of that name, between two tasks."""


def append() -> None:
    """Adds the user's path behind ours; once."""
    if sys.flags.isolated and not _added:
        _added.extend(_of_pythonpath() + _of_user_site())
        sys.path.extend(entry for entry in _added if entry not in sys.path)


def put_first() -> None:
    """Puts the user's path in front of ours, as any Python has it, and forgets what we have loaded in its stead."""
    global _has_own_for_pickles
    if not sys.flags.isolated:
        return
    first, user_site = _of_pythonpath(), _of_user_site()
    _added[:] = first + user_site
    rest = [entry for entry in sys.path if entry not in _added]
    at = next((n for n, entry in enumerate(rest) if entry.endswith("-packages")), len(rest))
    sys.path[:] = [*first, *rest[:at], *user_site, *rest[at:]]
    forget("uep")
    for name in {name.partition(".")[0] for name in sys.modules} - {"__main__", "__mp_main__", TASK_MODULE}:
        if _has(_added, name) and not _is_built_in(name) and _has_other_file(name):
            if name == NAMED_IN_PICKLES:
                _has_own_for_pickles = True
            else:
                forget(name)


def forget(package: str) -> dict[str, ModuleType]:
    """Takes a package out of `sys.modules`: who imports it next gets another copy. Returns what was there."""
    names = [name for name in sys.modules if name == package or name.startswith(f"{package}.")]
    return {name: sys.modules.pop(name) for name in names}


@contextlib.contextmanager
def for_task() -> Iterator[None]:
    """Has, inside, the user's own package in place of ours that pickles name, if there is one."""
    if not _has_own_for_pickles:
        yield
        return
    ours = forget(NAMED_IN_PICKLES)
    sys.modules.update(_theirs)
    try:
        yield
    finally:
        _theirs.update(forget(NAMED_IN_PICKLES))
        sys.modules.update(ours)


def clash(error: BaseException) -> str:
    """Says which module, of two of one name, a task had that failed for want of the other; else nothing."""
    others = [entry for entry in sys.path if entry not in _added]
    for name in sorted(_modules_named_in(error)) if _added else ():
        if not _has(_added, name) or not (_is_built_in(name) or _has(others, name)):
            continue
        if _has_other_file(name):
            return (
                f"There are two modules {name!r}: the task had the endpoint's, which hides the one on PYTHONPATH."
                " Tasks of ThreadPoolEngine run in the endpoint itself; those of ProcessPoolEngine and"
                " GlobusComputeEngine have their own modules.\n"
            )
        return f"There are two modules {name!r}: the task had the one on PYTHONPATH, which hides the environment's.\n"
    return ""


def _of_pythonpath() -> list[str]:
    return [os.path.abspath(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]  # noqa: PTH100


def _of_user_site() -> list[str]:
    """Where `pip install --user` puts packages; like Python, not in a virtual environment."""
    if sys.prefix != sys.base_prefix or os.environ.get("PYTHONNOUSERSITE"):
        return []
    folder, before = site.getusersitepackages(), list(sys.path)
    if not os.path.isdir(folder):  # noqa: PTH112
        return []
    site.addsitedir(folder)  # with what its .pth files name
    found = [entry for entry in sys.path if entry not in before or entry == folder]
    sys.path[:] = before
    return found


def _has(path: list[str], name: str) -> bool:
    """Tells whether a module, or a package with code, is found there: a mere folder gives way to both."""
    with contextlib.suppress(Exception):
        spec = PathFinder.find_spec(name, path)
        return spec is not None and spec.origin is not None
    return False


def _is_built_in(name: str) -> bool:
    return BuiltinImporter.find_spec(name) is not None or FrozenImporter.find_spec(name) is not None


def _has_other_file(name: str) -> bool:
    """Tells whether the module that is loaded, if one is, does not come from the user's path."""
    spec = PathFinder.find_spec(name, _added)
    return name in sys.modules and getattr(sys.modules[name], "__file__", None) != (spec and spec.origin)


def _modules_named_in(error: BaseException | None) -> set[str]:
    names: set[str] = set()
    for _ in range(10):
        if error is None:
            break
        with contextlib.suppress(Exception):  # str() of a user's exception can itself fail
            names.update(re.findall(r"'(\w+)(?:\.[\w.]*)?'", str(error)))
        error = error.__cause__ or error.__context__
    return names
