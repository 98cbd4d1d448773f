"""Start and stop of the hub's own process: clear words and exit codes, nothing half made, tokens in no log."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from globus_sdk import GlobusAPIError

from hub.server import GRACE, _bind, _has_ipv6
from lab.accounts import LocalAccount
from lab.broker import BrokerFailed, PrivateBroker
from lab.certificates import Authority
from lab.hub import HubFailed, HubProcess
from lab.waiting import until
from tests.strangers import Listener

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]


@pytest.fixture
def write(tmp_path):
    """hub.yaml for the given broker URL and port."""

    def write(url, port):
        identity = HubProcess(tmp_path / "unused", PrivateBroker(tmp_path / "unused"), ["a"]).users["a"].identities[0]
        client = {"client_id": identity["id"], "client_secret": "s3cret", "identity": dict(identity)}
        path = tmp_path / "hub.yaml"
        path.write_text(
            yaml.safe_dump(
                {
                    "listen": f"127.0.0.1:{port}",
                    "questions_port": port,
                    "database": str(tmp_path / "hub.db"),
                    "broker": {"url": url},
                    "clients": [client],
                }
            )
        )
        path.chmod(0o600)
        return path

    return write


def serve(path):
    return subprocess.run(
        [sys.executable, "-m", "hub", "serve", "--config", path], cwd=ROOT, capture_output=True, text=True, timeout=30
    )


@pytest.fixture
def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


def test_wrong_config(tmp_path):
    done = serve(tmp_path / "none.yaml")
    assert done.returncode == os.EX_CONFIG
    assert "No such file" in done.stderr


def test_no_broker(write, free_port, tmp_path):
    done = serve(write("amqp://hub:s3cret@127.0.0.1:1/%2F", free_port))
    assert done.returncode == os.EX_UNAVAILABLE
    assert done.stderr.startswith("mep-hub: broker.url: cannot connect")
    assert "s3cret" not in done.stderr
    assert not (tmp_path / "hub.db").exists()


def test_wrong_broker_password(write, free_port, broker, hub):
    done = serve(write(f"amqp://hub:s3cret@127.0.0.1:{broker.port}/%2F", free_port))
    assert done.returncode == os.EX_UNAVAILABLE
    assert "refuses this user and password" in done.stderr


def test_a_stranger_on_the_port_of_the_broker_is_told_no_password(root, write, free_port):
    """It is an ordinary account's while the broker is down."""
    with LocalAccount("meptest_hubbroker") as eve:
        listener = Listener("127.0.0.1", eve.uid)
        done = serve(write(f"amqp://hub:s3cret@127.0.0.1:{listener.port}/mep", free_port))
        assert listener.heard() == []
    assert done.returncode == os.EX_UNAVAILABLE
    assert f"listened on by an ordinary account (uid {eve.uid})" in done.stderr
    assert "s3cret" not in done.stderr


def test_port_taken(write, hub, broker, tmp_path):
    done = serve(write(broker.url, hub.port))
    assert done.returncode == os.EX_UNAVAILABLE
    assert f"mep-hub: listen: 127.0.0.1:{hub.port}: Address already in use" in done.stderr
    assert not (tmp_path / "hub.db").exists()


@pytest.mark.skipif(not _has_ipv6(), reason="needs IPv6")
def test_one_address_of_loopback_taken(write, broker, hub, free_port):
    with socket.create_server(("::1", free_port), family=socket.AF_INET6):
        done = serve(write(broker.url, free_port))
    assert done.returncode == os.EX_UNAVAILABLE
    assert "Address already in use" in done.stderr


def test_answers_are_not_held_back_for_others():
    """Without TCP_NODELAY each of them takes 40 ms, and a login at the broker asks several questions."""

    async def option():
        accepted = asyncio.get_running_loop().create_future()
        listening, *others = _bind("127.0.0.1", 0)
        server = await asyncio.start_server(lambda _, writer: accepted.set_result(writer), sock=listening)
        _, writer = await asyncio.open_connection(*listening.getsockname())
        there = await accepted
        value = there.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        for other in others:
            other.close()
        for end in (writer, there, server):
            end.close()
            await end.wait_closed()
        return value

    assert asyncio.run(option())


@pytest.mark.skipif(not _has_ipv6(), reason="needs IPv6")
def test_both_addresses_of_loopback_are_listened_on():
    for name in ("localhost", "127.0.0.1", "::1"):
        listening = _bind(name, 0)
        assert {listener.getsockname()[0] for listener in listening} == {"127.0.0.1", "::1"}, (
            "whatever a name stands for"
        )
        for listener in listening:
            listener.close()


@contextlib.contextmanager
def socket_unit(config, port):
    """The hub as systemd starts it: with sockets on `port`, and told where to say that it is ready."""
    listening, folder = _bind("localhost", port), config.parent
    numbers = [listener.fileno() for listener in listening]
    moved = " ".join(f"{3 + at}<&{number}" for at, number in enumerate(numbers))
    given = (
        f"exec {moved}; LISTEN_FDS={len(numbers)} LISTEN_PID=$$ exec {sys.executable} -m hub serve --config {config}"
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told, contextlib.ExitStack() as closing:
        told.bind(str(folder / "notify"))
        told.setblocking(False)
        for listener in listening:
            closing.enter_context(listener)
        environment = {**os.environ, "NOTIFY_SOCKET": str(folder / "notify")}
        process = subprocess.Popen(
            ["/bin/bash", "-c", given], cwd=ROOT, env=environment, pass_fds=numbers, stderr=subprocess.PIPE, text=True
        )
        try:
            yield process, told
        finally:
            process.terminate()
            process.communicate()


def test_systemd_holds_the_port(write, broker, hub, free_port):
    """What is asked before the hub takes it is answered then; nobody else could have had the port."""
    config = write(broker.url, free_port)
    with socket_unit(config, free_port) as (process, told):
        with socket.create_connection(("localhost", free_port)) as client:
            client.sendall(b"GET /v2/version HTTP/1.1\r\nHost: hub\r\n\r\n")
            client.settimeout(30)
            assert client.recv(100).startswith(b"HTTP/1.1 200 ")
        assert told.recv(100) == b"READY=1"
        process.terminate()
        assert process.wait(30) == 0


def test_a_socket_of_another_port_than_that_of_hub_yaml(write, broker, hub, free_port):
    with socket_unit(write(broker.url, hub.port), free_port) as (process, _):
        assert process.wait(30) == os.EX_UNAVAILABLE
        assert f"mep-hub.socket listens on 127.0.0.1:{free_port}" in process.stderr.read()


def test_one_client_has_so_many_requests_under_way(write, broker, hub, free_port):
    config = write(broker.url, free_port)
    with config.open("a") as file:
        file.write("limits: {requests_at_once: 2}\n")
    client_id = yaml.safe_load(config.read_text())["clients"][0]["client_id"]
    secret = base64.b64encode(f"{client_id}:s3cret".encode()).decode()
    head = f"POST /v2/oauth2/token HTTP/1.1\r\nHost: hub\r\nAuthorization: Basic {secret}\r\n"
    waiting = f"{head}Content-Length: 1\r\nExpect: 100-continue\r\n\r\n".encode()

    def ask(stack):
        client = stack.enter_context(socket.create_connection(("localhost", free_port), 30))
        client.sendall(waiting)
        return client, client.recv(1000)

    with socket_unit(config, free_port), contextlib.ExitStack() as stack:
        under_way = [ask(stack) for _ in range(2)]
        assert all(b" 100 " in said for _, said in under_way), "the hub waits for the bodies"
        refused = ask(stack)[1]
        assert refused.startswith(b"HTTP/1.1 429 ") and b"retry-after: 2" in refused
        under_way[0][0].close()
        until(lambda: b" 100 " in ask(stack)[1], "the place to be free")


def test_tls_needs_a_certificate_and_its_key(write, broker, hub, free_port, tmp_path):
    authority = Authority("a site's CA")
    for name in ("one", "other"):
        authority.issue("localhost").write(tmp_path / name)
    (tmp_path / "key").write_text((tmp_path / "other").read_text().partition("-----END CERTIFICATE-----\n")[2])
    for certificate, key, said in (("none", "none", "No such file"), ("one", "key", "KEY_VALUES_MISMATCH")):
        config = write(broker.url, free_port)
        with config.open("a") as file:
            file.write(f"tls: {{listen: 'localhost:1', certificate: {certificate}, key: {key}}}\n")
        done = serve(config)
        assert done.returncode == os.EX_UNAVAILABLE
        assert f"mep-hub: tls: {tmp_path / certificate} with {tmp_path / key}: " in done.stderr and said in done.stderr


def test_database_not_usable(write, broker, hub, free_port, tmp_path):
    (tmp_path / "hub.db").mkdir()
    done = serve(write(broker.url, free_port))
    assert done.returncode == os.EX_UNAVAILABLE
    assert "mep-hub: database:" in done.stderr


def test_stops_at_once_unless_a_request_is_under_way(hub):
    def stop():
        began = time.monotonic()
        hub.stop()
        ended = time.monotonic()
        hub.start()
        return ended - began

    at_once = stop()
    user = hub.users["alice"]
    secret = base64.b64encode(f"{user.client_id}:{user.client_secret}".encode()).decode()
    with socket.create_connection(("127.0.0.1", hub.port)) as client:
        head = f"Host: hub\r\nAuthorization: Basic {secret}\r\nContent-Length: 1\r\nExpect: 100-continue"
        client.sendall(f"POST /v2/oauth2/token HTTP/1.1\r\n{head}\r\n\r\n".encode())
        assert b"100" in client.recv(100), "the hub waits for the body"
        after_grace = stop()
    assert at_once < after_grace
    assert after_grace >= GRACE


def test_a_large_form_is_refused_before_it_is_sent(hub):
    """50 MiB of it cost 2 GB and 20 seconds of everybody's time, and no credential."""
    with socket.create_connection(("127.0.0.1", hub.port)) as client:
        client.sendall(b"POST /broker/user HTTP/1.1\r\nHost: hub\r\nContent-Length: 52428800\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 413 ")


def test_starts_again_with_the_same_data(hub, client):
    function = client("alice").register_function(test_wrong_config)
    hub.stop()
    hub.start()
    assert client("alice").get_function(function)["function_name"] == "test_wrong_config"
    log = hub.log.read_text()
    assert log.count("Ready at http://127.0.0.1:") >= 2
    assert not any(user.client_secret in log for user in hub.users.values())


def test_hub_reconnects_to_a_restarted_broker(broker, hub, client):
    def registers():
        with contextlib.suppress(GlobusAPIError):  # 503: no broker yet
            return client("alice").register_endpoint("e", None, {}, multi_user=True, public=True)

    broker.restart()
    until(registers, "the hub to be connected again")


def test_lab_says_why(tmp_path, broker, hub):
    with pytest.raises(BrokerFailed, match=f"port {broker.port} .* is taken"):
        PrivateBroker(tmp_path / "second", port=broker.port).start()
    with pytest.raises(HubFailed, match="Address already in use"):
        HubProcess(tmp_path / "hub", broker, ["alice"]).start()


def test_lab_broker_leaves_nothing_and_keeps_its_secrets(tmp_path):
    broker = PrivateBroker(tmp_path / "own")
    broker.start()
    password = broker.url.split(":")[2].split("@")[0].encode()
    cookie = (tmp_path / "own" / ".erlang.cookie").read_bytes()
    pids = broker._processes()
    assert len(pids) >= 3
    for pid in pids:
        for file in ("cmdline", "environ"):
            told = Path(f"/proc/{pid}/{file}").read_bytes()
            assert password not in told
            assert cookie not in told
    inodes = {line.split()[9] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if line.split()[3] == "0A"}
    listening = [
        line.split()[1]
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if line.split()[9] in inodes & _sockets(pids)
    ]
    assert len(listening) >= 3
    assert all(address.startswith("0100007F:") for address in listening)
    assert all(not p.stat().st_mode & 0o077 for p in (tmp_path / "own").iterdir())
    broker.kill()
    broker.start()
    broker.stop()
    assert broker._processes() == []
    assert not any(Path(f"/proc/{pid}/exe").exists() for pid in pids)


def _sockets(pids):
    found = set()
    for pid in pids:
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed in the meantime
                found.add(os.readlink(fd).removeprefix("socket:[").removesuffix("]"))
    return found
