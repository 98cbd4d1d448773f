"""RabbitMQ, from as its package makes it to as the hub needs it: `mep-hub setup`, and the lab's private brokers.

A new RabbitMQ has an administrator `guest` with password `guest` for everybody on its host. The hub has a user and a
virtual host of its own instead, in which queues of tasks that nobody fetches expire, and connections and queues are
limited. First the files that RabbitMQ reads when it starts (`configure`), then what it is told when it runs (`set_up`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import re
import secrets
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from hub.amqp import topology
from hub.config import QUESTIONS_PORT
from hub.setup import files
from hub.setup.steps import Found, SetupFailed, Step, right_or_due

USER = "hub"
VHOST = "mep"
GUEST = "guest"
"""Name and password of the account that a new RabbitMQ has."""

PLUGIN = "rabbitmq_auth_backend_http"
"""By which it asks the hub."""

MOST_CONNECTIONS = 10_000
MOST_QUEUES = 100_000
"""For all endpoints and clients together: RabbitMQ must not run out of memory or descriptors."""
MOST_CHANNELS = 64
"""Of one connection."""
MOST_BYTES = 16 << 20
"""Of one message: more than the largest task that the hub takes."""
MOST_TASK_BYTES = 2 << 30
"""That wait in the queue of one user endpoint; the hub refuses more submissions to it meanwhile."""
MOST_RESULT_BYTES = 256 << 20
"""That wait in one queue of a client who does not read it; more stays in the hub's database meanwhile."""
TASK_TIME = 7 * 86400
"""Seconds that an endpoint may hold a task unacknowledged while it runs."""


@dataclass(frozen=True, slots=True)
class Node:
    """A RabbitMQ on this host: where it listens, its folder, its programs, and the environment that these need."""

    host: str = "127.0.0.1"
    port: int = 5672
    folder: Path = Path("/etc/rabbitmq")
    programs: Path = Path("/usr/sbin")
    environment: Mapping[str, str] | None = None

    @property
    def configuration(self) -> Path:
        """Returns our part of its configuration."""
        return self.folder / "conf.d" / "50-mep-hub.conf"

    @property
    def plugins(self) -> Path:
        """Returns its list of enabled plugins."""
        return self.folder / "enabled_plugins"

    def run(self, program: str, *arguments: str, given: str = "") -> str:
        """Runs one of its programs; secrets are `given` on standard input.

        Raises:
            SetupFailed: it is not there, or says no.
        """
        path = self.programs / program
        try:
            done = subprocess.run(
                [path, "-q", *arguments],
                input=given,
                env=self.environment,
                cwd="/",
                capture_output=True,
                text=True,
                check=False,
            )
        except OSError as e:
            raise SetupFailed(f"{path}: {e.strerror}; is the package rabbitmq-server installed?") from None
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip()
            raise SetupFailed(f"{program} {arguments[0]} failed (exit status {done.returncode}): {said}")
        return done.stdout


def configure(node: Node, *, questions: int = QUESTIONS_PORT, dry: bool = False) -> list[Step]:
    """Writes what RabbitMQ reads when it starts; `questions` is the hub's port for its questions.

    Raises:
        SetupFailed: a file cannot be read or written, or the plugin is not there.
    """
    try:
        if not dry:
            node.configuration.parent.mkdir(mode=0o755, exist_ok=True)
        enabled = node.plugins.read_text(encoding="utf-8") if node.plugins.exists() else ""
    except (OSError, UnicodeDecodeError) as e:
        raise SetupFailed(f"{node.folder}: {type(e).__name__}; is the package rabbitmq-server installed?") from None
    ours = files.put(node.configuration, configuration(node.port, questions), dry=dry)
    right = PLUGIN in re.findall(r"\w+", enabled)
    if not right and not dry:
        node.run("rabbitmq-plugins", "enable", "--offline", PLUGIN)
    return [ours, right_or_due(f"RabbitMQ's plugin {PLUGIN}", right=right)]


def configuration(port: int, questions: int) -> str:
    """Makes our part of RabbitMQ's configuration; it wins over rabbitmq.conf, and a later file there over it."""
    asked = "".join(
        f"auth_http.{question}_path = http://127.0.0.1:{questions}/broker/{question}\n"
        for question in ("user", "vhost", "resource", "topic")
    )
    return (
        f"listeners.tcp.default = 127.0.0.1:{port}\n"
        "auth_backends.1 = internal\n"
        "auth_backends.2 = http\n"
        "auth_http.http_method = post\n"
        f"{asked}"
        f"consumer_timeout = {TASK_TIME * 1000}\n"
        f"max_message_size = {MOST_BYTES}\n"
        f"channel_max = {MOST_CHANNELS}\n"
    )


def set_up(node: Node, url_file: Path, uid: int, gid: int, *, dry: bool = False) -> list[Step]:
    """Makes the hub's user and virtual host, writes its URL to `url_file` for that account alone, removes `guest`.

    A password that is in the file is kept.

    Raises:
        SetupFailed: the file cannot be written, or RabbitMQ says no.
    """
    known = _password_in(url_file)
    password = known or secrets.token_urlsafe(32)
    there = json.loads(node.run("rabbitmqctl", "export_definitions", "-"))
    wanted = definitions(password)
    user = next((entry for entry in there["users"] if entry["name"] == USER), None)
    # Each is imported alone or not at all: what is there and right, or another's doing, stays as it is.
    due: dict[str, Any] = {}
    steps = [
        _user(user, password),
        right_or_due(f"RabbitMQ's virtual host {VHOST!r}", right=VHOST in {entry["name"] for entry in there["vhosts"]}),
        right_or_due(f"its rights in {VHOST!r}", right=wanted["permissions"][0] in there["permissions"]),
        _kept(
            "limits of connections and queues",
            wanted["parameters"][0],
            there["parameters"],
            f"rabbitmqctl clear_vhost_limits -p {VHOST}",
        ),
    ]
    for key, step in zip(("users", "vhosts", "permissions", "parameters"), steps, strict=True):
        if step.found is Found.DUE:
            due[key] = wanted[key]
    ours = [entry for entry in there["policies"] if entry["definition"] != _OLDER]
    for policy in wanted["policies"]:
        clear = f"rabbitmqctl clear_policy -p {VHOST} {policy['name']}"
        steps.append(_kept(f"policy {policy['name']!r}", policy, ours, clear))
        if steps[-1].found is Found.DUE:
            due.setdefault("policies", []).append(policy)
    if not dry:
        if known is None:
            host = f"[{node.host}]" if ":" in node.host else node.host
            url = f"amqp://{USER}:{password}@{host}:{node.port}/{quote(VHOST, safe='')}"
            files.write(url_file, f"{url}\n", 0o600, uid, gid)
        if due:
            node.run("rabbitmqctl", "import_definitions", given=json.dumps(due))
    guest = GUEST in {entry["name"] for entry in there["users"]}
    if guest and not dry:
        node.run("rabbitmqctl", "delete_user", GUEST)
    return [
        right_or_due(f"{url_file}, RabbitMQ's URL with the hub's password", right=known is not None),
        *steps,
        right_or_due(f"no user {GUEST!r} in RabbitMQ", right=not guest),
    ]


def definitions(password: str) -> dict[str, Any]:
    """Makes what `rabbitmqctl import_definitions` reads; the password only as a hash."""
    # A queue that is full says so to the hub, and what it has is kept.
    tasks = {**_OLDER, "max-length-bytes": MOST_TASK_BYTES, "overflow": "reject-publish"}
    results = {"max-length-bytes": MOST_RESULT_BYTES, "overflow": "reject-publish"}
    limits = {"max-connections": MOST_CONNECTIONS, "max-queues": MOST_QUEUES}
    return {
        "users": [
            {
                "name": USER,
                "password_hash": _hash(os.urandom(4), password),
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                "tags": [],
            }
        ],
        "vhosts": [{"name": VHOST}],
        "permissions": [{"user": USER, "vhost": VHOST, "configure": ".*", "write": ".*", "read": ".*"}],
        "parameters": [{"vhost": VHOST, "component": "vhost-limits", "name": "limits", "value": limits}],
        "policies": [
            _policy("task-queues", topology.TASK_QUEUES, tasks),
            _policy("result-queues", topology.RESULT_QUEUES, results),
        ],
    }


_OLDER = {"expires": topology.TASK_QUEUE_LIFE * 1000}
"""What the policy of task queues was before there was a limit of bytes."""


def _policy(name: str, pattern: str, definition: Mapping[str, Any]) -> dict[str, Any]:
    more = {"apply-to": "queues", "priority": 0}
    return {"vhost": VHOST, "name": name, "pattern": pattern, "definition": definition, **more}


def _user(there: Mapping[str, Any] | None, password: str) -> Step:
    what = f"RabbitMQ's user {USER!r}"
    if there is None:
        return Step(Found.DUE, what)
    try:
        salt = base64.b64decode(there["password_hash"])[:4]
    except (binascii.Error, KeyError, TypeError):
        return Step(Found.DUE, what)
    return right_or_due(what, right=_hash(salt, password) == there["password_hash"])


def _kept(what: str, wanted: Mapping[str, Any], there: list[Mapping[str, Any]], clear: str) -> Step:
    """Looks for an entry of the same name; an admin may have good reasons for another value of it."""
    what = f"{what} in {VHOST!r}"
    same = [entry for entry in there if (entry["vhost"], entry["name"]) == (wanted["vhost"], wanted["name"])]
    same = [entry for entry in same if entry.get("component") == wanted.get("component")]
    if same and any(same[0].get(key) != value for key, value in wanted.items()):
        return Step(Found.EDITED, what, f"it was changed, so it is left alone; for ours: {clear}, then mep-hub setup")
    return right_or_due(what, right=bool(same))


def _hash(salt: bytes, password: str) -> str:
    """Hashes as RabbitMQ does: four bytes of salt, then SHA-256 of both."""
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def _password_in(url_file: Path) -> str | None:
    try:
        password = urlsplit(url_file.read_text(encoding="utf-8").strip()).password
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as e:
        raise SetupFailed(f"{url_file}: {type(e).__name__}; remove it for a new password") from None
    if not password:
        raise SetupFailed(f"{url_file}: has no URL with a password; remove it for a new one")
    return password
