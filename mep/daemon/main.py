"""The program that `mep start` becomes: reads and tries the profile, registers the endpoint, and becomes the manager.

It ends there: the manager (`serve`) is executed in its place, with what it begins with (`handed`).
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import gc
import json
import logging
import os
import pickle
import resource
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from mep.daemon import choice, helper_account, logs, other_hosts, registering
from mep.daemon.failed import Failed, exit_codes, profile_name, running_once
from mep.daemon.handed import Folders, Handed, LogTo
from mep.daemon.registering import Registrar
from mep.monitor import last_run, run_lock
from mep.monitor.notify import notify
from mep.privileged import kernel
from mep.processes.helper import HelperUnavailable
from mep.processes.sealed_file import SealedFile
from mep.profile import places
from mep.profile.errors import ConfigError
from mep.profile.paths import Paths, find_paths
from mep.profile.profile import OWNER
from mep.reader import client_credentials, environment, files
from mep.request.unwanted import EndpointUnwanted

log = logging.getLogger(__name__)

_DESCRIPTORS = 65536
"""LimitNOFILE of `mep@.service`."""
_UNTIL_READY = 120
"""Seconds from the registration until the manager takes commands: TimeoutStartSec of `mep@.service`."""
_INTERRUPTED = 128 + signal.SIGINT
"""The exit code of a program that Ctrl-C has ended, as shells have it."""


@dataclass(frozen=True)
class _Call:
    """What was typed after `mep start`."""

    name: str
    debug: bool
    log_to_console: bool
    detach: bool
    endpoint_id: str | None


def main(arguments: Sequence[str]) -> None:
    """Runs the manager of the endpoint that the arguments name, until a signal stops it. Exits with a code."""
    parser = argparse.ArgumentParser("mep start")
    parser.add_argument("name")
    parser.add_argument("--config-dir", type=Path)
    parser.add_argument("--endpoint-uuid")
    for option in ("--debug", "--log-to-console", "--detach"):
        parser.add_argument(option, action="store_true")
    typed = parser.parse_args(arguments)
    try:
        paths = _paths(typed.config_dir)
        name = profile_name(paths.config, typed.name)
        with _remembered(paths, name):
            _start(paths, _Call(name, typed.debug, typed.log_to_console, typed.detach, typed.endpoint_uuid))
    except Failed as e:
        print(f"mep: {e}", file=sys.stderr)
        sys.exit(e.exit_code)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    except PermissionError as e:  # a home that is another's, for example
        print(f"mep: {e.filename}: {e.strerror}", file=sys.stderr)
        sys.exit(os.EX_NOPERM)


def _paths(config_dir: Path | None) -> Paths:
    """Sets the variables of the file `environment`, which may name paths."""
    with exit_codes():
        environment.load(find_paths(config_dir).config / "environment")
    return find_paths(config_dir)


def _start(paths: Paths, call: _Call) -> NoReturn:
    """Executes the manager, in our place."""
    name, directory, run_directory = call.name, paths.config / call.name, paths.run / call.name
    os.umask(0o077)
    kernel.set_dumpable(False)  # it holds the client's secret: no core file, whatever the limits say
    _allow_descriptors()
    logs.send_to([logging.StreamHandler()], call.debug)
    with exit_codes(), _exit_codes_of_a_start():
        places.check_profile(paths, directory)
        chosen = choice.choose(directory, paths.state)
    profile = chosen.profile
    debug, form = call.debug or profile.config.debug, profile.config.log_format
    logs.send_to([logging.StreamHandler()], debug, form)
    if chosen.refused:  # here as well as in the manager's log, which nobody reads who gets their prompt back
        log.critical("%s", chosen.refused)
    if not kernel.is_root():
        other_hosts.forget_other_boots(paths)
    folders = Folders(run_directory, paths.kept(name), paths.orders(name), paths.state)
    with running_once(run_directory, name):
        if elsewhere := other_hosts.running_on(paths, name):
            raise Failed(os.EX_TEMPFAIL, f"endpoint {name} {elsewhere}")
        with exit_codes(), _exit_codes_of_a_start():
            accounts = helper_account.find(profile.config)
            readers = helper_account.readers(profile.config)
            given = client_credentials.find(None) if profile.config.client_credentials_path is None else None
            registrar = Registrar(profile, accounts.worker, given, folders.state, folders.run, call.endpoint_id)
            registration = asyncio.run(registrar.register_once_unlocked(_Waiting(run_directory).tell))
            if not kernel.is_root():
                profile = dataclasses.replace(profile, mapping=files.read_mapping(directory / OWNER))
        if form == "text":  # else what reads the log would meet a line that is no JSON
            print(f"Endpoint {name} is registered: {registration.endpoint_id}", flush=True)
        if not chosen.refused:
            choice.keep(folders.state, profile, registration.endpoint_id)
        path, size, keep = paths.log_file(directory), profile.config.log_size, profile.config.log_keep
        log_to = LogTo(path, size, keep, debug, form, console=call.log_to_console or not call.detach)
        logs.file(path, size, keep).close()  # one that cannot be written is told here
        if call.detach:
            _detach()
        with _exit_codes_of_a_start():
            (lock,) = run_lock.descriptors()
            addresses = SealedFile.of(registration.addresses())
            secret = None if given is None else SealedFile.of(json.dumps(dataclasses.astuple(given)).encode())
            handed = Handed(
                profile=profile,
                refused=chosen.refused,
                endpoint_id=registration.endpoint_id,
                folders=folders,
                accounts=accounts,
                readers=readers,
                log=log_to,
                lock=lock,
                addresses=addresses.descriptor,
                credentials=None if secret is None else secret.descriptor,
            )
            _execute(handed)


class _Waiting:
    """Tells that the start waits for the service: the log once, systemd each time, which gives it more time then."""

    def __init__(self, run_directory: Path) -> None:
        self._run_directory = run_directory
        self._told = ""

    def tell(self, why: str) -> None:
        """why: the service does not let the endpoint in yet."""
        seconds = registering.PAUSE + registering.TIMEOUT + _UNTIL_READY
        notify(EXTEND_TIMEOUT_USEC=f"{seconds * 1e6:.0f}", STATUS=f"waiting: {why}")
        if why != self._told:
            self._told = why
            log.warning("waiting: %s; it is tried every %g s", why, registering.PAUSE)
            last_run.waits(self._run_directory, why)


def _execute(handed: Handed) -> NoReturn:
    """Becomes the manager. Raises OSError."""
    begins_with = SealedFile.of(pickle.dumps(handed))
    for descriptor in (begins_with.descriptor, handed.lock, handed.addresses, handed.credentials):
        if descriptor is not None:
            os.set_inheritable(descriptor, True)
    of_the_manager = (handed.profile.name, handed.endpoint_id, str(begins_with.descriptor))
    program = [sys.executable, "-I", "-m", "mep.daemon.serve", *of_the_manager]
    sys.stdout.flush()
    sys.stderr.flush()
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # what comes now waits for the manager
    os.execv(sys.executable, program)  # noqa: S606 - no shell, as meant


def _allow_descriptors() -> None:
    """As many as the unit allows: commands that wait, and each user endpoint, have some."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, _DESCRIPTORS)), hard))


@contextmanager
def _remembered(paths: Paths, name: str) -> Iterator[None]:
    """Has `mep status` know of a failure; not when another manager runs, whose end that is not."""
    run_directory = paths.run / name

    def may_write() -> bool:
        try:
            places.check_run(paths, name)  # a place of others' the start has told of
        except ConfigError:
            return False
        return (paths.config / name).is_dir() and run_lock.holder(run_directory) is None

    try:
        yield
    except Exception as e:
        reason = str(e) if isinstance(e, Failed) else f"{type(e).__name__}: {e}; the log has more"
        if may_write():
            last_run.failed(run_directory, reason)
        raise


@contextmanager
def _exit_codes_of_a_start() -> Iterator[None]:
    """Raises Failed in place of what keeps a manager from starting."""
    try:
        yield
    except (HelperUnavailable, EndpointUnwanted) as e:
        raise Failed(e.exit_code, str(e)) from None
    except OSError as e:
        raise Failed(os.EX_OSERR, str(e)) from None


def _detach() -> None:
    import daemon  # the package python-daemon

    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # of a terminal that is closed as soon as the command has ended
    gc.collect()  # what is garbage closes its descriptors now, not when their numbers belong to somebody else
    daemon.DaemonContext(detach_process=True, umask=0o077, files_preserve=run_lock.descriptors()).open()
    run_lock.moved()


if __name__ == "__main__":
    main(sys.argv[1:])
