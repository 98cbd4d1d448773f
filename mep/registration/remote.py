"""Endpoints at the service, as those who run them see them: whether one is online, cut it off, have it forgotten.

And functions, which may have been registered by anybody: their code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import globus_sdk

from mep.profile.config import ManagerConfig
from mep.registration.errors import told
from mep.registration.login import check_login, remedy, service_url

_GONE = (404, 410)


def is_online(config: ManagerConfig, app: globus_sdk.GlobusApp, endpoint_id: str) -> bool | None:
    """Whether an instance of the endpoint speaks to the service; None when the service does not know the endpoint.

    Raises:
        RegistrationError: no login, or the service cannot be reached, or refuses.
    """
    what = f"to say how endpoint {endpoint_id} is"
    answer = _known(config, app, what, lambda client: client.get_endpoint_status(endpoint_id))
    return None if answer is None else isinstance(answer.data, dict) and answer.data.get("status") == "online"


def delete(config: ManagerConfig, app: globus_sdk.GlobusApp, endpoint_id: str) -> bool:
    """Has the service forget the endpoint; False when it did not know it. Raises as `is_online` does."""
    what = f"to delete endpoint {endpoint_id}"
    return _known(config, app, what, lambda client: client.delete_endpoint(endpoint_id)) is not None


def cut_off(config: ManagerConfig, app: globus_sdk.GlobusApp, endpoint_id: str) -> bool:
    """Has the service end the connections of every instance of the endpoint, wherever it runs, and refuse new ones for
    a while; False when it does not know the endpoint. Raises as `is_online` does."""
    what = f"to stop endpoint {endpoint_id}"
    return _known(config, app, what, lambda client: client.lock_endpoint(endpoint_id)) is not None


def function(config: ManagerConfig, app: globus_sdk.GlobusApp, function_id: str) -> Mapping[str, Any] | None:
    """What the service says of a function, its code included, as it came; None when it does not know it. Raises as
    `is_online` does."""
    answer = _known(config, app, f"to show function {function_id}", lambda client: client.get_function(function_id))
    return answer.data if answer is not None and isinstance(answer.data, dict) else None


def _known(
    config: ManagerConfig,
    app: globus_sdk.GlobusApp,
    what: str,
    ask: Callable[[globus_sdk.ComputeClientV2], globus_sdk.GlobusHTTPResponse],
) -> Any:
    """What the service answers; None when it knows no such thing, or not any more. Raises RegistrationError."""
    check_login(app, config)
    with (
        told(remedy(app, config), url=service_url(config), what=what),
        globus_sdk.ComputeClientV2(app=app, base_url=service_url(config)) as client,
    ):
        try:
            return ask(client)
        except globus_sdk.GlobusAPIError as e:
            if e.http_status in _GONE:
                return None
            raise
