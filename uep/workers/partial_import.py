"""Imports parts of big packages, without the rest until somebody asks for it.

`import a.b` runs all of `a/__init__.py` first, and with it often far more than `b` needs. Inside of
`partial_imports("a")` it runs only `b` and what that imports. Whatever else is looked for in `a` afterwards
(`a.Client`, `import a.c`) has `a` run first, as it would have done in the beginning.

Tasks never meet such parts: some packages cannot be imported any more in the order that a task chooses. Before the
first one `hide_parts` takes them out of sight, and a task that imports the package gets it whole, a copy of its own.

The serializer of the Globus Compute SDK alone takes 6 MiB and 50 ms in place of 24 MiB and 280 ms, in every process
that runs tasks; Parsl's programs for workers 15 MiB and 150 ms in place of 28 MiB and 500 ms.

MEP_PARTIAL_IMPORTS=0 in the environment turns all of this off: packages are then imported whole, as ever.

Runs in the endpoint and in every process that runs its tasks. Standard library only: a copy of this file reaches other
hosts.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

ENABLED = os.environ.get("MEP_PARTIAL_IMPORTS") != "0"
"""The switch: whether packages are imported in parts at all."""

_lock = threading.Lock()
_not_run: dict[str, _PackageNotRun] = {}
"""The packages of which only parts have been imported: they themselves have not run yet."""
_stand_ins: set[str] = set()
"""Those of them whose module that has not run stands in `sys.modules`."""
_parts_wanted = 0
"""How many `partial_imports` contexts are open."""


@contextlib.contextmanager
def partial_imports(*packages: str) -> Iterator[None]:
    """Imports, inside, submodules of `packages` without running the packages themselves.

    Packages imported already, and packages that are not installed, are left alone. A nested package comes after its
    parent.
    """
    global _parts_wanted
    if not ENABLED:
        yield
        return
    with _lock:
        for name in packages:
            _postpone(name)
        _parts_wanted += 1
    try:
        yield
    finally:
        with _lock:
            _parts_wanted -= 1
            for name in _stand_ins if _parts_wanted == 0 else ():
                vars(_not_run[name]).pop("__path__", None)  # the import system asks for it before it loads a submodule


def hide_parts(*packages: str) -> None:
    """Takes those of `packages` that have not run, and their parts, out of `sys.modules`.

    Who holds them goes on with them.
    """
    with _lock:
        for package in packages:
            if package in _not_run:
                names = [name for name in _not_run if name == package or name.startswith(f"{package}.")]
                for name in names:
                    del _not_run[name]
                _stand_ins.difference_update(names)
                for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
                    del sys.modules[name]


def _postpone(name: str) -> None:
    if name in _stand_ins:  # since an earlier time: its other parts can be imported again
        known = _not_run[name]
        assert known.__spec__ is not None
        vars(known)["__path__"] = known.__spec__.submodule_search_locations
        return
    spec = None if name in sys.modules else importlib.util.find_spec(name)
    if spec is None:
        return
    module = importlib.util.module_from_spec(spec)
    module.__class__ = _PackageNotRun
    assert isinstance(module, _PackageNotRun)
    _not_run[name] = module
    _stand_ins.add(name)
    sys.modules[name] = module
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


class _PackageNotRun(ModuleType):
    """A package that has not run yet; it becomes an ordinary module when it has."""

    def __getattr__(self, attribute: str) -> Any:
        """Runs the package for what is not in it yet; while partial imports are open, imports a submodule instead."""
        name = self.__name__
        is_part = _parts_wanted and not attribute.startswith("__")
        if is_part and importlib.util.find_spec(f"{name}.{attribute}") is not None:
            return importlib.import_module(f"{name}.{attribute}")
        self._run()
        if attribute in vars(self):
            return vars(self)[attribute]
        if name in sys.modules and sys.modules[name] is not self:  # hidden: the package has run in another copy
            return getattr(sys.modules[name], attribute)
        raise AttributeError(f"module {name!r} has no attribute {attribute!r}")

    def __dir__(self) -> list[str]:
        self._run()
        return list(vars(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return importlib.import_module, (self.__name__,)

    def _run(self) -> None:
        """Imports the package as if for the first time: the import system has one thread do it, and others wait."""
        name = self.__name__
        with _lock:
            if name in _stand_ins:
                _stand_ins.discard(name)
                del sys.modules[name]
        importlib.import_module(name)


class _Finder(MetaPathFinder):
    """Has the import system run a package in the module that everybody holds already."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        module = _not_run.get(name)
        if module is None:
            return None
        assert module.__spec__ is not None
        loader = _Loader(module, module.__spec__)
        return importlib.util.spec_from_loader(name, loader, origin=module.__spec__.origin, is_package=True)


_finder = _Finder()


class _Loader(Loader):
    """Of one package that has not run, whose `spec` it is."""

    def __init__(self, module: _PackageNotRun, spec: ModuleSpec) -> None:
        self._module = module
        self._spec = spec

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        self._set_path()
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        assert self._spec.loader is not None
        self._set_path()  # here too: `importlib.reload` makes no module
        _stand_ins.discard(module.__name__)
        try:
            self._spec.loader.exec_module(module)
        finally:
            module.__spec__ = self._spec
        del _not_run[module.__name__]
        module.__class__ = ModuleType

    def _set_path(self) -> None:
        vars(self._module)["__path__"] = self._spec.submodule_search_locations
