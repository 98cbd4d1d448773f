"""When things happened, as the service saw them: the hub keeps the times, this asks for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import globus_sdk

from lab.hub import HubProcess


@dataclass(frozen=True)
class Start:
    """One start of a user endpoint: seconds from the start command to the first heartbeat, and to the first result."""

    user_endpoint_id: str
    user_options: Mapping[str, Any]
    first_heartbeat: float | None
    first_result: float | None


def starts(hub: HubProcess, user: str, endpoint_id: str) -> list[Start]:
    """The first start of every user endpoint of the manager `endpoint_id`, which belongs to `user`."""
    owner = hub.users[user]
    auth = globus_sdk.ConfidentialAppAuthClient(owner.client_id, owner.client_secret, base_url=hub.url)
    tokens = auth.oauth2_client_credentials_tokens(requested_scopes=globus_sdk.ComputeClientV3.scopes.all)
    token = tokens.by_resource_server[globus_sdk.ComputeClientV3.scopes.resource_server]["access_token"]
    authorizer = globus_sdk.AccessTokenAuthorizer(token)
    with globus_sdk.ComputeClientV3(authorizer=authorizer, base_url=hub.url) as client:
        answer = client.get(f"/hub/v1/endpoints/{endpoint_id}/timeline")
    return [_start(row) for row in answer["user_endpoints"]]


def _start(row: Mapping[str, Any]) -> Start:
    first = row["starts"][0]

    def since(key: str) -> float | None:
        return None if first[key] is None else first[key] - first["commanded_at"]

    return Start(row["endpoint_id"], row["user_opts"], since("first_heartbeat_at"), since("first_result_at"))
