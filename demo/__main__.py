"""`python -m demo [--keep | --stop]`, which `make demo` calls once everything is installed. Needs root.

Without options the site lives as long as the story. With --keep a process of its own holds it until --stop.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from demo import story
from demo.site import Site, running
from lab.accounts import AccountFailed
from lab.broker import BrokerFailed
from lab.client import ClientFailed
from lab.hub import HubFailed
from lab.manager import MEP, ManagerFailed
from mep.monitor import run_lock

KEEPER = Path("/run/mep-demo")
"""Where a kept demo leaves its pid."""
FAILURES = (AccountFailed, BrokerFailed, ClientFailed, HubFailed, ManagerFailed)


def main() -> int:
    """The exit code: 0 when everything was as it should be."""
    parser = argparse.ArgumentParser(prog="demo")
    parser.add_argument("--keep", action="store_true", help="leave the site running")
    parser.add_argument("--stop", action="store_true", help="stop the site that --keep left running")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("demo: must be root: it creates accounts and starts processes as them", file=sys.stderr)
        return os.EX_NOPERM
    os.umask(0o022)
    if options.stop:
        return _stop()
    try:
        with run_lock.hold(KEEPER):
            return _keep() if options.keep else _run_once()
    except run_lock.AlreadyRunning:
        print("demo: one is running already; stop it with `make demo-stop`", file=sys.stderr)
        return os.EX_TEMPFAIL


def _run_once() -> int:
    try:
        with _site() as site:
            good = _tell(site)
    except FAILURES as e:
        print(f"demo: {e}", file=sys.stderr)
        return 1
    print("Everything that was started has ended; nothing is left behind.")
    return 0 if good else 1


def _keep() -> int:
    """A child holds the site until SIGTERM; this process returns when the story is told."""
    told, tell = os.pipe()
    if os.fork() > 0:
        os.close(tell)
        answer = os.read(told, 1)
        os._exit(int(answer) if answer else 1)  # the lock file is the child's now
    os.close(told)
    os.setsid()
    run_lock.moved()
    try:
        with _site() as site:
            good = _tell(site)
            _explain(site)
            sys.stdout.flush()
            os.write(tell, b"0" if good else b"1")
            os.close(tell)
            _forget_terminal()
            # Blocked only from here on: what was started before must not inherit it.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            signal.sigwait({signal.SIGTERM})
    except FAILURES as e:
        print(f"demo: {e}", file=sys.stderr)
        return 1
    return 0


@contextlib.contextmanager
def _site() -> Iterator[Site]:
    """The site in a folder of its own; SIGTERM, too, ends it in good order."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(os.EX_TEMPFAIL))
    with tempfile.TemporaryDirectory(prefix="mep-demo-") as folder:
        Path(folder).chmod(0o755)
        with running(Path(folder)) as site:
            yield site


def _stop() -> int:
    try:
        stopped = run_lock.stop(KEEPER)
    except TimeoutError as e:
        print(f"demo: {e}", file=sys.stderr)
        return os.EX_TEMPFAIL
    if not stopped:
        print("demo: none is running")
        return 0
    print("The demo has ended; nothing is left behind.")
    return 0


def _tell(site: Site) -> bool:
    print(f"Endpoint {site.manager.endpoint_id}: broker, hub and manager (root, pid {site.manager.pid}) run.")
    return story.tell(site)


def _explain(site: Site) -> None:
    """How to play with a kept demo. The client's secret goes into a file, as a user would keep it."""
    for user in site.accounts:
        lines = [f"export {name}={shlex.quote(value)}" for name, value in site.hub.client_environment(user).items()]
        with os.fdopen(os.open(site.folder / f"{user}.env", os.O_WRONLY | os.O_CREAT, 0o600), "w") as f:
            f.write("\n".join(lines) + "\n")
    clients = story.CLIENTS
    print(f"""
The demo is left running. To be alice, or bob, in a shell of your own:

  . {site.folder}/alice.env
  {sys.executable} {clients}/sum.py {site.manager.endpoint_id} '{{"engine": "ThreadPoolEngine"}}'

  scripts     {clients}
  profile     {site.manager.profile}
  decisions   {site.folder}/mep/audit.log
  manager     MEP_CONFIG_DIR={site.folder}/mep/etc MEP_RUN_DIR={site.folder}/mep/run {MEP} list

Stop it with:  make demo-stop""")


def _forget_terminal() -> None:
    """The caller's terminal or pipe must not wait for us."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)


if __name__ == "__main__":
    sys.exit(main())
