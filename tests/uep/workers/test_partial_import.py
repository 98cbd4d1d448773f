"""Packages that run when something in them is asked for: each case in an interpreter of its own."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.uep import functions
from tests.uep.program import HTEX, PROCESSES, THREADS, StartUep
from tests.uep.service import Service

PACKAGE = {
    "big/__init__.py": """
        import time
        print("big runs")
        time.sleep(0.2)  # so that others ask for it meanwhile
        from big.part import PART
        from big.later import looks_back
        __version__ = "1"
        __all__ = ["thing"]
        def thing():
            return PART
    """,
    "big/part.py": "PART = 'part'",
    "big/other.py": "OTHER = 'other'",
    "big/later.py": "import big\nlooks_back = hasattr(big, 'thing')",
    "big/circle.py": "from big import thing\nNAME = 'circle'",
    "big/inner/__init__.py": "print('inner runs')\nfrom big.part import PART",
    "big/inner/part.py": "PART = 'inner'",
}


@pytest.fixture
def run(tmp_path: Path) -> Callable[[str], list[str]]:
    for name, text in PACKAGE.items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(textwrap.dedent(text))

    def run(code: str, **environment: str) -> list[str]:
        script = "from uep.workers.partial_import import partial_imports\n" + textwrap.dedent(code)
        path = f"{tmp_path}:{Path(__file__).parents[3]}"
        environment["PYTHONPATH"] = path
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run


PART = "with partial_imports('big', 'big.inner'):\n    import big.part\n"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("with partial_imports('big'):\n    from big.part import PART\nprint(PART)", ["part"]),
        ("with partial_imports('big'):\n    from big import part\nprint(part.PART)", ["part"]),
        ("with partial_imports('big', 'big.inner'):\n    from big.inner.part import PART\nprint(PART)", ["inner"]),
        ("with partial_imports('big'):\n    from big import thing\nprint(thing())", ["big runs", "part"]),
        ("with partial_imports('big'):\n    import big\n    print(big.__version__)", ["big runs", "1"]),
        (PART + "print(big.part.PART)", ["part"]),
        (PART + "from big.part import PART; print(PART)", ["part"]),
        (PART + "print(big.__file__.endswith('__init__.py'), big.__name__)", ["True big"]),
        (PART + "print(big.thing()); print(big.thing())", ["big runs", "part", "part"]),
        (PART + "from big import thing; print(thing())", ["big runs", "part"]),
        (PART + "from big import *; print(thing())", ["big runs", "part"]),
        (PART + "print(big.__version__, list(big.__path__) != [])", ["big runs", "1 True"]),
        (PART + "print('thing' in dir(big))", ["big runs", "True"]),
        (PART + "print(hasattr(big, 'nothing'))", ["big runs", "False"]),
        (PART + "before = big; big.thing; import big; print(before is big, big.part.PART)", ["big runs", "True part"]),
        (PART + "with partial_imports('big'):\n    from big.other import OTHER\nprint(OTHER)", ["other"]),
        (PART + "import big.circle; print(big.circle.NAME)", ["big runs", "circle"]),
        (PART + "import big.inner.part; print(big.inner.PART)", ["big runs", "inner runs", "part"]),
        (PART + "import pickle; print(pickle.loads(pickle.dumps(big)) is big)", ["True"]),
        (PART + "import dill; print(dill.loads(dill.dumps(big)).thing())", ["big runs", "part"]),
        (PART + "big.thing; import importlib; print(type(big).__name__)", ["big runs", "module"]),
        (PART + "import importlib; importlib.reload(big); print(big.thing())", ["big runs", "part"]),
    ],
)
def test_what_runs(run: Callable[[str], list[str]], code: str, said: list[str]) -> None:
    assert run(code) == said


@pytest.mark.parametrize(("switch", "said"), [("0", ["big runs", "part"]), ("1", ["part"]), ("", ["part"])])
def test_the_switch(run: Callable[..., list[str]], switch: str, said: list[str]) -> None:
    assert run(PART + "print(big.part.PART)", MEP_PARTIAL_IMPORTS=switch) == said


@pytest.mark.system
@pytest.mark.parametrize("switch", ["0", "1"])
@pytest.mark.parametrize("config", [THREADS, PROCESSES, HTEX], ids=["threads", "processes", "htex"])
def test_the_switch_reaches_all_workers(config: str, switch: str, start_uep: StartUep, service: Service) -> None:
    """What only the whole SDK imports, and what only the whole of Parsl does."""
    start_uep(config, environment={"MEP_PARTIAL_IMPORTS": switch})
    only_whole = ["globus_sdk", "parsl.dataflow.dflow"] if config == HTEX else ["globus_sdk"]
    assert service.call(functions.imported, *only_whole) == (only_whole if switch == "0" else [])


def test_what_was_imported_before_stays(run: Callable[[str], list[str]]) -> None:
    assert run("import big\nwith partial_imports('big'):\n    import big.part\nprint(big.thing())") == [
        "big runs",
        "part",
    ]


def test_what_is_not_there_stays_missing(run: Callable[[str], list[str]]) -> None:
    code = """
        try:
            with partial_imports('nosuch'):
                import nosuch.part
        except ModuleNotFoundError as e:
            print(e.name)
    """
    assert run(code) == ["nosuch"]


def test_a_package_that_fails_is_tried_again(run: Callable[[str], list[str]]) -> None:
    code = """
        with partial_imports('big'):
            import big
        import sys
        sys.modules['big.part'] = None
        for again in range(2):
            try:
                big.thing()
            except ImportError:
                print('failed')
        del sys.modules['big.part']
        print(big.thing())
        import big as same
        print(same is big)
    """
    assert run(code) == ["big runs", "failed", "big runs", "failed", "big runs", "part", "True"]


def test_runs_once_in_many_threads(run: Callable[[str], list[str]]) -> None:
    code = """
        import threading
        with partial_imports('big'):
            import big
        threads = [threading.Thread(target=lambda: print(big.thing())) for _ in range(8)]
        for each in threads: each.start()
        for each in threads: each.join()
    """
    assert run(code) == ["big runs"] + ["part"] * 8


def test_threads_that_need_each_others_part_do_not_wait_for_ever(run: Callable[[str], list[str]]) -> None:
    """One runs the package, which imports a part; the other imports that part, which looks into the package."""
    code = """
        import threading
        with partial_imports('big'):
            import big
        def part():
            import big.later
        threads = [threading.Thread(target=part, daemon=True), threading.Thread(target=lambda: big.thing, daemon=True)]
        for each in threads: each.start()
        for each in threads: each.join(20)
        print([each.is_alive() for each in threads], big.thing())
    """
    assert run(code) == ["big runs", "[False, False] part"]


def test_the_serializer_comes_without_the_client(run: Callable[[str], list[str]]) -> None:
    code = """
        import sys
        with partial_imports('globus_compute_sdk'):
            from globus_compute_sdk.serialize import ComputeSerializer
        print([m for m in ('globus_sdk', 'pydantic', 'requests') if m in sys.modules])
        from globus_compute_sdk import Executor, ShellFunction
        print(Executor.__name__, 'globus_sdk' in sys.modules)
    """
    assert run(code) == ["[]", "Executor True"]


def test_afterwards_each_module_of_the_real_packages_can_be_imported(run: Callable[[str], list[str]]) -> None:
    """Each first in a process; some cannot be imported in any other way than through their package."""
    code = """
        import os, pkgutil, sys
        import importlib.util
        from uep.workers.parsl_import import partial_parsl_imports
        with partial_parsl_imports():
            from parsl.executors.high_throughput import process_worker_pool
        names = [
            module.name
            for name in ('parsl', 'requests')
            for module in pkgutil.walk_packages(importlib.util.find_spec(name).submodule_search_locations, name + '.')
            if '.tests' not in module.name and '__main__' not in module.name
        ]
        def comes(name, how):
            child = os.fork()
            if child == 0:
                try:
                    how(name)
                except BaseException:
                    os._exit(1)
                os._exit(0)
            return os.waitpid(child, 0)[1] == 0
        def ordinarily(name):
            for each in [m for m in sys.modules if m.split('.')[0] in ('parsl', 'requests')]:
                del sys.modules[each]
            sys.meta_path[:] = [f for f in sys.meta_path if 'partial_import' not in type(f).__module__]
            importlib.import_module(name)
        sys.stdout = sys.stderr = open(os.devnull, 'w')
        bad = [n for n in names if not comes(n, importlib.import_module) and comes(n, ordinarily)]
        sys.stdout = sys.__stdout__
        print(len(names) > 50, bad)
    """
    assert run(code) == ["True []"]
