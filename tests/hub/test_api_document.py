"""docs/hub-api.md has every call that the installed public clients can make, and says of each what the hub does."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import globus_compute_sdk.sdk.executor
import globus_sdk
import pytest
from globus_compute_sdk import Client, Executor

from hub.app import Hub
from hub.config import HubConfig
from hub.routes.refused import REFUSED
from hub.store.store import Store
from tests.hub.units import CONFIG

ID = "00000000-0000-4000-8000-000000000000"
DOCUMENT = Path(__file__).parents[2] / "docs" / "hub-api.md"
CLIENTS = (
    globus_sdk.ComputeClientV2(base_url="http://localhost:1"),
    globus_sdk.ComputeClientV3(base_url="http://localhost:1"),
    globus_sdk.AuthClient(environment="local", base_url="http://localhost:1"),
    globus_sdk.ConfidentialAppAuthClient(ID, "secret", base_url="http://localhost:1"),
    globus_sdk.NativeAppAuthClient(ID, base_url="http://localhost:1"),
)
ARGUMENTS: dict[str, dict[str, Any]] = {
    "create_client": {"client_type": "public_installed_client"},
    "create_child_client": {"client_type": "public_installed_client"},
    "get_client": {"client_id": ID},
    "oauth2_token": {"form_data": {}},
}
"""Beside those without a default."""
ASK_NOTHING = {"oauth2_start_flow", "oauth2_get_authorize_url", "oauth2_exchange_code_for_tokens"}
"""Methods that send no request of their own, or one that others send, once a flow has been started."""

OF_THE_SERVICE = ("/v2/", "/v3/", "/.well-known/")

Call = tuple[str, str]


class Asked(Exception):
    """What a client was about to send."""


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], Call]:
    """The call that each method of the public clients makes, by class and name."""

    def request(self: Any, method: str, path: str, **more: Any) -> Any:
        raise Asked(method, path.replace(ID, "ID"))

    monkeypatch.setattr(globus_sdk.BaseClient, "request", request)
    return {(type(client).__name__, name): call for client in CLIENTS for name, call in _calls(client)}


@pytest.fixture
def routes(store: Store, tmp_path: Path) -> set[Call]:
    """The calls that the hub answers, with a reason at least."""
    hub = Hub(HubConfig("127.0.0.1", 5000, 5000, tmp_path / "hub.db", CONFIG, {}), store)
    found = {(method, as_written(r.path)) for r in hub.app._app.routes for method in r.methods - {"HEAD"}}
    return {call for call in found if call[1].startswith(OF_THE_SERVICE)}


def _calls(client: globus_sdk.BaseClient) -> Iterator[tuple[str, Call]]:
    for name, method in inspect.getmembers(type(client), inspect.isfunction):
        if name.startswith("_") or name in dir(globus_sdk.BaseClient) or name in ASK_NOTHING:
            continue
        needed = [p for p in inspect.signature(method).parameters.values() if p.default is p.empty][1:]
        arguments: dict[str, Any] = {
            p.name: {} if p.name in ("data", "body_params") else ID
            for p in needed
            if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        }
        with warnings.catch_warnings(), pytest.raises(Asked) as asked:
            warnings.simplefilter("ignore")  # some are deprecated
            getattr(client, name)(**{**arguments, **ARGUMENTS.get(name, {})})
        method_and_path: Call = asked.value.args  # type: ignore[assignment]
        yield name, method_and_path


def table() -> dict[Call, tuple[str, str]]:
    """Who asks, and the answer, by method and path."""
    found: dict[Call, tuple[str, str]] = {}
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        calls, *rest = [cell.strip() for cell in line.strip("|").split(" | ")]
        for method, path in re.findall(r"`(GET|POST|PUT|DELETE) (/\S+)`", calls if line.startswith("|") else ""):
            assert (method, path) not in found
            found[method, path] = (rest[0], rest[1])
    return found


def as_written(path: str) -> str:
    """The path of a route as the document has it."""
    return re.sub(r"\{(\w+)\}", lambda name: name[1].upper(), path)


def test_every_call_of_the_clients_is_in_the_table(sent: dict[tuple[str, str], Call]) -> None:
    assert len(sent) > 50
    listed = {(method, re.sub(r"[A-Z]{2,}", "ID", path)) for method, path in table()}
    assert set(sent.values()) - listed == set()


def test_the_table_says_which_method_of_the_client_asks(sent: dict[tuple[str, str], Call]) -> None:
    listed = table()
    for name, method in inspect.getmembers(Client, inspect.isfunction):
        for version, below in re.findall(r"_compute_web_client\.v(\d)\.(\w+)\(", inspect.getsource(method)):
            assert f"`{name}`" in listed[sent[f"ComputeClientV{version}", below]][0], name
    source = inspect.getsource(globus_compute_sdk.sdk.executor)
    by_executor = re.findall(r"_compute_web_client\.v(\d)\.(\w+)\(", source)
    assert by_executor
    for version, below in by_executor:
        assert Executor.__name__ in listed[sent[f"ComputeClientV{version}", below]][0], below


def test_what_the_table_says_is_so(routes: set[Call]) -> None:
    listed = table()
    refused = {(method, as_written(path)): status for (method, path), (status, _) in REFUSED.items()}
    for call, (_, answer) in listed.items():
        no = re.match(r"no, (\d+)", answer)
        assert (int(no[1]) if no else None) == refused.get(call), f"{call}: {answer}"
        assert call in routes, call
    assert routes - listed.keys() == set()
