"""Removes a profile with all that was kept of it, once nothing of it runs any more. For `mep delete`."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from mep.cli import boot, unmanaged
from mep.cli.common import paths, trusted_run_directory
from mep.daemon.failed import Failed, exit_codes, running_once
from mep.monitor import run_lock
from mep.monitor.containment.systemd import ContainmentError
from mep.profile import accepted, places


@contextlib.contextmanager
def ready_to_remove(directory: Path, force: bool) -> Iterator[None]:
    """Inside this nothing of the profile runs, and nobody can start it. force: what runs is stopped.

    Raises:
        Failed: something runs, or cannot be stopped; or only root may.
    """
    name = directory.name
    if not os.access(directory.parent, os.W_OK):
        raise _not_allowed()
    try:
        run_directory = trusted_run_directory(name)
        with exit_codes():
            places.check_all(paths().kept(name))
            places.check_all(paths().orders(name))
        _stop(run_directory, name, force)
        with running_once(run_directory, name):
            if running := unmanaged.count(run_directory):
                if not force:
                    text = f"{running} user endpoints of {name} go on without a manager"
                    raise Failed(os.EX_TEMPFAIL, f"{text}; end them first: mep stop --user-endpoints {name}")
                unmanaged.end(run_directory, paths().kept(name))
            yield
    except PermissionError:
        raise _not_allowed() from None
    except run_lock.NoPlace as e:
        raise Failed(os.EX_CONFIG, str(e)) from None
    except (ContainmentError, TimeoutError) as e:
        raise Failed(os.EX_TEMPFAIL, f"not everything has ended: {e}") from None


def _not_allowed() -> Failed:
    return Failed(os.EX_NOPERM, "must be root to delete a profile")


def _stop(run_directory: Path, name: str, force: bool) -> None:
    if run_lock.holder(run_directory) is None:
        return
    if not force:
        raise Failed(os.EX_TEMPFAIL, f"endpoint {name} is running; stop it first, or say --force")
    run_lock.stop(run_directory)


def remove(directory: Path) -> None:
    """Removes the folder last: what is left half-way can be deleted again. Raises Failed."""
    name = directory.name
    if boot.is_enabled(name):
        boot.disable(name)
    try:
        accepted.file(paths().state, name).unlink(missing_ok=True)
        for folder in (paths().kept_by_all(name), paths().orders_by_all(name), paths().run / name):
            if folder.exists():
                shutil.rmtree(folder)
        shutil.rmtree(directory)
    except PermissionError:
        raise
    except OSError as e:
        raise Failed(os.EX_CANTCREAT, f"{e.filename}: cannot be removed: {e.strerror or e}") from None
