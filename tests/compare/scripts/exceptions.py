"""Tasks that end in an exception."""

import sys

from tests.compare.scripts.outcome import failure_of
from tests.compare.scripts.script import PARSL, TIMEOUT, script


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
    fails="WorkerLost: Task failure due to loss of worker 0 on host HOST: its process ended by signal 9 (SIGKILL)",
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
