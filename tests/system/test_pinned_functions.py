"""Functions pinned by the hash of their code: a service that was taken over cannot run its own code as a site's users.

The hub plays that service: the code of a function is changed in its database.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lab.accounts import LocalAccount
from lab.client import run_script
from lab.hub import HubProcess
from lab.manager import ManagerProcess
from tests.accounts import ALICE
from tests.system.sites import site_of
from wire import function_code

pytestmark = pytest.mark.system

SCHEMA = {"properties": {"ENGINE": {"pattern": "^(ThreadPoolEngine|ProcessPoolEngine|touch.*)$"}}}
REGISTER = """
import json, sys
from globus_compute_sdk import Client

def double(n):
    import os
    return {"value": 2 * n, "uid": os.getuid()}

def count(words):
    return len(words)

def steal(n):
    open("/tmp/stolen-by-the-service", "w").close()

known = Client()
ids = [known.register_function(function, public=True) for function in (double, count, steal)]
print(json.dumps([[each, known.get_function(each)["function_code"]] for each in ids]))
"""
RUN = """
import json, sys
from globus_compute_sdk import Executor
from globus_compute_sdk.errors import TaskExecutionFailed
from globus_compute_sdk.serialize import ComputeSerializer, JSONData

endpoint, function, as_json, options, *arguments = map(json.loads, sys.argv[1:])
serializer = ComputeSerializer(strategy_data=JSONData()) if as_json else None
with Executor(endpoint_id=endpoint, serializer=serializer, user_endpoint_config=options) as ex:
    try:
        print(json.dumps(ex.submit_to_registered_function(function, tuple(arguments)).result(timeout=60)))
    except Exception as e:
        print(json.dumps({"error": str(e)}))
"""


@pytest.fixture(scope="module")
def functions(hub: HubProcess) -> list[tuple[str, str]]:
    """Id and code of what the site has registered: `double` and `count`; and of `steal`, which it has not pinned."""
    (said,) = run_script(hub, "admin", REGISTER)
    return [(function, code) for function, code in said]


@pytest.fixture(scope="module")
def site(
    folder: Path, hub: HubProcess, accounts: dict[str, LocalAccount], functions: list[tuple[str, str]]
) -> Iterator[ManagerProcess]:
    pins = [f"{each}@sha256:{function_code.sha256(*function_code.split(code))}" for each, code in functions[:2]]
    with site_of(folder, hub, "pinned", config={"public": True, "allowed_functions": pins}, schema=SCHEMA) as manager:
        yield manager


def run(hub: HubProcess, site: ManagerProcess, function: str, *arguments: Any, **more: Any) -> Any:
    words = site.endpoint_id, function, more.get("as_json", True), more.get("options", {}), *arguments
    (said,) = run_script(hub, "alice", RUN, *map(json.dumps, words))
    return said


def test_an_unmodified_executor_runs_what_is_pinned(
    hub: HubProcess, site: ManagerProcess, accounts: dict[str, LocalAccount], functions: list[tuple[str, str]]
) -> None:
    (double, _), (count, _), (steal, _) = functions
    assert run(hub, site, double, 4) == {"value": 8, "uid": accounts[ALICE].uid}
    assert run(hub, site, count, ["a", {"b": None}]) == 2
    assert "not permitted" in run(hub, site, steal, 1)["error"]


def test_arguments_that_could_be_code_are_refused_with_the_remedy(
    hub: HubProcess, site: ManagerProcess, functions: list[tuple[str, str]]
) -> None:
    said = run(hub, site, functions[0][0], 4, as_json=False)
    assert "serializer=ComputeSerializer(strategy_data=JSONData())" in said["error"]


def test_code_that_the_service_has_changed_does_not_run(
    hub: HubProcess, site: ManagerProcess, functions: list[tuple[str, str]]
) -> None:
    (double, code), (count, _), (_, stolen) = functions
    with closing(sqlite3.connect(hub.folder / "hub.db", isolation_level=None, timeout=30)) as db:
        db.execute("UPDATE function SET code = ? WHERE id = ?", (stolen, double))
        try:
            said = run(hub, site, double, 4)
        finally:
            db.execute("UPDATE function SET code = ? WHERE id = ?", (code, double))
    assert f"{function_code.sha256(*function_code.split(code))} is pinned" in said["error"]
    assert not Path("/tmp/stolen-by-the-service").exists()
    assert run(hub, site, count, []) == 0, "others run as before"
    assert run(hub, site, double, 4)["value"] == 8


def test_options_are_no_way_round_the_pins(
    hub: HubProcess, site: ManagerProcess, functions: list[tuple[str, str]]
) -> None:
    double = functions[0][0]
    said = run(hub, site, double, 4, options={"ENGINE": "touch /tmp/stolen-by-the-service"})
    assert "user_endpoint_config.ENGINE: more than a plain word" in said["error"]
    assert run(hub, site, double, 4, options={"ENGINE": "ProcessPoolEngine"})["value"] == 8


def test_mep_pins_what_the_service_has_now(
    hub: HubProcess, site: ManagerProcess, functions: list[tuple[str, str]]
) -> None:
    (double, code), _, (steal, stolen) = functions
    config = site.profile / "config.yaml"
    before = config.read_text()
    config.write_text(f"# the site's own words\n{before}")
    try:
        refused = site.run("functions", "pin", site.name, steal)
        assert "SHA-256" in refused.stdout and "stolen-by-the-service" in refused.stdout
        assert (refused.returncode, config.read_text()) == (1, f"# the site's own words\n{before}"), "nobody said yes"
        done = site.run("functions", "pin", site.name, steal, "--yes")
        assert done.returncode == 0, done.stderr
        entry = f"{steal}@sha256:{function_code.sha256(*function_code.split(stolen))}"
        assert config.read_text().startswith("# the site's own words\n")
        assert config.read_text().count("@sha256:") == 3 and entry in config.read_text()
        assert "3 may run, pinned by the SHA-256 of their code" in site.run("check", "--files", site.name).stdout
        again = site.run("functions", "pin", site.name)
        assert "has these hashes already" in again.stdout
        with closing(sqlite3.connect(hub.folder / "hub.db", isolation_level=None, timeout=30)) as db:
            db.execute("UPDATE function SET code = ? WHERE id = ?", (stolen, double))
            changed = site.run("functions", "pin", site.name, "--yes")
            db.execute("UPDATE function SET code = ? WHERE id = ?", (code, double))
        assert changed.returncode == 65
        assert "find out who has changed it" in changed.stderr
    finally:
        config.write_text(before)
