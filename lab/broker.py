"""A private RabbitMQ node: own name, own ports, own folder, loopback only; gone without a trace afterwards.

    with PrivateBroker(folder, hub_port=5000) as broker:
        ...  broker.url

It comes up as its package makes it and is set up as `mep-hub setup` does, with the code of that. Besides the one
internal user of `url`, accounts are the hub's business: the node asks the hub at `hub_port` about them (docs/hub.md).
The node runs as whoever calls, also as root: the files are then root's as well, nothing listens beyond loopback, and a
lab needs no account of its own. Its files are `lab.rabbitmq`'s.

The node's processes carry the folder in their environment; by that mark `stop` verifies that none is left.
"""

from __future__ import annotations

import logging
import subprocess
from pathlib import Path
from typing import IO

import pika
from pika.exceptions import AMQPError

from hub.setup.rabbitmq import GUEST, VHOST, Node
from hub.setup.steps import SetupFailed
from lab.ports import free_ports, is_free
from lab.process import Running, kill_if
from lab.rabbitmq import MARK, PROGRAMS, NodeSettings
from lab.waiting import until

PROGRAM = PROGRAMS / "rabbitmq-server"
"""The node itself."""

START_TIMEOUT = 60.0
"""Seconds for the node to accept a login; it takes about 4."""
STOP_TIMEOUT = 20.0
"""Seconds for the node to end after SIGTERM; it takes about 1."""
LEFT_OVER_TIMEOUT = 5.0
"""Seconds for its helpers to end by themselves when the node has ended."""

logging.getLogger("pika").setLevel(logging.CRITICAL)


class BrokerFailed(Exception):
    """The private broker could not be started or stopped; the text says why, with the end of its log."""


class PrivateBroker(Running):
    """`start`, `stop`, `restart`, `kill`; a context manager starts and stops. Ports and password stay the same."""

    def __init__(
        self,
        folder: Path,
        hub_port: int = 5000,
        port: int | None = None,
        certificate: Path | None = None,
        *,
        as_it_comes: bool = False,
    ) -> None:
        """`folder` is made when it is not there. `port` is the AMQP port; a free one when not given. With
        `certificate`, a file with certificate and key for localhost, there is TLS on `tls_port` as well. `as_it_comes`
        is nothing set up for a hub: the only user is RabbitMQ's own `guest`."""
        self.folder = folder.absolute()
        self.hub_port = hub_port
        free, self.tls_port, distribution_port, epmd_port = free_ports(4)
        self.port = port or free
        self._settings = NodeSettings(
            self.folder, hub_port, self.port, self.tls_port, distribution_port, epmd_port, certificate, as_it_comes
        )
        self._node: subprocess.Popen[bytes] | None = None
        self._epmd: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL of the internal user, who may do everything, of a node that has been started. Holds the password."""
        if self._settings.url_file.exists():
            return self._settings.url_file.read_text().strip()
        return f"amqp://{GUEST}:{GUEST}@127.0.0.1:{self.port}/%2F"

    @property
    def tls_url(self) -> str:
        """The same over TLS, by the name that the certificate is for."""
        return self.url.replace("amqp:", "amqps:").replace(f"127.0.0.1:{self.port}", f"localhost:{self.tls_port}")

    @property
    def has_tls(self) -> bool:
        """Whether other hosts can reach it, on `tls_port`."""
        return self._settings.certificate is not None

    @property
    def node(self) -> Node:
        """The node as `hub.setup.rabbitmq` knows it."""
        return self._settings.node

    @property
    def vhost(self) -> str:
        """The virtual host of the hub's user; rabbitmqctl means another when none is named."""
        return VHOST

    @property
    def log(self) -> Path:
        """What the node says about itself."""
        return self.folder / "broker.log"

    def start(self) -> None:
        """Starts the node and waits until one can log in.

        Raises:
            BrokerFailed: RabbitMQ is not installed, a port is taken, or the node ended or did not come up.
        """
        if not PROGRAM.exists():
            raise BrokerFailed(
                f"{PROGRAM} is missing: install the package rabbitmq-server (Debian: apt-get install rabbitmq-server;"
                " Enterprise Linux has it in the RabbitMQ team's own repository, with erlang)"
            )
        if not is_free(self.port):
            raise BrokerFailed(f"port {self.port} of 127.0.0.1, for AMQP, is taken")
        fresh = not self._settings.url_file.exists()
        self._settings.write()
        self.log.touch(mode=0o600)
        with self.log.open("ab") as log:
            if self._epmd is None:
                self._epmd = self._spawn(["epmd", "-port", str(self._settings.epmd_port), "-address", "127.0.0.1"], log)
            self._node = self._spawn([str(PROGRAM)], log)
        try:
            self._wait_for_login()
            if fresh and not self._settings.as_it_comes:
                self._set_up()
        except BaseException:
            self.kill()
            self.stop()
            raise

    def stop(self) -> None:
        """Ends the node and its name server, and verifies that no process of it is left. Harmless when stopped.

        Raises:
            BrokerFailed: something did not end even when killed.
        """
        self._stop_node()
        if self._epmd is not None:
            self._epmd.terminate()
            self._epmd.wait()
            self._epmd = None
        self._kill_left_over()

    def restart(self) -> None:
        """Ends the node in good order and starts it again, with all that is durable in it."""
        self._stop_node()
        self.start()

    def kill(self) -> None:
        """Ends the node as a crash would; `start` brings it back with what it had on disk."""

        def none_left() -> bool:
            left = [pid for pid in self._processes() if self._epmd is None or pid != self._epmd.pid]
            for pid in left:
                kill_if(pid, self._is_ours)
            if self._node is not None:
                self._node.wait()
                self._node = None
            return not left

        until(none_left, "the killed node to end", failed=BrokerFailed)
        # The pid may be gone while the kernel still takes the threads and their sockets down.
        until(lambda: is_free(self.port), "its port to be free", failed=BrokerFailed)

    def pids(self) -> list[int]:
        """The processes of the node and of its helpers."""
        return self._processes()

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which RabbitMQ's programs find this node."""
        return self._settings.environment()

    def ctl(self, *arguments: str) -> str:
        """Runs rabbitmqctl on the node, which takes seconds; what it said. Raises BrokerFailed."""
        done = subprocess.run(
            [PROGRAM.with_name("rabbitmqctl"), *arguments],
            env=self._settings.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise BrokerFailed(f"rabbitmqctl {arguments[0]}: {done.stderr}")
        return done.stdout

    def _set_up(self) -> None:
        try:
            self._settings.set_up()
        except SetupFailed as e:
            raise BrokerFailed(f"{e}: {self._log_end()}") from None

    def _stop_node(self) -> None:
        if self._node is None:
            return
        self._node.terminate()  # the shell script around the node passes it on
        try:
            self._node.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()
        self._node = None

    def _spawn(self, argv: list[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            argv,
            env=self._settings.environment(),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for us: we end the node in good order
            umask=0o077,
        )

    def _wait_for_login(self) -> None:
        def accepts() -> bool:
            assert self._node is not None
            if self._node.poll() is not None:
                raise BrokerFailed(f"RabbitMQ ended at its start; the end of {self.log}:\n{self._log_end()}")
            return _accepts(self.url)

        def failed(text: str) -> BrokerFailed:
            return BrokerFailed(f"{text}; {self.log}:\n{self._log_end()}")

        until(accepts, "RabbitMQ to accept a login", START_TIMEOUT, failed=failed)

    def _log_end(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])

    def _kill_left_over(self) -> None:
        try:
            until(lambda: not self._processes(), "all processes to end", LEFT_OVER_TIMEOUT)
        except AssertionError:
            for pid in self._processes():
                kill_if(pid, self._is_ours)
            until(lambda: not self._processes(), f"the killed processes of {self.folder} to end", failed=BrokerFailed)

    def _processes(self) -> list[int]:
        """The pids of all that carries our mark."""
        return [pid for folder in Path("/proc").glob("[0-9]*") if self._is_ours(pid := int(folder.name))]

    def _is_ours(self, pid: int) -> bool:
        """Whether the process carries our mark; one that has ended has no environment any more."""
        return f"{MARK}={self.folder}".encode() in _read(Path(f"/proc/{pid}/environ")).split(b"\0")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # gone, or not ours
        return b""


def _accepts(url: str) -> bool:
    try:
        pika.BlockingConnection(pika.URLParameters(url)).close()
    except (AMQPError, OSError):
        return False
    return True
