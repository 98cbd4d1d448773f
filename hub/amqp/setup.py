"""How RabbitMQ is set up for the hub: `mep-hub broker-setup`, and the lab's private brokers.

A new RabbitMQ has an administrator `guest` with password `guest` for everybody on its host. The hub has a user and a
virtual host of its own instead, in which queues of tasks that nobody fetches expire, and connections and queues are
limited. Nothing is changed that is right already.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from hub.amqp import topology

USER = "hub"
VHOST = "mep"
GUEST = "guest"
"""Name and password of the account that a new RabbitMQ has."""

MOST_CONNECTIONS = 10_000
MOST_QUEUES = 100_000
"""For all endpoints and clients together: RabbitMQ must not run out of memory or descriptors."""


class SetupFailed(Exception):
    """RabbitMQ could not be set up; the text says what it said."""


def definitions(password: str, vhost: str = VHOST, user: str = USER) -> dict[str, Any]:
    """Makes what `rabbitmqctl import_definitions` and `load_definitions` read; the password only as a hash."""
    expires = {"expires": topology.TASK_QUEUE_LIFE * 1000}
    limits = {"max-connections": MOST_CONNECTIONS, "max-queues": MOST_QUEUES}
    return {
        "users": [
            {
                "name": user,
                "password_hash": _hash(password),
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                "tags": [],
            }
        ],
        "vhosts": [{"name": vhost}],
        "permissions": [{"user": user, "vhost": vhost, "configure": ".*", "write": ".*", "read": ".*"}],
        "parameters": [{"vhost": vhost, "component": "vhost-limits", "name": "limits", "value": limits}],
        "policies": [
            {
                "vhost": vhost,
                "name": "task-queues",
                "pattern": topology.TASK_QUEUES,
                "apply-to": "queues",
                "definition": expires,
                "priority": 0,
            }
        ],
    }


def set_up(url_file: Path, uid: int, gid: int, host: str, port: int, rabbitmqctl: str) -> None:
    """Makes the hub's user and virtual host, writes its URL to `url_file` for that account alone, removes `guest`.

    A password that is in the file is kept.

    Raises:
        SetupFailed: the file cannot be written, or rabbitmqctl fails.
    """
    password = _password_in(url_file) or secrets.token_urlsafe(32)
    url = f"amqp://{USER}:{password}@{f'[{host}]' if ':' in host else host}:{port}/{quote(VHOST, safe='')}"
    _write_private(url_file, f"{url}\n", uid, gid)
    _ctl(rabbitmqctl, "import_definitions", given=json.dumps(definitions(password)))
    users = json.loads(_ctl(rabbitmqctl, "list_users", "--formatter", "json"))
    if GUEST in {entry.get("user") for entry in users}:
        _ctl(rabbitmqctl, "delete_user", GUEST)


def _hash(password: str) -> str:
    """Hashes as RabbitMQ does: four bytes of salt, then SHA-256 of both."""
    salt = os.urandom(4)
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def _password_in(url_file: Path) -> str | None:
    try:
        return urlsplit(url_file.read_text().strip()).password
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as e:
        raise SetupFailed(f"{url_file}: {type(e).__name__}; remove it for a new password") from None


def _write_private(path: Path, text: str, uid: int, gid: int) -> None:
    """Writes the whole file or nothing, readable by its owner only from the first moment on."""
    new = path.with_name(f".{path.name}.new")
    try:
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            os.fchown(descriptor, uid, gid)
        new.rename(path)
    except OSError as e:
        raise SetupFailed(f"{path}: {e.strerror}") from None


def _ctl(program: str, *arguments: str, given: str = "") -> str:
    """Runs rabbitmqctl; secrets are given on its standard input."""
    try:
        done = subprocess.run(
            [program, "-q", *arguments], input=given, capture_output=True, text=True, check=False, cwd="/"
        )
    except OSError as e:
        raise SetupFailed(f"{program}: {e.strerror}") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise SetupFailed(f"{program} {arguments[0]} failed (exit status {done.returncode}): {said}")
    return done.stdout
