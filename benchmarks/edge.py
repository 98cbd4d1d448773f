"""A user at the service's edge: submits by REST and reads results from AMQP, without the waits of the client library.

The public client collects tasks for half a second before it submits; that would hide what is measured here.
"""

from __future__ import annotations

import json
import time
from typing import Any

import globus_sdk
import pika
from globus_compute_sdk.serialize import ComputeSerializer, PureSourceTextInspect

from lab.hub import HubProcess

RESULT_TIMEOUT = 120.0
"""Seconds to wait for a result before the benchmark gives up."""


def double(x: int) -> int:
    """The task of the benchmark."""
    return 2 * x


class Edge:
    """One user of the hub, with one registered function. `close` it in the end."""

    def __init__(self, hub: HubProcess, user: str) -> None:
        client = hub.users[user]
        auth = globus_sdk.ConfidentialAppAuthClient(client.client_id, client.client_secret, base_url=hub.url)
        tokens = auth.oauth2_client_credentials_tokens(requested_scopes=globus_sdk.ComputeClientV3.scopes.all)
        token = tokens.by_resource_server[globus_sdk.ComputeClientV3.scopes.resource_server]["access_token"]
        authorizer = globus_sdk.AccessTokenAuthorizer(token)
        self._serializer = ComputeSerializer(strategy_code=PureSourceTextInspect())
        self._rest = globus_sdk.ComputeClientV3(authorizer=authorizer, base_url=hub.url)
        self._function = self._register()
        with globus_sdk.ComputeClientV2(authorizer=authorizer, base_url=hub.url) as v2:
            self._results = v2.get_result_amqp_url().data
        self._channel = pika.BlockingConnection(pika.URLParameters(self._results["connection_url"])).channel()
        self._group: str | None = None
        self._deliveries: Any = None

    def run(self, endpoint_id: str, options: dict[str, Any], arguments: list[int]) -> float:
        """Submits one task per argument in one request; seconds until the last result is here. Checks each."""
        begin = time.perf_counter()
        self.results(self.submit(endpoint_id, options, arguments))
        return time.perf_counter() - begin

    def submit(self, endpoint_id: str, options: dict[str, Any], arguments: list[int]) -> dict[str, int]:
        """Submits one task per argument in one request; the task ids, with what each must return."""
        nothing: dict[str, object] = {}
        packed = [
            self._serializer.pack_buffers([self._serializer.serialize(part) for part in ((x,), nothing)])
            for x in arguments
        ]
        document = {
            "create_queue": True,
            "tasks": {self._function: packed},
            "user_endpoint_config": options,
            "task_group_id": self._group,
        }
        answer = self._rest.submit(endpoint_id, {key: value for key, value in document.items() if value is not None})
        self._group = answer["task_group_id"]
        return dict(zip(answer["tasks"][self._function], (2 * x for x in arguments), strict=True))

    def results(self, expected: dict[str, int]) -> None:
        """Waits until each of these tasks has returned what it must. Raises RuntimeError."""
        waiting = dict(expected)
        while waiting:
            result = self._next_result()
            value = waiting.pop(result["task_id"], None)
            if value is None:
                continue
            if result["error_details"]:
                raise RuntimeError(result["data"])
            if (found := self._serializer.deserialize(result["data"])) != value:
                raise RuntimeError(f"a task returned {found!r:.80} in place of {value}")

    def close(self) -> None:
        """Ends the connections."""
        self._channel.connection.close()
        self._rest.close()

    def _register(self) -> str:
        code = self._serializer.pack_buffers([self._serializer.serialize(double)])
        document = {"function_name": "double", "function_code": code, "serialized": True}
        return str(self._rest.register_function(document)["function_uuid"])

    def _next_result(self) -> dict[str, Any]:
        if self._deliveries is None:
            queue = f"{self._results['queue_prefix']}{self._group}"
            self._deliveries = self._channel.consume(queue, inactivity_timeout=RESULT_TIMEOUT)
        method, _, body = next(self._deliveries)
        if method is None:
            raise RuntimeError(f"no result within {RESULT_TIMEOUT:g} s")
        self._channel.basic_ack(method.delivery_tag)
        data: dict[str, Any] = json.loads(body[1:])["data"]
        return data
