"""Ends tasks that run longer than the site's GC_TASK_TIMEOUT allows."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

NAGGING = 1.0
"""Seconds after which a task that has caught its TaskTimeout gets another."""


class TaskTimeout(Exception):
    """The task ran longer than the site's GC_TASK_TIMEOUT."""

    def __str__(self) -> str:
        return f"the task ran longer than the {os.environ.get('GC_TASK_TIMEOUT')} s that the site allows"


@contextlib.contextmanager
def time_limit() -> Iterator[None]:
    """Ends what runs inside after the site's GC_TASK_TIMEOUT seconds; 0 or nothing: never.

    In a main thread also while it waits for something: a sleep, a socket, another program; what the task has started is
    killed. In other threads not before Python code runs again.

    Raises:
        TaskTimeout: the time is over.
    """
    seconds = float(os.environ.get("GC_TASK_TIMEOUT") or 0)
    if seconds <= 0:
        yield
    elif threading.current_thread() is threading.main_thread():
        with _time_limit_by_signal(seconds):
            yield
    else:
        with _time_limit_by_thread(seconds):
            yield


@contextlib.contextmanager
def _time_limit_by_signal(seconds: float) -> Iterator[None]:
    begun = time.time()

    def end(number: int, frame: Any) -> None:
        _kill_children(begun)
        raise TaskTimeout

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds, NAGGING)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _time_limit_by_thread(seconds: float) -> Iterator[None]:
    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
    thread = ctypes.c_ulong(threading.get_ident())
    over, lock = threading.Event(), threading.Lock()

    def end() -> None:
        with lock:
            if not over.is_set():
                raise_in(thread, ctypes.py_object(TaskTimeout))

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        with lock:
            over.set()
            raise_in(thread, None)
        timer.cancel()


def _kill_children(since: float) -> None:
    """Kills what the task has started: shells would outlive it."""
    with contextlib.suppress(Exception):
        import psutil

        for child in psutil.Process().children(recursive=True):
            if child.create_time() > since - 1:  # it is in ticks
                child.kill()
