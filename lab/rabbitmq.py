"""How a private RabbitMQ node is set up: its ports, its password, its files and its environment.

Secrets are in files of mode 0600 in the node's folder, never in argv or in an environment.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from hub.setup.rabbitmq import Node, configure, set_up
from hub.setup.tls import configuration
from lab.files import write_private

PROGRAMS = Path("/usr/lib/rabbitmq/bin")
"""RabbitMQ's own programs. Those of these names in PATH change to the account `rabbitmq` and to the site's folders."""

MARK = "LAB_BROKER"
"""The variable by which the processes of a node are known; it has the node's folder."""

_ERLANG = (
    "-kernel inet_dist_use_interface {127,0,0,1}"  # the distribution port listens on all addresses otherwise
    " +S 1:1 +SDcpu 1:1 +SDio 2"  # one scheduler: starts sooner, leaves the other cores to what is tested
)


@dataclass(frozen=True)
class NodeSettings:
    """Of one node. With `certificate`, a file with certificate and key for localhost, there is TLS on `tls_port`.

    It comes up with the account `guest` of a new RabbitMQ and is set up as `mep-hub setup` does; or not at all,
    `as_it_comes`.
    """

    folder: Path
    hub_port: int
    port: int
    tls_port: int
    distribution_port: int
    epmd_port: int
    certificate: Path | None
    as_it_comes: bool = False

    @property
    def url_file(self) -> Path:
        """Where the URL of the hub's user is, once that is set up."""
        return self.folder / "broker.url"

    @property
    def node(self) -> Node:
        """The node as setting up knows it."""
        return Node("127.0.0.1", self.port, self.folder, PROGRAMS, self.environment())

    def environment(self) -> dict[str, str]:
        """The variables that every program of the node is run with; no secret is in them."""
        folder = str(self.folder)
        return {
            MARK: folder,
            "HOME": folder,  # where Erlang looks for its cookie
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "RABBITMQ_NODENAME": "lab@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self.distribution_port),
            "RABBITMQ_MNESIA_BASE": f"{folder}/data",
            "RABBITMQ_LOGS": "-",  # to standard output, our broker.log
            "RABBITMQ_LOG_BASE": folder,
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
            "RABBITMQ_CONFIG_FILES": f"{folder}/conf.d/*.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled_plugins",
            "RABBITMQ_CONF_ENV_FILE": f"{folder}/none",  # not the site's
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": _ERLANG,
            "ERL_EPMD_PORT": str(self.epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }

    def write(self) -> None:
        """Makes the folder with the files that the node reads; the cookie of its cluster stays the same."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        tls = ""
        if self.certificate is not None:
            tls = configuration(self.certificate, self.certificate, port=self.tls_port, host="127.0.0.1")
        write_private(self.folder / "rabbitmq.conf", tls)
        if not self.node.plugins.exists():
            write_private(self.node.plugins, "[].\n")
        cookie = self.folder / ".erlang.cookie"
        if not cookie.exists():
            write_private(cookie, secrets.token_hex(32))
        (self.folder / "conf.d").mkdir(mode=0o700, exist_ok=True)
        if not self.as_it_comes:
            configure(self.node, questions=self.hub_port)
            self.node.plugins.chmod(0o600)

    def set_up(self) -> None:
        """Has the running node the hub's user and virtual host, and no `guest`."""
        set_up(self.node, self.url_file, os.geteuid(), os.getegid())
