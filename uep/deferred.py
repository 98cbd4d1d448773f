"""Packages whose own code does not run before somebody asks for something in it.

`import a.b` runs all of `a/__init__.py` first, and with it often far more than `b` needs. After `defer("a")` it runs
only `b`. Whatever else is looked for in `a` (`a.Client`, `from a import *`) has `a` run its own code then, so that a
task sees no difference. The serializer of the Globus Compute SDK alone takes 6 MiB and 50 ms in place of 24 MiB and
280 ms, in every process that runs tasks; Parsl's programs for workers 15 MiB and 150 ms in place of 28 MiB and 500 ms.

Called by `worker` and `engines`. Standard library only: a copy of this file reaches the workers too.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from types import ModuleType
from typing import Any

_lock = threading.RLock()


def defer(*packages: str) -> None:
    """Makes importing a submodule of each of `packages` not run the package itself.

    Those imported already, and those that are not installed, are left alone. A nested one comes after its parent.
    """
    for name in packages:
        spec = None if name in sys.modules else importlib.util.find_spec(name)
        if spec is None:
            continue
        module = importlib.util.module_from_spec(spec)
        module.__class__ = _Deferred
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)


class _Deferred(ModuleType):
    """A package that has not run yet; it becomes an ordinary module when it does."""

    def __getattr__(self, attribute: str) -> Any:
        """For what is not there yet: a submodule is imported; for anything else the package is run."""
        name = self.__name__
        if importlib.util.find_spec(f"{name}.{attribute}") is not None:
            return importlib.import_module(f"{name}.{attribute}")
        with _lock:  # held by this very thread when the package, while it runs, looks for something in itself
            if type(self) is _Deferred and not vars(self).setdefault("__runs__", False):
                vars(self)["__runs__"] = True
                try:
                    assert self.__spec__ is not None and self.__spec__.loader is not None
                    self.__spec__.loader.exec_module(self)
                    self.__class__ = ModuleType  # type: ignore[assignment]
                finally:
                    del vars(self)["__runs__"]
        if attribute in vars(self):
            return vars(self)[attribute]
        raise AttributeError(f"module {name!r} has no attribute {attribute!r}")
