"""Packages that run when something in them is asked for: each case in an interpreter of its own."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

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
    "big/later.py": "import big\nlooks_back = hasattr(big, 'thing')",
    "big/inner/__init__.py": "print('inner runs')\nfrom big.part import PART",
    "big/inner/part.py": "PART = 'inner'",
}


@pytest.fixture
def run(tmp_path: Path) -> Callable[[str], list[str]]:
    for name, text in PACKAGE.items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(textwrap.dedent(text))

    def run(code: str) -> list[str]:
        script = "from uep.deferred import defer\n" + textwrap.dedent(code)
        path = f"{tmp_path}:{Path(__file__).parents[2]}"
        done = subprocess.run(
            [sys.executable, "-c", script], env={"PYTHONPATH": path}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("from big.part import PART; print(PART)", ["part"]),
        ("from big import part; print(part.PART)", ["part"]),
        ("import big.part; print(big.part.PART)", ["part"]),
        (
            "import big; print(big.__file__.endswith('__init__.py'), big.__name__, big.__path__ != [])",
            ["True big True"],
        ),
        ("import big; print(big.thing()); print(big.thing())", ["big runs", "part", "part"]),
        ("from big import thing; print(thing())", ["big runs", "part"]),
        ("from big import *; print(thing())", ["big runs", "part"]),
        ("import big; print(big.__version__)", ["big runs", "1"]),
        ("import big; print(hasattr(big, 'nothing'))", ["big runs", "False"]),
        ("import big.part; before = big; big.thing; import big; print(before is big)", ["big runs", "True"]),
        ("import big, pickle; big.thing; print(pickle.loads(pickle.dumps(big.thing))())", ["big runs", "part"]),
        ("from big.inner.part import PART; print(PART)", ["inner"]),
        ("import big.inner; print(big.inner.PART)", ["inner runs", "part"]),
    ],
)
def test_what_runs(run: Callable[[str], list[str]], code: str, said: list[str]) -> None:
    assert run(f"defer('big', 'big.inner')\n{code}") == said


def test_what_was_imported_before_stays(run: Callable[[str], list[str]]) -> None:
    assert run("import big; defer('big'); print(big.thing())") == ["big runs", "part"]


def test_what_is_not_there_stays_missing(run: Callable[[str], list[str]]) -> None:
    code = """
        defer('nosuch')
        try:
            import nosuch.part
        except ModuleNotFoundError as e:
            print(e.name)
    """
    assert run(code) == ["nosuch"]


def test_a_package_that_fails_is_tried_again(run: Callable[[str], list[str]]) -> None:
    code = """
        import sys
        defer('big')
        sys.modules['big.part'] = None
        for again in range(2):
            try:
                import big; print(big.thing())
            except ImportError:
                print('failed')
            del sys.modules['big.part']
            break
        print(big.thing())
    """
    assert run(code) == ["big runs", "failed", "big runs", "part"]


def test_runs_once_in_many_threads(run: Callable[[str], list[str]]) -> None:
    code = """
        import threading
        defer('big')
        import big
        threads = [threading.Thread(target=lambda: print(big.thing())) for _ in range(8)]
        for each in threads: each.start()
        for each in threads: each.join()
    """
    assert run(code) == ["big runs"] + ["part"] * 8


def test_the_serializer_comes_without_the_client(run: Callable[[str], list[str]]) -> None:
    code = """
        defer('globus_compute_sdk')
        import sys
        from globus_compute_sdk.serialize import ComputeSerializer
        print([m for m in ('globus_sdk', 'pydantic', 'requests') if m in sys.modules])
        from globus_compute_sdk import Executor, ShellFunction
        print(Executor.__name__, 'globus_sdk' in sys.modules)
    """
    assert run(code) == ["[]", "Executor True"]
