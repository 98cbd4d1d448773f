"""Functions of all kinds as tasks."""

import multiprocessing

from tests.compare.scripts.script import PARSL, PROCESSES, TIMEOUT, script


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
        pool = context.Pool(2)
        roots = pool.map(math.sqrt, [1, 4])
        pool.close()  # as a block that ends would not: it kills its workers, and waits for ever if one holds the queue
        pool.join()
        return [child.exitcode, [round(x) ** 2 for x in roots]]

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
