"""What strangers may send, at each of the hub's inlets: refused or dropped with one line each, and the hub goes on.

Each place of a good body is taken, one after the other, by each of HOSTILE, as text: some of it Python would not write.
"""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import uuid
from collections.abc import Iterator
from typing import Any

import pika
import pytest
import requests
from globus_compute_sdk import Client

from lab.broker import PrivateBroker
from lab.hub import HubProcess
from lab.waiting import until
from tests.hub.peer import PeerManager

HOSTILE = {
    "null": "null",
    "true": "true",
    "minus one": "-1",
    "fraction": "0.5",
    "huge int": "1" + "0" * 400,
    "longer than Python reads": "1" * 5000,
    "beyond floats": "1e999",
    "not a number": "NaN",
    "infinity": "-Infinity",
    "empty text": '""',
    "half a pair": '"\\ud800"',
    "nul": '"a\\u0000b"',
    "control": '"\\u001b[31m\\r\\nforged line"',
    "long text": '"' + "x" * 300_000 + '"',
    "empty list": "[]",
    "mixed list": '[null, 1, "x", {}, []]',
    "texts": '["\\ud800", "\\u0000"]',
    "many": "[" + ",".join(['"x"'] * 50_000) + "]",
    "empty object": "{}",
    "odd keys": '{"": null, "\\ud800": 1, "\\u0000": 2, "a": 1, "a": 2}',
    "deep": "[" * 90 + "]" * 90,
    "deeper": '{"a":' * 900 + "1" + "}" * 900,
    "deepest": "[" * 100_000,
}
WHOLE = {
    **{name: value.encode() for name, value in HOSTILE.items()},
    "nothing": b"",
    "no text": b"\xff\xfe\x00",
    "half": b'{"endpoint_name": ',
    "two": b"{}{}",
}
"""In place of a whole body."""
_MARK = "@@@"


def bodies(good: dict[str, Any]) -> Iterator[bytes]:
    """The body with each of HOSTILE at each place, without each of its fields, and each of them twice."""
    yield from WHOLE.values()
    for path in places(good):
        marked = json.dumps(put(good, path, _MARK))
        for value in HOSTILE.values():
            yield marked.replace(f'"{_MARK}"', value).encode()
        if isinstance(path[-1], str):
            yield json.dumps(put(good, path, None, remove=True)).encode()
    for key in good:
        yield f'{json.dumps(good)[:-1]}, "{key}": "twice"}}'.encode()


def places(value: Any) -> Iterator[list[str | int]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield [key]
        for path in places(each):
            yield [key, *path]


def put(value: Any, path: list[str | int], new: Any, *, remove: bool = False) -> Any:
    copy = json.loads(json.dumps(value))
    at = copy
    for key in path[:-1]:
        at = at[key]
    if remove:
        del at[path[-1]]
    else:
        at[path[-1]] = new
    return copy


class Watched:
    """What the hub says from now on."""

    def __init__(self, hub: HubProcess) -> None:
        self._hub = hub
        self._pid = hub.pid
        self._from = hub.log.stat().st_size

    def lines(self) -> list[str]:
        with self._hub.log.open("rb") as log:
            log.seek(self._from)
            return log.read().decode().splitlines()

    def assert_calm(self, most: int) -> None:
        """The hub goes on, has lost no connection, and has said one line for each message at most."""
        lines = self.lines()
        strange = [line for line in lines if not line.startswith("20") or "RabbitMQ" in line or "ERROR" in line]
        assert not strange, strange[:5]
        assert len(lines) <= most
        assert max(map(len, lines), default=0) < 1000
        assert "api" in requests.get(f"{self._hub.url}/v2/version", timeout=60).json()
        assert self._hub.pid == self._pid


@pytest.fixture
def watched(hub: HubProcess) -> Watched:
    return Watched(hub)


@pytest.fixture
def token(hub: HubProcess) -> str:
    return token_of(hub, "mallory")


COMPUTE = "https://auth.globus.org/scopes/facd7ccc-c5f4-42aa-916b-a0e270e2c2a9/all"
MANAGE_PROJECTS = "urn:globus:auth:scope:auth.globus.org:manage_projects"


def token_of(hub: HubProcess, name: str, scope: str = COMPUTE) -> str:
    user = hub.users[name]
    answer = requests.post(
        f"{hub.url}/v2/oauth2/token",
        data={"grant_type": "client_credentials", "scope": scope},
        auth=(user.client_id, user.client_secret),
        timeout=60,
    )
    return str(answer.json()["access_token"])


@pytest.fixture
def function(hub: HubProcess, token: str) -> str:
    body = {"function_name": "f", "function_code": "x", "public": True}
    answer = requests.post(f"{hub.url}/v3/functions", json=body, headers=bearer(token), timeout=60)
    return str(answer.json()["function_uuid"])


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}


REGISTRATION = {
    "endpoint_name": "e",
    "display_name": "E",
    "multi_user": True,
    "public": True,
    "metadata": {"hostname": "here", "endpoint_config": "x", "uuid": "forged"},
    "allowed_functions": [str(uuid.UUID(int=1))],
    "admins": [str(uuid.UUID(int=2))],
    "subscription_uuid": "s",
    "high_assurance": False,
    "authentication_policy": None,
}
FUNCTION = {
    "function_name": "f",
    "function_code": "x",
    "description": "d",
    "serialized": True,
    "meta": {"python_version": "3"},
    "public": False,
    "group": None,
}


def calls(manager: str, function: str, own: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Each REST call with a body, and a good one."""
    submission = {
        "tasks": {function: ["packed"]},
        "task_group_id": None,
        "create_queue": True,
        "user_endpoint_config": {"a": {"b": 1}},
        "user_runtime": {"python": {"version": "3"}},
        "resource_specification": {"num_nodes": 1},
        "result_serializers": ["a.b"],
    }
    return {
        ("POST", "/v3/functions"): FUNCTION,
        ("POST", "/v3/endpoints"): REGISTRATION,
        ("PUT", f"/v3/endpoints/{own}"): REGISTRATION,
        ("POST", f"/v3/endpoints/{manager}/submit"): submission,
        ("POST", "/v2/submit"): {"tasks": [[function, manager, "packed"]], "task_group_id": str(uuid.uuid4())},
        ("POST", "/v2/batch_status"): {"task_ids": [str(uuid.uuid4()), str(uuid.uuid4())]},
    }


def test_bodies_of_rest_calls(
    hub: HubProcess, watched: Watched, token: str, function: str, manager: PeerManager
) -> None:
    with requests.Session() as session:
        session.headers.update(bearer(token))
        own = session.post(f"{hub.url}/v3/endpoints", json=REGISTRATION, timeout=60).json()["endpoint_id"]
        sent = 0
        for (method, path), good in calls(manager.id, function, own).items():
            assert session.request(method, hub.url + path, json=good, timeout=60).status_code == 200, path
            for body in bodies(good):
                sent += 1
                answer = session.request(method, hub.url + path, data=body, timeout=60)
                assert answer.status_code in (200, 400, 403, 404, 413, 422), (path, body[:300], answer.text[:300])
                answer.json(parse_constant=not_json)
        shown = session.get(f"{hub.url}/v2/endpoints/{own}", timeout=60).json()
        assert (shown["uuid"], shown["owner"]) == (own, hub.users["mallory"].identities[0]["id"])
        for path in ("/v2/endpoints?role=any", f"/v2/endpoints/{own}", f"/hub/v1/endpoints/{own}/timeline"):
            session.get(hub.url + path, timeout=60).json(parse_constant=not_json)
        for endpoint in session.get(f"{hub.url}/v2/endpoints", timeout=60).json():
            session.delete(f"{hub.url}/v2/endpoints/{endpoint['uuid']}", timeout=60)
        session.headers.update(bearer(token_of(hub, "admin")))
        timeline = session.get(f"{hub.url}/hub/v1/endpoints/{manager.id}/timeline", timeout=60)
        assert timeline.json(parse_constant=not_json)["user_endpoints"], "some are good"
        while (command := manager.next_command_or_none()) is not None:
            json.loads(command, parse_constant=not_json)
        watched.assert_calm(sent + 10)


def test_bodies_of_calls_about_projects(hub: HubProcess, watched: Watched) -> None:
    projects, policies = f"{hub.url}/v2/api/projects", f"{hub.url}/v2/api/policies"
    admin = hub.users["mallory"].identities[0]["id"]
    project = {"display_name": "P", "contact_email": "c", "admin_ids": [admin], "admin_group_ids": []}
    with requests.Session() as session:
        session.headers.update(bearer(token_of(hub, "mallory", MANAGE_PROJECTS)))
        own = session.post(projects, json={"project": project}, timeout=60).json()["project"]["id"]
        policy = {
            "project_id": own,
            "display_name": "P",
            "description": "D",
            "domain_constraints_include": ["*.example.org"],
            "domain_constraints_exclude": None,
            "authentication_assurance_timeout": 60,
            "high_assurance": False,
            "required_mfa": False,
        }
        made = session.post(policies, json={"policy": policy}, timeout=60).json()["policy"]["id"]
        sent = 0
        for method, url, good in (
            ("PUT", f"{policies}/{made}", {"policy": policy}),
            ("POST", policies, {"policy": policy}),
            ("POST", projects, {"project": project}),
            ("PUT", f"{projects}/{own}", {"project": project}),
        ):
            assert session.request(method, url, json=good, timeout=60).status_code == 200, url
            for body in bodies(good):
                sent += 1
                answer = session.request(method, url, data=body, timeout=60)
                assert answer.status_code in (200, 400, 404, 413, 422, 429), (url, body[:300], answer.text[:300])
                answer.json(parse_constant=not_json)
        for each in session.get(policies, timeout=60).json(parse_constant=not_json)["policies"]:
            session.delete(f"{policies}/{each['id']}", timeout=60)
        for each in session.get(projects, timeout=60).json(parse_constant=not_json)["projects"]:
            session.delete(f"{projects}/{each['id']}", timeout=60)
        watched.assert_calm(sent + 10)


def not_json(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def test_addresses_headers_and_forms(hub: HubProcess, watched: Watched, token: str) -> None:
    odd = ["%00", "%ff", "%ed%a0%80", "..", "x" * 5000, "%0d%0aforged", "{}", "0" * 32, "\u0661" * 32]
    routes = ("/v2/functions/", "/v2/endpoints/", "/v2/tasks/", "/v2/taskgroup/", "/hub/v1/endpoints/", "/")
    basic = [b"", b":", b"\xff:\xff", b"a" * 5000, b"a:b:c"]
    authorizations = [b"Bearer \xff\xfe", b"Bearer", b"Basic", b"Basic !!", b"Bearer " + b"x" * 5000]
    authorizations += [b"Basic " + base64.b64encode(each) for each in basic]
    forms = [b"", b"%00=%ff", b"a=1&" * 5000, b"username=%ed%a0%80&password=%00", b"\xff" * 100, b"username=x" * 9000]
    with requests.Session() as session:
        answers = [session.get(f"{hub.url}{route}{each}", headers=bearer(token)) for route in routes for each in odd]
        answers += [session.get(f"{hub.url}/v2/endpoints", headers={"Authorization": each}) for each in authorizations]
        answers += [
            session.post(f"{hub.url}/v2/oauth2/token", headers={"Authorization": each}) for each in authorizations
        ]
        for question in ("user", "vhost", "resource", "topic"):
            answers += [session.post(f"{hub.url}/broker/{question}", data=each) for each in forms]
        answers += [session.get(f"{hub.url}/v2/api/identities?ids={each}", headers=bearer(token)) for each in odd]
    assert {answer.status_code for answer in answers} <= {200, 307, 400, 401, 403, 404, 405, 413, 422}
    watched.assert_calm(len(answers) + 10)


NO_HTTP = {
    "zeros": b"\0" * 1000,
    "a login by TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 500,
    "AMQP": b"AMQP\x00\x00\x09\x01",
    "another version": b"GET / HTTP/9.9\r\n\r\n",
    "an endless line": b"A" * 500_000,
    "endless headers": b"GET /v2/version HTTP/1.1\r\nHost: h\r\n" + b"X: y\r\n" * 50_000,
    "two lengths": b"POST /broker/user HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a negative length": b"POST /broker/user HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n",
    "a length like none": b"POST /broker/user HTTP/1.1\r\nHost: h\r\nContent-Length: " + b"9" * 40 + b"\r\n\r\n",
    "chunks of no size": b"POST /broker/user HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "an upgrade": b"GET /v2/version HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    "half of a body": b"POST /broker/user HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nab",
}


def test_what_is_no_http(hub: HubProcess, watched: Watched) -> None:
    for name, said in NO_HTTP.items():
        with socket.create_connection(("127.0.0.1", hub.port), timeout=60) as client:
            with contextlib.suppress(OSError):  # it need not be heard to its end
                client.sendall(said)
                client.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionError):
                assert b" 500 " not in client.recv(1000), name
    watched.assert_calm(2 * len(NO_HTTP))


RESULT = {
    "message_type": "result",
    "data": {
        "task_id": str(uuid.uuid4()),
        "data": "x",
        "details": {"os": "x", "n": 1},
        "error_details": {"code": "c", "user_message": "m"},
        "task_statuses": [{"timestamp": 1, "state": "s", "actor": "a"}],
    },
}


def test_messages_of_both_queues(
    hub: HubProcess, broker: PrivateBroker, watched: Watched, manager: PeerManager, client: Any
) -> None:
    report = {
        "message_type": "ep_status_report",
        "data": {
            "endpoint_id": manager.id,
            "global_state": {"heartbeat_period": 30, "active": True, "error": "e", "more": {"a": [1]}},
            "task_statuses": {str(uuid.uuid4()): []},
        },
    }
    sent = 0
    with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
        channel = connection.channel()
        for exchange, good in (("results", RESULT), ("heartbeats", report)):
            keys = (f"{manager.id}.{exchange}", f"\u2028\n.{exchange}")
            large = json.dumps({**good, "more": "x" * 1_100_000}).encode()
            for body in (*bodies(good), large):
                for raw in (body, b"\x01" + body, b"\x02" + body):
                    channel.basic_publish(exchange, keys[0], raw)
                    sent += 1
            for key in keys:
                channel.basic_publish(exchange, key, b"\x01" + json.dumps(good).encode())
                sent += 1
        until(lambda: not waiting(channel), "the hub to take all of them")
    status = requests.get(
        f"{hub.url}/v2/endpoints/{manager.id}/status", headers=bearer(token_of(hub, "admin")), timeout=60
    )
    status.json(parse_constant=not_json)
    manager.heartbeat(period=30)
    until(lambda: is_online(client("admin"), manager.id), "a good report after them")
    watched.assert_calm(sent + 10)


def waiting(channel: Any) -> int:
    """Messages in both queues that the hub has not been sent."""
    return sum(
        int(channel.queue_declare(name, passive=True).method.message_count) for name in ("results", "heartbeats")
    )


def is_online(of: Client, endpoint: str) -> bool:
    return bool(of.get_endpoint_status(endpoint)["status"] == "online")
