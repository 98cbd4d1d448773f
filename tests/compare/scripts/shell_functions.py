"""ShellFunction: command lines as tasks."""

import uuid

from globus_compute_sdk import ShellFunction

from tests.compare.scripts.script import script


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
