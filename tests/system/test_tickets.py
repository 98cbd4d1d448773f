"""A user writes: it does not work. Which command answers why? Each row is one such ticket, with its real cause.

For each, what asks beforehand (`map`, `explain`, `check`) and what tells afterwards (log, audit trail, `why`, `status`,
the user's own text) names the cause. Where a row is held elsewhere, too:

    ticket                        elsewhere
    unknown deny_group            test_checks.py::test_names_that_nobody_knows
    engine and provider names     test_rehearsal.py::test_what_a_user_endpoint_would_refuse, for `check` and reload
    Slurm refuses                 test_slurm.py::test_what_slurm_refuses_ends_in_an_error_with_its_words
    a job waits in the queue      test_slurm.py::test_a_client_is_told_what_its_task_waits_for, and
                                  ::test_status_tells_of_a_job_from_which_no_worker_comes
    home missing, closed, full    test_checks.py::test_a_home_that_is_full and those beside it, for `explain`;
                                  test_hostile_users.py::test_a_home_that_is_none, for the user
    limit reached                 test_checks.py::test_as_many_user_endpoints_as_there_may_be, for `explain`;
                                  test_hostile_commands.py::test_limits_of_a_user, for user and audit trail
    memory of a task is out       tests/mep/monitor/containment/test_limits_met.py, tests/uep/workers
    the service is down           test_bad_input.py::test_the_service_is_not_there, for `start`
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lab.accounts import LocalAccount
from lab.hub import HubProcess
from lab.manager import ManagerProcess
from tests.accounts import ALICE
from tests.system.clients import submit
from tests.system.sites import edited, moved_away, run_without_network, site_of

pytestmark = pytest.mark.system


TEMPLATE = """\
heartbeat_period: 5
{%- if PORT is defined %}
amqp_port: {{ PORT }}
{%- endif %}
engine:
  type: {{ ENGINE | default("ThreadPoolEngine") }}
  {{ OPTION | default("max_workers") }}: 1
{%- if CASE is defined %}
  [
{%- endif %}
"""
TEXT = {"type": "string"}
SCHEMA = {
    "type": "object",
    "properties": {"PORT": {"type": "integer"}, "ENGINE": TEXT, "OPTION": TEXT, "CASE": TEXT},
}
CLOSED = 9
"""A port at which nobody listens."""


@dataclass(frozen=True)
class Ticket:
    """The words that name the cause: to admins and, where these are others, to the user; to `map` only what it asks."""

    user: str
    options: dict[str, Any]
    told: str
    user_reads: str = ""
    map_tells: bool = False
    cause: Callable[[ManagerProcess, LocalAccount], AbstractContextManager[Any]] = field(
        default=lambda site, account: contextlib.nullcontext()
    )


def denied(site: ManagerProcess, account: LocalAccount) -> AbstractContextManager[Any]:
    return edited(site, accounts={"deny_users": [account.name]})


def missing(site: ManagerProcess, account: LocalAccount) -> AbstractContextManager[Any]:
    return moved_away(account.home)


@contextlib.contextmanager
def closed(site: ManagerProcess, account: LocalAccount) -> Iterator[None]:
    with moved_away(account.home):
        account.home.mkdir(0)
        yield


TICKETS = {
    "identity unmapped": Ticket("mallory", {}, "mallory@example.org", map_tells=True),
    "denied": Ticket("alice", {}, "deny_users", "may not run tasks", map_tells=True, cause=denied),
    "wrong option": Ticket("alice", {"ENGIN": "x"}, "did you mean 'ENGINE'"),
    "template renders to no YAML": Ticket("alice", {"CASE": "no YAML"}, "YAML", "administrators"),
    "engine name": Ticket("bob", {"ENGINE": "ThreadPoolEngin"}, "did you mean 'ThreadPoolEngine'"),
    "engine option": Ticket("bob", {"OPTION": "max_worker"}, "did you mean 'max_workers'"),
    "home missing": Ticket("alice", {}, "No such file or directory", cause=missing),
    "home closed": Ticket("alice", {}, "Permission denied", cause=closed),
    "broker port closed for users": Ticket(
        "bob", {"PORT": CLOSED}, f"port {CLOSED}", "did not check in within 10 s (start_timeout)"
    ),
}


@pytest.fixture(scope="module")
def site(folder: Path, hub: HubProcess, accounts: dict[str, LocalAccount]) -> Iterator[ManagerProcess]:
    config = {"public": True, "unknown_options": "refuse", "start_timeout": 10}
    with site_of(folder, hub, "tickets", template=TEMPLATE, schema=SCHEMA, config=config) as running:
        yield running


@pytest.mark.parametrize("name", TICKETS)
def test_what_answers_why(name: str, hub: HubProcess, site: ManagerProcess, accounts: dict[str, LocalAccount]) -> None:
    ticket, silent = TICKETS[name], []
    who = ("--identity", f"{ticket.user}@example.org")
    with ticket.cause(site, accounts[ALICE]):
        before = {
            "map": site.run("map", site.name, *who) if ticket.map_tells else None,
            "explain": site.run("explain", site.name, *who, "--options", json.dumps(ticket.options)),
        }
        (said,) = submit(hub, site, ticket.user, ticket.options)
        status = site.run("status", site.name).stdout
    for command, done in before.items():
        if done is not None and (done.returncode != 1 or ticket.told not in done.stderr):
            silent.append(f"{command}: {done.returncode} {done.stderr}")
    read = ticket.user_reads or ticket.told
    if read not in said["error"] or "(request " not in said["error"]:
        silent.append(f"user: {said}")
    request = re.findall(r"\(request (\w+)\)", said["error"])[-1]
    about = [line for line in site.audit() if line.get("request") == request and ticket.told in str(line.get("reason"))]
    if not about:
        silent.append(f"audit: {[line for line in site.audit() if line.get('request') == request]}")
    if not any(line.get("username") == who[1] for line in about):
        silent.append(f"who, in the audit trail: {about}")
    logged = [line for line in site.log.read_text().splitlines() if request in line and ticket.told in line]
    if not logged:
        silent.append(f"log: {[line for line in site.log.read_text().splitlines() if request in line]}")
    if ticket.told not in site.run("why", request).stdout:
        silent.append(f"why: {site.run('why', request).stdout}")
    if ticket.told not in status:
        silent.append(f"status: {status}")
    assert not silent, "\n".join(silent)


def test_names_in_the_template_are_checked_before_anybody_asks(site: ManagerProcess) -> None:
    path = site.profile / "user_config_template.yaml.j2"
    path.write_text(TEMPLATE.replace('"max_workers"', '"max_worker"'))
    try:
        done = site.run("check", site.name, "--files")
        assert done.returncode == 78 and "did you mean 'max_workers'" in done.stdout
        assert "did you mean 'max_workers'" in site.run("reload", site.name).stderr
        assert "did you mean 'max_workers'" in site.run("status", site.name).stdout
    finally:
        path.write_text(TEMPLATE)
        assert site.run("reload", site.name).returncode == 0


def test_a_port_of_the_template_is_tried(site: ManagerProcess) -> None:
    path = site.profile / "user_config_template.yaml.j2"
    path.write_text(f"amqp_port: {CLOSED}\n{TEMPLATE}")
    try:
        (line,) = [line for line in site.run("check", site.name).stdout.splitlines() if "for user endpoints" in line]
        assert line.startswith("FAIL") and f"127.0.0.1 port {CLOSED}" in line
    finally:
        path.write_text(TEMPLATE)


def test_a_service_that_is_down_is_named_with_its_address(site: ManagerProcess) -> None:
    done = run_without_network(site, "check", site.name)
    assert done.returncode != 0
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("FAIL  service")]
    assert "cannot reach the service at http://localhost:" in line
