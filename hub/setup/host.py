"""The steps of `mep-hub setup`, as root on the host of the hub and of RabbitMQ."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Iterator
from pathlib import Path

from hub.config import URL_FILE
from hub.setup import files, rabbitmq, tls
from hub.setup.steps import Found, SetupFailed, Step, right_or_due
from wire.listeners import FIRST_ORDINARY_UID

ACCOUNT = "mep-hub"
FOLDER = Path("/etc/mep-hub")
CONFIG = FOLDER / "hub.yaml"
STATE = Path("/var/lib/mep-hub")
"""Made by the unit."""
BROKER_UNIT = "rabbitmq-server.service"
UNITS = ("mep-hub.service", "mep-hub.socket")

NEW_CONFIG = f"""\
# The hub: see docs/hub.md for all keys. Who may call, from `mep-hub new-client`, goes at the end.
database: {STATE}/hub.db
broker:
  url_file: {URL_FILE}
clients:
"""


def set_up(given: tls.Given | None = None, *, dry: bool) -> Iterator[Step]:
    """Goes through all steps; each is yielded once it is done, or with `dry` looked at. `given` is for other hosts.

    Raises:
        SetupFailed: a step cannot be taken; those before it stay, and another run goes on from there.
    """
    if given is not None:
        tls.check(given)
    yield _account(dry=dry)
    try:
        account = pwd.getpwnam(ACCOUNT)
        uid, gid = account.pw_uid, account.pw_gid
    except KeyError:  # a dry run
        uid = gid = -1
    yield from _folder(uid, gid, dry=dry)
    node = rabbitmq.Node()
    yield from rabbitmq.configure(node, dry=dry)
    if given is not None:
        yield from tls.configure(node, given, dry=dry)
        yield from tls.tell_hub(CONFIG, given, uid, gid, dry=dry)
    broker = _broker(node, dry=dry)
    yield broker
    if dry and not _is("active", BROKER_UNIT):
        yield Step(Found.DUE, "RabbitMQ's user and virtual host (it does not run, so they were not looked at)")
    else:
        yield from rabbitmq.set_up(node, FOLDER / URL_FILE, uid, gid, dry=dry)
    yield from _units(dry=dry)


def _account(*, dry: bool) -> Step:
    try:
        account = pwd.getpwnam(ACCOUNT)
    except KeyError:
        if not dry:
            _run("useradd", "--system", "--home-dir", str(STATE), "--shell", "/sbin/nologin", ACCOUNT)
            _account(dry=dry)
        return Step(Found.DUE, f"account {ACCOUNT}")
    if not 0 < account.pw_uid < FIRST_ORDINARY_UID:
        raise SetupFailed(
            f"account {ACCOUNT} has uid {account.pw_uid}, and managers trust the hub's port only to a system account;"
            f" give it one below {FIRST_ORDINARY_UID} (usermod --uid), and set SYS_UID_MAX in /etc/login.defs"
        )
    return Step(Found.RIGHT, f"account {ACCOUNT}")


def _folder(uid: int, gid: int, *, dry: bool) -> Iterator[Step]:
    """Makes the folder and hub.yaml; once they are there they are the admin's."""
    yield right_or_due(f"{FOLDER}", right=FOLDER.is_dir())
    there = CONFIG.exists()
    if not dry:
        try:
            if not FOLDER.is_dir():
                FOLDER.mkdir(mode=0o700)
                os.chown(FOLDER, uid, gid)
        except OSError as e:
            raise SetupFailed(f"{FOLDER}: {e.strerror}") from None
        if not there:
            files.write(CONFIG, NEW_CONFIG, 0o600, uid, gid)
    yield right_or_due(f"{CONFIG}", right=there)


def _broker(node: rabbitmq.Node, *, dry: bool) -> Step:
    """Starts RabbitMQ at each boot and now, or anew if it has not read its newest files."""
    read = [path for path in (node.configuration, node.plugins, *tls.newest(node)) if path.exists()]
    newest = max((int(path.stat().st_mtime) for path in read), default=0)
    right = _is("active", BROKER_UNIT) and _is("enabled", BROKER_UNIT) and newest <= _started(BROKER_UNIT)
    if not right and not dry:
        _run("systemctl", "enable", BROKER_UNIT)
        _run("systemctl", "restart", BROKER_UNIT)
    return right_or_due(f"{BROKER_UNIT} runs with these files", right=right)


def _units(*, dry: bool) -> Iterator[Step]:
    """Has systemd hold the hub's ports from now on, and start the hub at each boot."""
    service, holder = UNITS
    for unit in UNITS:
        if not _run("systemctl", "show", "--value", "--property=FragmentPath", unit).strip():
            raise SetupFailed(f"systemd has no unit {unit}; install the package (docs/install.md), which has it")
    right = all(_is("enabled", unit) for unit in UNITS)
    if not right and not dry:
        _run("systemctl", "enable", *UNITS)
    yield right_or_due(f"{service} starts at each boot", right=right)
    right = _is("active", holder)
    if not right and not dry:
        try:
            _run("systemctl", "start", holder)
        except SetupFailed as e:
            raise SetupFailed(f"{e}; if somebody has the port: ss -ltnp 'sport = :5000' says who") from None
    yield right_or_due(f"{holder} holds the port of the hub", right=right)


def _is(state: str, unit: str) -> bool:
    try:
        return subprocess.run(["systemctl", "--quiet", f"is-{state}", unit], check=False).returncode == 0
    except OSError as e:
        raise SetupFailed(f"systemctl: {e.strerror}; the hub is set up for systemd") from None


def _started(unit: str) -> int:
    """Returns when the unit's process was started, in seconds since the epoch."""
    said = _run("systemctl", "show", "--timestamp=unix", "--value", "--property=ExecMainStartTimestamp", unit).strip()
    return int(said[1:]) if said.startswith("@") else 0


def _run(program: str, *arguments: str) -> str:
    try:
        done = subprocess.run(
            [program, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, cwd="/"
        )
    except OSError as e:
        raise SetupFailed(f"{program}: {e.strerror}") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise SetupFailed(f"{program} {' '.join(arguments)} failed (exit status {done.returncode}): {said}")
    return done.stdout
