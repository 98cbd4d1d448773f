"""The client scripts of the comparison: what users do with the unmodified SDK, each one a function with a name.

    python scripts.py ENDPOINT-ID ENGINE USER-ENDPOINT-CONFIG [NAME...]

runs them, or the named ones, at one endpoint, side by side in threads, and prints one JSON object of their outcomes.
The test imports the same file for the names, and for what each script expects.

A script's outcome is a value, or the exception that it ended with; both in a text form that says types, so that 1, True
and 1.0 differ (`canonical`). Of a task's exception it has the last line and the frames of the traceback.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from globus_compute_sdk import Client, Executor, ShellFunction, serialize
from globus_compute_sdk.errors import TaskExecutionFailed, TaskPending
from globus_compute_sdk.serialize import ComputeSerializer

TIMEOUT = 60.0
"""Seconds for a result; one that has not come is a TimeoutError."""
AT_ONCE = 24
LONG = 200
"""Characters of a text that is shown whole."""

THREADS, PROCESSES, PARSL = "ThreadPoolEngine", "ProcessPoolEngine", "GlobusComputeEngine"
SANDBOXED = (PARSL,)
"""The engines that the test's template gives `run_in_sandbox`."""

STRATEGY = "globus_compute_sdk.serialize.concretes."


# What a script is, and what came of it -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Script:
    """`expected` is the outcome that the script should have, without the frames of a traceback. One that `kills` may
    end the worker that it runs in, so it runs when the others have ended."""

    name: str
    run: Callable[[Site], Any]
    expected: dict[str, str]
    engines: tuple[str, ...]
    kills: bool


SCRIPTS: dict[str, Script] = {}


def script(
    *,
    returns: Any = None,
    fails: str | None = None,
    raises: str | None = None,
    on: tuple[str, ...] = (THREADS, PROCESSES, PARSL),
    name: str = "",
    kills: bool = False,
) -> Callable[[Callable[[Site], Any]], Callable[[Site], Any]]:
    """Registers a script that returns this value, or whose task fails with this last line of its traceback, or that
    ends with this exception (with its module) in the client."""
    if fails is not None:
        expected = {"error": "globus_compute_sdk.errors.error_types.TaskExecutionFailed", "remote": fails}
    else:
        expected = {"value": canonical(returns)} if raises is None else {"error": raises}

    def register(run: Callable[[Site], Any]) -> Callable[[Site], Any]:
        title = name or run.__name__
        assert title not in SCRIPTS, title
        SCRIPTS[title] = Script(title, run, expected, on, kills)
        return run

    return register


class Site:
    """Where the scripts send their tasks."""

    def __init__(self, endpoint_id: str, engine: str, config: dict[str, Any]) -> None:
        self.endpoint_id = endpoint_id
        self.engine = engine
        self.config = config
        self.client = Client()

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The result of one task."""
        with self.executor() as executor:
            return executor.submit(function, *args, **kwargs).result(TIMEOUT)

    @contextmanager
    def executor(self, client: Client | None = None, **options: Any) -> Iterator[Executor]:
        """An executor with a task group of its own: two in one group would take each other's results.

        Its end does not wait: a result that never comes is an outcome too.
        """
        executor = Executor(
            endpoint_id=self.endpoint_id,
            client=client or self.client,
            user_endpoint_config=self.config,
            api_burst_limit=8,
            api_burst_window_s=1,
            **options,
        )
        executor.task_group_id = None
        try:
            yield executor
        finally:
            executor.shutdown(wait=False, cancel_futures=True)

    def run_batch(self, calls: dict[str, list[Any]], **options: Any) -> dict[str, Any]:
        """The answer to a batch: `calls` has lists of positional arguments by function id."""
        batch = self.client.create_batch(user_endpoint_config=self.config, **options)
        for function_id, many in calls.items():
            for args in many:
                batch.add(function_id, args)
        return self.client.batch_run(self.endpoint_id, batch)

    def ended(self, *task_ids: str) -> None:
        """Returns once these tasks have ended."""
        deadline = time.monotonic() + TIMEOUT
        web = self.client._compute_web_client.v2  # get_batch_result would say nothing of those that failed
        while True:
            answers = web.get_task_batch(task_ids)["results"]
            if all(answers[task_id]["status"] in ("success", "failed") for task_id in task_ids):
                return
            assert time.monotonic() < deadline, answers
            time.sleep(0.2)


def canonical(value: Any) -> str:
    """A text that two values share when a user would call them the same."""
    kind = type(value).__name__
    if value is None or isinstance(value, bool):
        return repr(value)
    if isinstance(value, str | bytes | bytearray) and len(value) > LONG:
        data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else bytes(value)
        return f"{kind} of {len(value)}, {hashlib.sha256(data).hexdigest()[:16]}"
    if isinstance(value, dict):
        inside = ", ".join(f"{canonical(k)}: {canonical(v)}" for k, v in value.items())
    elif isinstance(value, set | frozenset):
        inside = ", ".join(sorted(map(canonical, value)))
    elif isinstance(value, list | tuple):
        inside = ", ".join(map(canonical, value))
    else:
        inside = repr(value)
    return f"{kind}({inside})"


def outcome_of(run: Callable[[Site], Any], site: Site) -> dict[str, Any]:
    """What came of a script."""
    try:
        return {"value": canonical(run(site))}
    except TaskExecutionFailed as e:
        return {"error": _name(e), "remote": _last_line(e.remote_data), "frames": _frames(e.remote_data)}
    except BaseException as e:
        return {"error": _name(e), "text": str(e)[:500]}


def failure_of(run: Callable[[], Any]) -> str:
    """The name of the exception, and of a failed task also the last line of its traceback."""
    try:
        return f"no failure: {canonical(run())}"
    except TaskExecutionFailed as e:
        return f"TaskExecutionFailed: {_last_line(e.remote_data)}"
    except BaseException as e:
        return type(e).__name__


def _name(error: BaseException) -> str:
    return f"{type(error).__module__}.{type(error).__qualname__}"


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip("- +")]
    return re.sub(r"on host \S+$", "on host HOST", lines[-1].strip()) if lines else ""


def _frames(text: str) -> list[list[str]]:
    return [list(found) for found in re.findall(r'^\W*File "(.*)", line \d+, in (.*)$', text, re.MULTILINE)]


# Arguments and values ------------------------------------------------------------------------------------------------


@script(returns=(3, -1))
def positional(site):
    return site.call(lambda a, b: (a + b, a - b), 1, 2)


@script(returns=[1, 20, "default"])
def keywords_and_defaults(site):
    def f(a, b=2, *, c="default"):
        return [a, b, c]

    return site.call(f, 1, b=20)


@script(returns=((1, 2, 3), {"x": 4, "y": None}))
def star_arguments(site):
    def f(*args, **kwargs):
        return args, kwargs

    return site.call(f, 1, 2, 3, x=4, y=None)


@script(returns=None)
def nothing(site):
    def f():
        pass

    return site.call(f)


UNICODE = "grüße, 世界 \N{ROCKET} \0 \ud800 e\u0301"


@script(returns=(UNICODE, 15 + 3))
def unicode_text(site):
    return site.call(lambda text: (text, len(text)), UNICODE)


@script(returns=(b"\x00\xff\n", bytearray(b"ab"), b"v"))
def binary(site):
    return site.call(lambda a, b, c: (a, b, bytes(c)), b"\x00\xff\n", bytearray(b"ab"), b"v")


NESTED = {"a": [1, 2.5, (None, True, {"deep": [[], {}, ()]})], 7: "seven", (1, 2): {3: {4: {5: [6]}}}}


@script(returns=NESTED)
def nested(site):
    return site.call(lambda x: x, NESTED)


@script(returns=True)
def shared_and_cyclic(site):
    def f(x):
        return x[0] is x[1] and x[2] is x

    ring = [{}, {}]
    ring[1] = ring[0]
    ring.append(ring)
    return site.call(f, ring)


@script(returns=({1, 2, 3}, frozenset({"a"}), {4, 5}))
def sets(site):
    return site.call(lambda a, b: (a | {3}, b, {4, 5}), {1, 2}, frozenset({"a"}))


@script(returns=("2026-02-28T12:30:00+00:00", "1 day, 0:00:03", "2026-03-01"))
def dates(site):
    from datetime import date, datetime, timedelta, timezone

    def f(moment, span, day):
        return moment, span, day + span

    given = datetime(2026, 2, 28, 12, 30, tzinfo=timezone.utc), timedelta(days=1, seconds=3), date(2026, 2, 28)
    moment, span, day = site.call(f, *given)
    return moment.isoformat(), str(span), day.isoformat()


@script(returns=("Decimal('0.30')", "Fraction(5, 6)", "(1-2j)", 2**200))
def numbers(site):
    from decimal import Decimal
    from fractions import Fraction

    def f(a, b, c, d):
        from decimal import Decimal
        from fractions import Fraction

        return a + Decimal("0.20"), b + Fraction(1, 2), c.conjugate(), d << 100

    *others, big = site.call(f, Decimal("0.10"), Fraction(1, 3), 1 + 2j, 2**100)
    return (*map(repr, others), big)


@script(returns=["inf", "-inf", "nan", "-0.0", "5e-324"])
def floats(site):
    return [repr(x) for x in site.call(lambda *x: x, float("inf"), float("-inf"), float("nan"), -0.0, 5e-324)]


@dataclasses.dataclass
class Point:
    x: int
    y: int = 2

    def moved(self, by):
        return dataclasses.replace(self, x=self.x + by)


@script(returns="Point(x=1, y=2) 1")
def dataclass_instance(site):
    back = site.call(lambda p: p, Point(1))
    return f"{back} {back.x}"


@script(returns=(11, "Counter"))
def class_instance(site):
    class Counter:
        def __init__(self, start):
            self.n = start

        def up(self):
            self.n += 1
            return self

    def f(counter):
        return counter.up()

    back = site.call(f, Counter(10))
    return back.n, type(back).__name__


class Pair(NamedTuple):
    a: int
    b: object


@script(returns=(3, "Pair(a=1, b='x')"))
def namedtuple(site):
    back = site.call(lambda pair: pair._replace(b="x"), Pair(1, None))
    return back.a + len(back), repr(back)


@script(returns=("/a/b", "12345678-1234-5678-1234-567812345678", ["12"], [1, 2], "range(0, 3)"))
def library_objects(site):
    import array
    import pathlib
    import re
    import uuid

    def f(path, id, pattern, numbers, span):
        return str(path / "b"), str(id), pattern.findall("a12"), list(numbers), repr(span)

    id = uuid.UUID("12345678123456781234567812345678")
    return site.call(f, pathlib.Path("/a"), id, re.compile(r"\d+"), array.array("i", [1, 2]), range(3))


@script(returns=5 << 20)
def big_argument(site):
    return site.call(len, "x" * (5 << 20))


@script(returns="ab" * (5 << 19))
def big_result(site):
    return site.call(lambda: "ab" * (5 << 19))


@script(fails="MaxResultSizeExceeded(15581488, 10485760)")
def too_big_result(site):
    return site.call(lambda: "x" * (11 << 20))


# Functions -----------------------------------------------------------------------------------------------------------


@script(returns=42)
def a_lambda(site):
    return site.call(lambda x: x * 2, 21)


@script(returns=[5, 7])
def a_closure(site):
    factor, offset = 2, [3]
    return site.call(lambda xs: [x * factor + offset[0] for x in xs], [1, 2])


@script(returns=3628800)
def recursion(site):
    def f(n):
        return 1 if n < 2 else n * f(n - 1)

    return site.call(f, 10)


@script(returns=[0, 1, 4, 9])
def generator_inside(site):
    def f(n):
        def squares():
            for i in range(n):
                yield i * i

        return list(squares())

    return site.call(f, 4)


@script(returns=("decorated", "f", 6))
def decorated(site):
    import functools

    def twice(function):
        @functools.wraps(function)
        def wrapper(*args):
            return "decorated", wrapper.__name__, 2 * function(*args)

        return wrapper

    @twice
    def f(x):
        return x

    return site.call(f, 3)


@script(returns="<<x>>")
def helpers_of_a_closure(site):
    def inner(text):
        return f"<{text}>"

    def outer(text):
        return inner(inner(text))

    return site.call(lambda: outer("x"))


@script(returns=[2, 4])
def functions_as_arguments(site):
    return site.call(lambda f, xs: list(map(f, xs)), lambda x: 2 * x, [1, 2])


@script(returns=3)
def returned_function(site):
    return site.call(lambda: lambda x: x + 1)(2)


@script(returns=(3, 120))
def functions_of_the_library(site):
    import math

    return site.call(len, "abc"), site.call(math.factorial, 5)


@script(returns=[0, 1, 2])
def own_threads_and_event_loop(site):
    def f():
        import asyncio
        from concurrent.futures import ThreadPoolExecutor

        async def main():
            return [await asyncio.sleep(0, i) for i in range(2)]

        with ThreadPoolExecutor(2) as pool:
            return [*asyncio.run(main()), *pool.map(lambda x: x + 1, [1])]

    return site.call(f)


# Not in threads: a child forked there may find a lock taken for ever.
@script(returns=[0, [1, 4]], on=(PROCESSES, PARSL))
def own_processes(site):
    def f():
        import math
        import multiprocessing

        context = multiprocessing.get_context("fork")
        child = context.Process(target=math.sqrt, args=(4,))
        child.start()
        child.join(30)
        with context.Pool(2) as pool:
            return [child.exitcode, [round(x) ** 2 for x in pool.map(math.sqrt, [1, 4])]]

    return site.call(f)


@script(returns=multiprocessing.get_all_start_methods()[0], on=(PROCESSES,))
def default_start_method(site):
    def f():
        import multiprocessing

        return multiprocessing.get_start_method()

    return site.call(f)


@script(returns="alarm", on=(PROCESSES, PARSL))
def own_signal_handler(site):
    def f():
        import signal
        import time

        class Alarm(Exception):
            pass

        def ring(number, frame):
            raise Alarm

        before = signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        try:
            time.sleep(30)
        except Alarm:
            return "alarm"
        finally:
            signal.signal(signal.SIGALRM, before)

    return site.call(f)


@script(raises="builtins.AttributeError")
def a_callable_without_name(site):
    import functools

    with site.executor() as executor:
        return executor.submit(functools.partial(int, base=2), "10").result(TIMEOUT)


# Exceptions ----------------------------------------------------------------------------------------------------------


@script(fails="ZeroDivisionError: division by zero")
def builtin_exception(site):
    return site.call(lambda x: 1 / x, 0)


@script(fails="KeyError: 'missing'")
def deep_exception(site):
    def f():
        def deeper(n):
            return {}["missing"] if n == 0 else deeper(n - 1)

        return deeper(3)

    return site.call(f)


@script(fails="custom_exception.<locals>.Custom: ('a', 2)")
def custom_exception(site):
    class Custom(Exception):
        def __init__(self, a, b):
            super().__init__(a, b)

    def f():
        raise Custom("a", 2)

    return site.call(f)


@script(fails="ValueError: holds a lock")
def unpicklable_exception(site):
    def f():
        import threading

        error = ValueError("holds a lock")
        error.lock = threading.Lock()
        raise error

    return site.call(f)


@script(fails="RuntimeError: outer")
def chained_exception(site):
    def f():
        try:
            int("x")
        except ValueError as e:
            raise RuntimeError("outer") from e

    return site.call(f)


@script(fails="RuntimeError: while handling")
def exception_in_a_handler(site):
    def f():
        try:
            int("x")
        except ValueError:
            raise RuntimeError("while handling")  # noqa: B904

    return site.call(f)


if sys.version_info >= (3, 11):

    @script(fails="| KeyError: 'two'")
    def exception_group(site):
        def f():
            raise ExceptionGroup("many", [ValueError("one"), KeyError("two")])  # noqa: F821

        return site.call(f)

    @script(fails="and a note")
    def exception_with_a_note(site):
        def f():
            error = ValueError("noted")
            error.add_note("and a note")
            raise error

        return site.call(f)


@script(
    fails="parsl.executors.high_throughput.errors.WorkerLost: Task failure due to loss of worker 0 on host HOST",
    on=(PARSL,),
    kills=True,
)
def killed_worker(site):
    def f():
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)

    return site.call(f)


@script(fails="SystemExit: 3", kills=True)
def system_exit(site):
    def f():
        raise SystemExit(3)

    return site.call(f)


@script(fails="KeyboardInterrupt: stop", kills=True)
def keyboard_interrupt(site):
    def f():
        raise KeyboardInterrupt("stop")

    return site.call(f)


@script(fails="base_exception.<locals>.Severe: bad", kills=True)
def base_exception(site):
    class Severe(BaseException):
        pass

    def f():
        raise Severe("bad")

    return site.call(f)


@script(fails="RecursionError: maximum recursion depth exceeded")
def recursion_error(site):
    def f(n):
        return f(n + 1)

    return site.call(f, 0)


@script(fails="AssertionError: two is not one")
def assertion(site):
    def f():
        assert int("2") == 1, "two is not one"

    return site.call(f)


@script(fails="AssertionError")
def assertion_without_text(site):
    def f():
        raise AssertionError

    return site.call(f)


@script(fails="SyntaxError: invalid syntax")
def syntax_error(site):
    def f():
        exec("a b")

    return site.call(f)


@script(fails="ModuleNotFoundError: No module named 'no_such_module'")
def import_error(site):
    def f():
        import no_such_module

        return no_such_module

    return site.call(f)


@script(fails="text_of_exception_fails.<locals>.Mute: <exception str() failed>")
def text_of_exception_fails(site):
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError("no text")

    def f():
        raise Mute

    return site.call(f)


@script(fails="line three")
def text_of_exception_has_lines(site):
    def f():
        raise ValueError("line one\nline two\nline three")

    return site.call(f)


@script(fails="ValueError: \ud800 is half a character")
def text_of_exception_is_no_utf8(site):
    def f():
        raise ValueError("\ud800 is half a character")

    return site.call(f)


@script(returns=("ValueError", ("a", 1)))
def returned_exception(site):
    back = site.call(lambda: ValueError("a", 1))
    return type(back).__name__, back.args


@script(fails="json.decoder.JSONDecodeError: Expecting value: line 1 column 2 (char 1)")
def error_of_the_library(site):
    def f():
        import json

        return json.loads("[}")

    return site.call(f)


@script(fails="FileNotFoundError: [Errno 2] No such file or directory: '/no/such/file'")
def system_error(site):
    return site.call(lambda: open("/no/such/file"))


@script(fails="TypeError: wrong_arguments.<locals>.f() missing 1 required positional argument: 'b'")
def wrong_arguments(site):
    def f(a, b):
        return a, b

    return site.call(f, 1)


@script(fails="ValueError: after 2")
def generator_of_errors(site):
    def f():
        def numbers():
            yield 1
            yield 2
            raise ValueError("after 2")

        return sum(numbers())

    return site.call(f)


@script(fails="StopIteration: 5")
def stop_iteration(site):
    def f():
        raise StopIteration(5)

    return site.call(f)


@script(fails="TimeoutError: by the task itself")
def timeout_error(site):
    def f():
        raise TimeoutError("by the task itself")

    return site.call(f)


@script(fails="MaxResultSizeExceeded(2, 1)")
def error_of_the_sdk(site):
    def f():
        from globus_compute_sdk.errors import MaxResultSizeExceeded

        raise MaxResultSizeExceeded(2, 1)

    return site.call(f)


OF_THIS_SCRIPT = "a global"


@script(fails="NameError: name 'OF_THIS_SCRIPT' is not defined")
def global_of_the_script(site):
    return site.call(lambda: OF_THIS_SCRIPT)


@script(returns=[f"TaskExecutionFailed: ValueError: {n}" for n in range(0, 40, 2)] + list(range(1, 40, 2)))
def many_errors(site):
    def f(n):
        if n % 2 == 0:
            raise ValueError(n)
        return n

    with site.executor() as executor:
        futures = [executor.submit(f, n) for n in range(40)]
        failures = [failure_of(lambda future=future: future.result(TIMEOUT)) for future in futures[::2]]
        return failures + [future.result(TIMEOUT) for future in futures[1::2]]


# What cannot be sent -------------------------------------------------------------------------------------------------


@script(fails="globus_compute_sdk.errors.error_types.SerializationError: Serialization failed: All strategies failed.")
def result_is_a_generator(site):
    return site.call(lambda: (n for n in range(3)))


@script(fails="globus_compute_sdk.errors.error_types.SerializationError: Serialization failed: All strategies failed.")
def result_is_a_coroutine(site):
    async def f():
        return 1

    return site.call(f)


@script(fails="OSError: cannot be loaded")
def argument_cannot_be_loaded(site):
    class Bomb:
        def __reduce__(self):
            def explode():
                raise OSError("cannot be loaded")

            return explode, ()

    return site.call(lambda x: x, Bomb())


@script(raises="builtins.Exception")
def result_cannot_be_loaded(site):
    def f():
        class Bomb:
            def __reduce__(self):
                def explode():
                    raise OSError("cannot be loaded")

                return explode, ()

        return Bomb()

    return site.call(f)


# The surroundings of a task ------------------------------------------------------------------------------------------


@script(returns="printed")
def printing(site):
    def f():
        import sys

        print("to stdout", "ü" * 10)
        print("to stderr", file=sys.stderr)
        sys.stdout.write("x" * 100_000)
        return "printed"

    return site.call(f)


@script(returns=True)
def task_id_in_the_environment(site):
    def f():
        import os

        return os.environ["GC_TASK_UUID"]

    with site.executor() as executor:
        future = executor.submit(f)
        return future.result(TIMEOUT) == future.task_id


@script(returns=["tasks_working_dir", True, "uep.MANAGER.USER-ENDPOINT", ".globus_compute"])
def working_directory(site):
    def f():
        import os
        from pathlib import Path

        here = Path.cwd()
        sandbox = os.environ.get("GC_TASK_SANDBOX_DIR")
        return here.parts, sandbox, os.environ["GC_TASK_UUID"], os.access(here, os.W_OK)

    parts, sandbox, task_id, writable = site.call(f)
    if site.engine in SANDBOXED:
        assert sandbox == str(Path(*parts)) and parts[-1] == task_id, (parts, sandbox, task_id)
        parts = parts[:-1]
    else:
        assert sandbox is None, sandbox
    name = re.sub(r"^uep\.[0-9a-f-]{36}\.[0-9a-f-]{36}$", "uep.MANAGER.USER-ENDPOINT", parts[-2])
    return [parts[-1], writable, name, parts[-3]]


@script(returns=[True, True])
def endpoint_in_the_environment(site):
    def f():
        import os

        return os.environ["GLOBUS_COMPUTE_ENDPOINT_DIR"], os.environ["GLOBUS_COMPUTE_ENDPOINT_NAME"], os.getcwd()

    folder, name, here = site.call(f)
    return [Path(folder).name == name, Path(folder) in Path(here).parents]


@script(returns=0)
def signals_that_programs_ignore(site):
    def f():
        import subprocess

        done = subprocess.run(["grep", "SigIgn", "/proc/self/status"], capture_output=True, text=True)
        return int(done.stdout.split()[1], 16) & 0x7FFFFFFF  # those with a name; others may be of the host's making

    return site.call(f)


@script(returns=[True, True])
def changed_directory(site):
    def move():
        import os

        before = os.getcwd()
        os.chdir("/")
        return before

    def look():
        import os

        return os.getcwd()

    first, second = site.call(move), site.call(look)
    return [second != "/", (second == first) == (site.engine not in SANDBOXED)]


@script(fails="EOFError: EOF when reading a line")
def standard_input(site):
    return site.call(lambda: input())


@script(returns=("kept", 0))
def files_of_a_task(site):
    def f():
        import os
        import subprocess

        with open("file-of-a-task", "w") as file:
            file.write("kept")
        done = subprocess.run(["cat", "file-of-a-task"], capture_output=True, text=True)
        os.unlink("file-of-a-task")
        return done.stdout, done.returncode

    return site.call(f)


# ShellFunction -------------------------------------------------------------------------------------------------------


def shown(result):
    """All of a ShellResult but the warning that there is no sandbox."""
    lines = [line for line in result.stderr.splitlines() if "sandboxing" not in line]
    return result.returncode, result.cmd, result.stdout, lines, result.exception_name


@script(returns=(0, "echo hello world", "hello world\n", [], None))
def shell(site):
    return shown(site.call(ShellFunction("echo {what} world"), what="hello"))


@script(returns=(3, "echo out; echo err >&2; exit 3", "out\n", ["err"], "subprocess.CalledProcessError"))
def shell_that_fails(site):
    return shown(site.call(ShellFunction("echo out; echo err >&2; exit 3")))


@script(returns=(127, "subprocess.CalledProcessError"))
def shell_without_the_command(site):
    result = site.call(ShellFunction("no-such-command"))
    return result.returncode, result.exception_name


@script(returns=(124, "sleep 5", "", [], "subprocess.TimeoutExpired"))
def shell_walltime(site):
    return shown(site.call(ShellFunction("sleep 5", walltime=0.2)))


@script(returns=(0, "seq 100", "98\n99\n100\n", [], None))
def shell_snippet(site):
    return shown(site.call(ShellFunction("seq 100", snippet_lines=3)))


@script(returns=["cmd", "exception_name", "returncode", "stderr", "stdout"])
def shell_as_a_dict(site):
    return sorted(site.call(ShellFunction("true", return_dict=True)))


@script(returns=("in a file\n", True))
def shell_output_in_a_file(site):
    name = f"shell-{uuid.uuid4().hex}.out"
    check = 'echo in a file; test "$PWD" = "${{GC_TASK_SANDBOX_DIR:-$PWD}}"; rm ' + name
    result = site.call(ShellFunction(check, stdout=name))
    return result.stdout, result.returncode == 0


@script(fails="KeyError: 'missing'")
def shell_without_an_argument(site):
    return site.call(ShellFunction("echo {missing}"))


# Serialization -------------------------------------------------------------------------------------------------------


def with_code_strategy(strategy):
    def run(site):
        client = Client(code_serialization_strategy=strategy())

        def f(a, b=2):
            import math

            return [math.floor(a), b]

        with site.executor(client) as executor:
            return executor.submit(f, 1.5).result(TIMEOUT)

    return run


# The two that send the text of a function as it stands need one that is not indented.
def top_level(a, b=2):
    import math

    return [math.floor(a), b]


def with_source_strategy(strategy):
    def run(site):
        with site.executor(Client(code_serialization_strategy=strategy())) as executor:
            return executor.submit(top_level, 1.5).result(TIMEOUT)

    return run


for each in ("DillCode", "DillCodeSource", "PureSourceDill", "AllCodeStrategies", "CombinedCode"):
    script(returns=[1, 2], name=f"code_as_{each}")(with_code_strategy(getattr(serialize, each)))
for each in ("DillCodeTextInspect", "PureSourceTextInspect"):
    script(returns=[1, 2], name=f"code_as_{each}")(with_source_strategy(getattr(serialize, each)))


def with_data_strategy(strategy):
    def f(*args, **kwargs):
        return [*args, kwargs]

    def run(site):
        with site.executor(Client(data_serialization_strategy=strategy())) as executor:
            return executor.submit(f, 1, "two", [3.0, None], k=True).result(TIMEOUT)

    return run


for each in ("DillDataBase64", "JSONData", "AllDataStrategies"):
    script(returns=[1, "two", [3.0, None], {"k": True}], name=f"data_as_{each}")(
        with_data_strategy(getattr(serialize, each))
    )


@script(returns={"1": [2, 3]})
def result_as_json(site):
    with site.executor(result_serializers=[STRATEGY + "JSONData"]) as executor:
        return executor.submit(lambda: {1: (2, 3)}).result(TIMEOUT)


@script(returns={1})
def result_as_json_or_else(site):
    with site.executor(result_serializers=[STRATEGY + "JSONData", STRATEGY + "DillDataBase64"]) as executor:
        return executor.submit(lambda: {1}).result(TIMEOUT)


@script(returns=[1])
def result_as_all(site):
    with site.executor(result_serializers=[serialize.AllDataStrategies()]) as executor:
        return executor.submit(lambda: [1]).result(TIMEOUT)


@script(fails="globus_compute_sdk.errors.error_types.SerializationError: Serialization failed: All strategies failed.")
def result_not_as_json(site):
    with site.executor(result_serializers=[STRATEGY + "JSONData"]) as executor:
        return executor.submit(lambda: {1}).result(TIMEOUT)


@script(returns="TaskExecutionFailed: SerializationError")
def result_by_an_unknown_strategy(site):
    function = site.client.register_function(lambda: 1)
    (task,) = site.run_batch({function: [()]}, result_serializers=["no.such.Strategy"])["tasks"][function]
    site.ended(task)
    return re.sub(r": \S*(SerializationError): .*", r": \1", failure_of(lambda: site.client.get_result(task)))


@script(returns=[1, 2])
def arguments_by_a_serializer(site):
    client = Client()
    with site.executor(client, serializer=ComputeSerializer(strategy_data=serialize.JSONData())) as executor:
        return executor.submit(lambda x: x, (1, 2)).result(TIMEOUT)


# Many tasks, and the client's other calls ----------------------------------------------------------------------------


@script(returns=[n * n for n in range(1000)])
def thousand_tasks(site):
    def square(n):
        return n * n

    with site.executor() as executor:
        futures = [executor.submit(square, n) for n in range(1000)]
        return [future.result(TIMEOUT) for future in futures]


@script(raises="builtins.NotImplementedError")
def executor_map(site):
    with site.executor() as executor:
        return list(executor.map(lambda x: x, [1]))


@script(returns=[{2, 3, 4}, {"a!", "b!"}, 5])
def batch(site):
    plus = site.client.register_function(lambda n: n + 1)
    shout = site.client.register_function(lambda text: text + "!")
    tasks = site.run_batch({plus: [(1,), (2,), (3,)], shout: [("a",), ("b",)]})["tasks"]
    site.ended(*tasks[plus], *tasks[shout])
    results = site.client.get_batch_result(tasks[plus] + tasks[shout])
    values = [{results[task]["result"] for task in tasks[function]} for function in (plus, shout)]
    return [*values, sum(1 for each in results.values() if not each["pending"] and each["status"] == "success")]


@script(returns=(1, "TaskExecutionFailed: ZeroDivisionError: division by zero"))
def batch_with_a_failure(site):
    divide = site.client.register_function(lambda n: 1 / n)
    tasks = site.run_batch({divide: [(1,), (0,)]})["tasks"][divide]
    site.ended(*tasks)
    results = site.client.get_batch_result(tasks)  # leaves the failed one out
    return len(results), failure_of(lambda: site.client.get_result(tasks[1]))


# It has no way to give options, and so reaches the template's default engine only.
@script(returns=8, on=(THREADS,))
def client_run(site):
    cube = site.client.register_function(lambda n, power=1: n**power)
    task = site.client.run(2, endpoint_id=site.endpoint_id, function_id=cube, power=3)
    site.ended(task)
    return site.client.get_result(task)


DETAILS = ["dill_version", "endpoint_id", "globus_compute_sdk_version", "os", "python_version"]


@script(returns=(["completion_t", "details", "pending", "result", "status"], False, "success", DETAILS, DETAILS))
def get_task(site):
    function = site.client.register_function(lambda: None)
    (task,) = site.run_batch({function: [()]})["tasks"][function]
    site.ended(task)
    shown = site.client.get_task(task)
    there = sorted(key for key, value in shown["details"].items() if isinstance(value, str))
    return sorted(shown), shown["pending"], shown["status"], sorted(shown["details"]), there


@script(returns=("TaskPending", "done"))
def get_result_while_pending(site):
    def wait(path):
        import os
        import time

        deadline = time.monotonic() + 60
        while not os.path.exists(path):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return "done"

    folder = Path(tempfile.mkdtemp(prefix="mep-compare-"))
    folder.chmod(0o755)
    try:
        function = site.client.register_function(wait)
        (task,) = site.run_batch({function: [(str(folder / "go"),)]})["tasks"][function]
        try:
            pending = site.client.get_result(task)
        except TaskPending as e:
            pending = type(e).__name__
        (folder / "go").touch()
        site.ended(task)
        return pending, site.client.get_result(task)
    finally:
        shutil.rmtree(folder)


@script(returns="TaskExecutionFailed: ValueError: failed")
def get_result_of_a_failure(site):
    def f():
        raise ValueError("failed")

    function = site.client.register_function(f)
    (task,) = site.run_batch({function: [()]})["tasks"][function]
    site.ended(task)
    return failure_of(lambda: site.client.get_result(task))


@script(returns=[0, 1, 4, 9, "TaskExecutionFailed: ZeroDivisionError: division by zero"])
def reload_tasks(site):
    function = site.client.register_function(lambda n: n * n if n < 4 else n / 0)
    group = site.run_batch({function: [(n,) for n in range(5)]}, create_websocket_queue=True)["task_group_id"]
    with site.executor(Client()) as executor:
        futures = list(executor.reload_tasks(group))
        values = [future.result(TIMEOUT) for future in futures[:4]]
        return [*sorted(values), failure_of(lambda: futures[4].result(TIMEOUT))]


@script(returns="TaskExecutionFailed: ValueError", on=(THREADS, PROCESSES))
def resource_specification_in_a_pool(site):
    with site.executor(resource_specification={"num_nodes": 2}) as executor:
        said = failure_of(lambda: executor.submit(lambda: 1).result(TIMEOUT))
    return ": ".join(said.split(": ")[:2])


@script(returns="TaskExecutionFailed: parsl.executors.errors.InvalidResourceSpecification", on=(PARSL,))
def resource_specification_without_mpi(site):
    with site.executor(resource_specification={"num_nodes": 2}) as executor:
        said = failure_of(lambda: executor.submit(lambda: 1).result(TIMEOUT))
    return ": ".join(said.split(": ")[:2])


@script(raises="globus_sdk.services.compute.errors.ComputeAPIError")
def unknown_function(site):
    with site.executor() as executor:
        return executor.submit_to_registered_function(str(uuid.uuid4())).result(TIMEOUT)


@script(returns=(True, True, "CancelledError", 2))
def cancelled(site):
    with site.executor() as executor:
        future = executor.submit(lambda: 1)
        accepted = future.cancel()
        other = executor.submit(lambda: 2).result(TIMEOUT)
        return accepted, future.cancelled(), failure_of(lambda: future.result(1)), other


@script(returns=("ValueError", 5))
def registered_twice(site):
    def f():
        return 5

    with site.executor() as executor:
        function = executor.register_function(f)
        again = failure_of(lambda: executor.register_function(f))
        return again, executor.submit_to_registered_function(function).result(TIMEOUT)


@script(returns=[2, "from source"])
def registered_as_source(site):
    source = "import math\ndef helper(x):\n    return math.sqrt(x)\ndef f(x, y):\n    return [round(helper(x)), y]\n"
    with site.executor() as executor:
        function = executor.register_source_code(source, "f")
        return executor.submit_to_registered_function(function, (4,), {"y": "from source"}).result(TIMEOUT)


@script(returns=True)
def hardware_report(site):
    with site.executor() as executor:
        return "Compute Endpoint worker" in executor.get_worker_hardware_details()


def main() -> None:
    endpoint_id, engine, config, *names = sys.argv[1:]
    site = Site(endpoint_id, engine, json.loads(config))
    chosen = [each for each in SCRIPTS.values() if engine in each.engines and (not names or each.name in names)]
    outcomes = {}
    for kills in (False, True):
        group = [each for each in chosen if each.kills is kills]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            results = pool.map(lambda each: outcome_of(each.run, site), group)
            outcomes |= {each.name: outcome for each, outcome in zip(group, results, strict=True)}
    print(json.dumps(outcomes), flush=True)
    os._exit(0)  # the SDK would wait for results that have not come


if __name__ == "__main__":
    main()
