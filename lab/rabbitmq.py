"""How a private RabbitMQ node is set up: its ports, its password, its files and its environment.

Secrets are in files of mode 0600 in the node's folder, never in argv or in an environment.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from hub.amqp.setup import definitions
from lab.files import write_private

MARK = "LAB_BROKER"
"""The variable by which the processes of a node are known; it has the node's folder."""

_ERLANG = (
    "-kernel inet_dist_use_interface {127,0,0,1}"  # the distribution port listens on all addresses otherwise
    " +S 1:1 +SDcpu 1:1 +SDio 2"  # one scheduler: starts sooner, leaves the other cores to what is tested
)


@dataclass(frozen=True)
class NodeSettings:
    """Of one node. With `certificate`, a file with certificate and key for localhost, there is TLS on `tls_port`.

    It is set up as `mep-hub broker-setup` does, with one virtual host less; or not at all, `as_it_comes`, with the
    account `guest` of a new RabbitMQ.
    """

    folder: Path
    hub_port: int
    port: int
    tls_port: int
    distribution_port: int
    epmd_port: int
    certificate: Path | None
    as_it_comes: bool = False
    password: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)

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
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled_plugins",
            "RABBITMQ_CONF_ENV_FILE": f"{folder}/none",  # not the site's
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": _ERLANG,
            "ERL_EPMD_PORT": str(self.epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }

    def write(self) -> None:
        """Makes the folder with the files that the node reads; the cookie of its cluster stays the same."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        paths = "".join(
            f"auth_http.{question}_path = http://127.0.0.1:{self.hub_port}/broker/{question}\n"
            for question in ("user", "vhost", "resource", "topic")
        )
        tls = ""
        if self.certificate is not None:
            tls = (
                f"listeners.ssl.default = 127.0.0.1:{self.tls_port}\n"
                f"ssl_options.certfile = {self.certificate}\nssl_options.keyfile = {self.certificate}\n"
                "ssl_options.verify = verify_none\n"  # of clients: they have passwords
            )
        write_private(
            self.folder / "rabbitmq.conf",
            ("" if self.as_it_comes else f"load_definitions = {self.folder}/definitions.json\n")
            + "auth_backends.1 = internal\nauth_backends.2 = http\nauth_http.http_method = post\n"
            f"{paths}{tls}"
            "consumer_timeout = 604800000\n",  # a week: an endpoint may hold a task unacked while it runs
        )
        write_private(self.folder / "definitions.json", json.dumps(definitions(self.password, "/")))
        write_private(self.folder / "enabled_plugins", "[rabbitmq_auth_backend_http].\n")
        cookie = self.folder / ".erlang.cookie"
        if not cookie.exists():
            write_private(cookie, secrets.token_hex(32))
