"""Functions that tests run as tasks. They travel as text, one by one: each imports what it needs."""

from __future__ import annotations


def double(x):
    return 2 * x


def boom():
    def inner():
        raise ValueError("no")

    inner()


def leave():
    import sys

    sys.exit(3)


def leave_child_and_die(path):
    import os
    import time

    child = os.fork()
    if child == 0:
        time.sleep(120)
        os._exit(0)
    with open(path, "w") as file:
        file.write(str(child))
    os._exit(9)


def with_children():
    import math
    import multiprocessing

    with multiprocessing.Pool(2) as pool:
        return multiprocessing.get_start_method(), pool.map(math.sqrt, [1, 4])


def die():
    import os

    os._exit(9)


def kill_myself(number):
    import os

    os.kill(os.getpid(), number)


def imported(*modules):
    import sys

    return [module for module in modules if module in sys.modules]


def sleep(seconds):
    import time

    time.sleep(seconds)
    return seconds


def spin(seconds):
    import time

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return "not stopped"


def zeros(n):
    return "0" * n


def whereabouts():
    import os

    return {
        "cwd": os.getcwd(),
        "pid": os.getpid(),
        "task": os.environ.get("GC_TASK_UUID"),
        "sandbox": os.environ.get("GC_TASK_SANDBOX_DIR"),
        "stdin": os.readlink("/proc/self/fd/0"),
        "fds": sorted(os.listdir("/proc/self/fd")),
    }


def say(text):
    print(text)


def write(name):
    with open(name, "w") as file:
        file.write("written")


def touch_and_sleep(path, seconds):
    import pathlib
    import time

    with pathlib.Path(path).open("a") as f:
        f.write("ran\n")
    time.sleep(seconds)


def unprintable():
    class Strange(Exception):
        def __str__(self):
            raise RuntimeError("worse")

    raise Strange


def unserializable():
    return (n for n in range(3))


def interpreter():
    import platform
    import sys

    return {"prefix": sys.prefix, "version": platform.python_version()}


def total(n):
    parts = [2 * k for k in range(n)]
    return sum(parts)


def wait_for(path):
    import os
    import time

    while not os.path.exists(path):
        time.sleep(0.05)


def stubborn(seconds):
    import time

    try:
        time.sleep(seconds)
    except Exception:
        time.sleep(seconds)


def complain(length):
    raise ValueError("x" * length + " and that is all")


def length(text):
    return len(text)


def log_much_as_parsl(megabytes):
    import logging

    for _ in range(megabytes):
        for _ in range(1024):
            logging.getLogger("parsl").info("x" * 1023)


def print_much(megabytes):
    for _ in range(megabytes):
        print("x" * (2**20 - 1))
    print("the last line of a task")


def print_much_and_hold_the_interpreter(megabytes):
    import ctypes

    write = ctypes.PyDLL(None).write  # does not let other threads run meanwhile
    text = b"x" * 2**20
    for _ in range(megabytes):
        written = 0
        while written < len(text):
            written += write(1, text[written:], len(text) - written)
    write(1, b"\nthe last line of a task\n", 25)


def have_much_printed(megabytes):
    import subprocess

    command = f"yes | head -c {megabytes << 20}; echo the last line of a task"
    return subprocess.run(["/bin/sh", "-c", command], check=True).returncode


def leave_a_writer(path):
    import subprocess

    waits = f"while ! [ -e {path} ]; do sleep 0.1; done; echo written by what was left"
    subprocess.Popen(["/bin/sh", "-c", waits], start_new_session=True)


def start_programs(folder, *deaf):
    """Starts programs in four ways, and waits for them. They note their pids and SIGTERM; the `deaf` ignore that."""
    import os
    import subprocess

    def program(name):
        heard = "" if name in deaf else "echo asked >$0.asked; exit"
        code = f"trap '{heard}' TERM; echo $$ >$0.new; mv $0.new $0; while :; do sleep 0.05; done"
        return ["/bin/sh", "-c", code, os.path.join(folder, name)]

    subprocess.run(["/bin/sh", "-c", 'setsid "$@" & :', "sh", *program("daemon")], check=True)
    started = [
        subprocess.Popen(program("plain")),
        subprocess.Popen(["setsid", *program("session")]),
        subprocess.Popen(program("bare"), env={}, start_new_session=True),
    ]
    for each in started:
        each.wait()
