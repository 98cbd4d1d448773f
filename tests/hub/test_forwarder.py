"""`mep-hub forward`: clients of another host reach the hub by TLS, and who hangs there holds up nobody else.

The other host is a network of its own, in which forwarder and clients run; a proxy is its way to the hub's.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hub.forwarder import MOST_OF_ONE_ACCOUNT
from lab.accounts import LocalAccount
from lab.broker import PROGRAM, PrivateBroker
from lab.certificates import Authority
from lab.client import run_script
from lab.hub import HubProcess
from lab.loopback import enter_private_network
from lab.proxy import Proxy
from lab.waiting import until
from tests.conftest import need
from tests.hub.peer import PeerManager, UserEndpoint

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
PORT = 5000
SDK = """
import json
from globus_compute_sdk import Client
def double(x):
    return 2 * x
client = Client()
function = client.register_function(double)
endpoint = client.register_endpoint("e", None, {}, multi_user=True, public=True)["endpoint_id"]
batch = client.create_batch()
batch.add(function, args=(21,))
(tasks,) = client.batch_run(endpoint, batch)["tasks"].values()
print(json.dumps([client.get_function(function)["function_name"], client.get_task(tasks[0])["pending"]]))
"""
REGISTER = """
import json
from globus_compute_sdk import Client
print(json.dumps(Client().register_endpoint("e", None, {}, multi_user=True, public=True)))
"""
EXECUTOR = """
import json, os, sys
os.environ["SSL_CERT_FILE"] = sys.argv[2]
from globus_compute_sdk import Executor
def double(x):
    return 2 * x
with Executor(endpoint_id=sys.argv[1]) as executor:
    print(json.dumps([each.result(60) for each in [executor.submit(double, n) for n in (1, 21)]]))
"""
HANG = """
import select, socket, sys, time
opened = [socket.create_connection(("localhost", 5000)) for _ in range(int(sys.argv[1]))]
refused = set()
until = time.monotonic() + 60
while len(refused) < int(sys.argv[2]) and time.monotonic() < until:
    for each in select.select([s for s in opened if s not in refused], [], [], 1)[0]:
        assert each.recv(20)[:13] in (b"HTTP/1.1 429 ", b"")
        refused.add(each)
print(len(refused), flush=True)
time.sleep(600)
"""


class OtherHost(ThreadPoolExecutor):
    """What is submitted runs in a network of its own, and with it what it starts."""

    def __init__(self) -> None:
        super().__init__(1)
        assert self.submit(enter_private_network).result()
        self.listening = [
            self.submit(socket.create_server, (address, PORT), family=family).result()
            for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
        ]

    def __exit__(self, *_: object) -> None:
        for each in self.listening:
            each.close()
        self.shutdown()

    def ask(self, address="localhost"):
        """Status and body of a call that needs no login."""

        def call():
            try:
                with urllib.request.urlopen(f"http://{address}:{PORT}/v2/version", timeout=60) as answer:
                    return answer.status, answer.read()
            except urllib.error.HTTPError as e:
                with e:
                    return e.code, e.read()

        return self.submit(call)


@pytest.fixture
def other_host(root):
    with OtherHost() as host:
        yield host


@pytest.fixture(scope="module")
def authority(folder):
    made = Authority("a site's CA")
    made.write(folder / "forward-ca.pem")
    return made


@pytest.fixture(scope="module")
def secure_broker(folder, authority):
    """A RabbitMQ with TLS."""
    need(PROGRAM.exists(), "needs the package rabbitmq-server")
    authority.issue("localhost").write(folder / "hub.pem")
    with PrivateBroker(folder / "secure-broker", certificate=folder / "hub.pem") as running:
        yield running


@pytest.fixture(scope="module")
def secure(folder, secure_broker, hub):
    """A hub with TLS, in the place of the one of other tests."""
    hub.stop()
    try:
        with HubProcess(
            folder / "secure-hub", secure_broker, ["alice", "admin"], certificate=folder / "hub.pem"
        ) as running:
            yield running
    finally:
        hub.start()


@contextlib.contextmanager
def forwarder(host, port, ca, log):
    """As systemd starts it, with the other host's port; the hub is at this port of ours."""
    with host.submit(Proxy, port).result() as way, log.open("wb") as said:
        numbers = [each.fileno() for each in host.listening]
        moved = " ".join(f"{3 + at}<&{number}" for at, number in enumerate(numbers))
        command = f"exec {moved}; LISTEN_FDS={len(numbers)} LISTEN_PID=$$ exec {sys.executable} -m hub forward"
        process = host.submit(
            subprocess.Popen,
            ["/bin/bash", "-c", command],
            cwd=ROOT,
            env={"PATH": "/usr/bin:/bin", "MEP_HUB": f"localhost:{way.port}", "MEP_HUB_CA": str(ca)},
            pass_fds=numbers,
            stderr=said,
        ).result()
        try:
            until(lambda: "Ready" in log.read_text() or process.poll() is not None, "the forwarder")
            yield
        finally:
            process.terminate()
            assert process.wait(30) == 0, log.read_text()


@pytest.fixture
def forwarding(other_host, secure, folder, tmp_path):
    with forwarder(other_host, secure.tls_port, folder / "forward-ca.pem", tmp_path / "log"):
        yield other_host


def test_the_public_client_through_it(forwarding, secure):
    (said,) = forwarding.submit(run_script, secure, "alice", SDK).result()
    assert said == ["double", True]
    for address in ("127.0.0.1", "[::1]"):
        assert forwarding.ask(address).result()[0] == 200


def test_results_of_an_executor_of_another_host(forwarding, secure, secure_broker, folder, monkeypatch):
    """Submitted through the forwarder; the results come from RabbitMQ over TLS. No port there is without it."""
    ca = str(folder / "forward-ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", ca)
    admin = run_script(secure, "admin", REGISTER)[0]
    manager = PeerManager(admin)
    with forwarding.submit(Proxy, secure_broker.tls_port, secure_broker.tls_port).result() as way:
        asked = forwarding.submit(run_script, secure, "alice", EXECUTOR, manager.id, ca)
        endpoint = UserEndpoint(manager.next_command(60)[1])
        for _ in range(2):
            endpoint.run(endpoint.take(60)[1])
        assert asked.result() == [[2, 42]]
        assert way.connections > 0
    assert manager.registered["command_queue_info"]["connection_url"].startswith("amqps://")
    endpoint.close()
    manager.close()


def test_who_asks_while_the_hub_restarts_waits(forwarding, secure):
    secure.stop()
    asked = forwarding.ask()
    secure.start()
    assert asked.result()[0] == 200


def test_who_hangs_holds_up_nobody_else(forwarding):
    more = 400
    with LocalAccount("meptest_forward") as eve:
        hanging = forwarding.submit(
            subprocess.Popen,
            [sys.executable, "-c", HANG, str(MOST_OF_ONE_ACCOUNT + more), str(more)],
            user=eve.uid,
            group=eve.gid,
            extra_groups=[],
            stdout=subprocess.PIPE,
            text=True,
        ).result()
        try:
            assert hanging.stdout.readline() == f"{more}\n"
            assert forwarding.ask().result()[0] == 200
        finally:
            hanging.kill()
            hanging.communicate()


@pytest.mark.parametrize("wrong", ["name", "authority"])
def test_nothing_is_said_to_who_does_not_prove_the_name(other_host, folder, tmp_path, authority, wrong):
    issuer = Authority("another CA") if wrong == "authority" else authority
    issuer.issue("localhost" if wrong == "authority" else "elsewhere.example").write(tmp_path / "pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "pem")

    def take(listening):
        peer, _ = listening.accept()
        with contextlib.suppress(OSError), context.wrap_socket(peer, server_side=True) as said:
            return said.recv(100)
        return b""

    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as pool:
        taken = pool.submit(take, listening)
        with forwarder(other_host, listening.getsockname()[1], folder / "forward-ca.pem", tmp_path / "log"):
            status, body = other_host.ask().result()
        assert taken.result() == b""
    assert (status, b"certificate" in body and b"is refused" in body) == (503, True)
    assert "is refused" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("environment", "code", "said"),
    [
        ({"MEP_HUB": "hub.example.org"}, os.EX_CONFIG, "expected HOST:PORT"),
        ({"MEP_HUB": "hub:1", "MEP_HUB_CA": "/no/such.pem"}, os.EX_CONFIG, "/no/such.pem: No such file"),
        ({"MEP_HUB": "hub:1", "MEP_HUB_CA": __file__}, os.EX_CONFIG, "MEP_HUB_CA"),
        ({"MEP_HUB": "hub:1"}, os.EX_UNAVAILABLE, "systemctl start mep-hub-forward.socket"),
    ],
)
def test_wrong_settings(environment, code, said):
    done = subprocess.run(
        [sys.executable, "-m", "hub", "forward"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
