"""Where and with what a task runs."""

import re
from pathlib import Path

from tests.compare.scripts.script import SANDBOXED, TIMEOUT, script


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
