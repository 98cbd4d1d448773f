"""Commands without end, wrong ones and too many: the manager refuses each, keeps nothing, and serves the others."""

from __future__ import annotations

import copy
import itertools
import json
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pika
import psutil
import pytest

from lab.accounts import LocalAccount
from lab.broker import PrivateBroker
from lab.hub import HubProcess
from lab.manager import ManagerProcess
from lab.waiting import until
from tests.accounts import BOB
from tests.mep.commands import COMMAND
from tests.system.clients import IDLE, submit
from tests.system.sites import TEMPLATE, descriptors, edited, moved_away, own_site

pytestmark = pytest.mark.system

DIES = TEMPLATE + "{%- if DIES is defined %}\nendpoint_setup: kill -KILL $PPID\n{%- endif %}\n"
UTC = r"from \d\d:\d\d:\d\d UTC on"


site = own_site("flooded", template=DIES)


@pytest.fixture
def pardoned(site: ManagerProcess) -> Iterator[None]:
    """Whoever is held back in the end is so no longer."""
    yield
    site.restart()


def publish(broker: PrivateBroker, site: ManagerProcess, bodies: Iterable[bytes]) -> None:
    """Puts messages into the manager's command queue, as nobody but the service can."""
    connection = pika.BlockingConnection(pika.URLParameters(broker.url))
    channel = connection.channel()
    properties = pika.BasicProperties(content_type="application/json", timestamp=round(time.time()))
    for body in bodies:
        channel.basic_publish("", f"{site.endpoint_id}.commands", body, properties)
    connection.close()


def spoiled(**fields: Any) -> bytes:
    """A start command with other values in these fields."""
    command = copy.deepcopy(COMMAND)
    for name, value in fields.items():
        owner = command["kwargs"] if name in command["kwargs"] else command
        owner[name] = value
    return json.dumps(command).encode()


def strangers(name: str) -> bytes:
    """A start command of somebody with this name."""
    identity = {**COMMAND["globus_identity_set"][0], "username": name}
    return spoiled(globus_username=name, globus_identity_set=[identity])


GARBAGE = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"\xff" * 100,
    b"[" * 10_000,
    b'{"command": "cmd_start_endpoint"}',
    b'{"command": "\\ud800\\u0000\\n"}',
    spoiled(command="cmd_stop_endpoint", amqp_creds=None),
    spoiled(args=["--debug"], amqp_creds=[]),
    spoiled(kwargs=[]),
    spoiled(amqp_creds={}),
    spoiled(amqp_creds={"endpoint_id": "../x"}),
]
"""Of these nobody can be told."""


# What the manager keeps.


def test_refused_and_ended_ones_leave_nothing(
    hub: HubProcess, site: ManagerProcess, broker: PrivateBroker, accounts: dict[str, LocalAccount], pardoned: None
) -> None:
    go_through_all(hub, site, broker, accounts, starts=1, refusals=1)
    before = held(site)
    refused = len(site.audit("refused"))
    go_through_all(hub, site, broker, accounts, starts=10, refusals=9)
    assert len(site.audit("refused")) - refused >= 60
    stages = Counter(line["stage"] for line in site.audit("refused")[refused:])
    assert {"command", "identity", "account", "options", "template", "launch", "admission"} <= set(stages)
    assert held(site) == before


def go_through_all(
    hub: HubProcess,
    site: ManagerProcess,
    broker: PrivateBroker,
    accounts: dict[str, LocalAccount],
    *,
    starts: int,
    refusals: int,
) -> None:
    """So many starts and stops of two users each, and so many refusals of each kind."""
    exited = len(site.audit("exited"))
    some, many = range(starts), range(refusals)
    with ThreadPoolExecutor() as pool:
        options: list[dict[str, Any]] = [IDLE | {"N": n} for n in some]
        outcomes = list(pool.map(lambda user: submit(hub, site, user, *options), ("alice", "bob")))
        assert all("uid" in said for said in itertools.chain(*outcomes)), outcomes
        until(lambda: len(site.audit("exited")) == exited + 2 * starts, "them to stop")
        publish(broker, site, GARBAGE[:refusals])
        kinds: dict[str, list[dict[str, Any]]] = {
            "mallory": [{"N": n} for n in many],
            "ghost": [{"N": n} for n in many],
            "rooty": [{"N": n} for n in many],
            "alice": [{"N": n, **bad} for n in many for bad in ({"PERIOD": "soon"}, {"BROKEN": 1})],
            "bob": [{"N": n} for n in many],
        }
        with moved_away(accounts[BOB].home):
            outcomes = list(pool.map(lambda kind: submit(hub, site, kind[0], *kind[1]), kinds.items()))
            outcomes.append(submit(hub, site, "bob", {"N": "later"}))  # the others may all have begun before one failed
    assert all("(request " in said["error"] for said in itertools.chain(*outcomes)), outcomes


def held(site: ManagerProcess) -> tuple[int, int, list[str]]:
    """Descriptors, threads and children of the manager, once it is at rest."""
    manager = psutil.Process(site.pid)
    children = sorted(" ".join(child.cmdline()) or child.status() for child in manager.children())
    return descriptors(site), manager.num_threads(), children


# Many.


def ended(site: ManagerProcess) -> int:
    """Counts what was refused, or superseded by another one of the same name while its own refusal was being told."""
    return sum(number for what, number in refusals(site).items() if what not in ("received", "refreshed", "mapped"))


def refusals(site: ManagerProcess) -> Counter[str]:
    """By event and stage: lines in full, and those that were only counted."""
    said = Counter({f"refused at stage {stage}": n for stage, n in stages_of(site.audit("refused")).items()})
    said["superseded"] += len(site.audit("superseded"))
    for line in site.audit("counted"):
        said.update(line["lines"])
    return said


def stages_of(lines: list[dict[str, Any]]) -> Counter[str]:
    return Counter(line["stage"] for line in lines)


def test_good_commands_among_ten_thousand_bad_ones(
    hub: HubProcess, site: ManagerProcess, broker: PrivateBroker, pardoned: None
) -> None:
    """All wait in the queue while the manager is held; then it has to go through them."""
    strange = [strangers(name) for name in ("a\nb", "\ud800@example.org", "\0", "x" * 2**20)]
    bad = [*itertools.islice(itertools.cycle(GARBAGE), 9_980), *[b"x" * 2**20] * 20]
    pid, memory, before = site.pid, psutil.Process(site.pid).memory_info().rss, ended(site)
    refused = refusals(site)
    os.kill(site.pid, signal.SIGSTOP)
    with ThreadPoolExecutor() as pool:
        options = [IDLE | {"AMONG": n} for n in range(10)]
        good = [pool.submit(submit, hub, site, user, *options) for user in ("alice", "bob")]
        for n in range(20):
            publish(broker, site, bad[n::20])
            time.sleep(0.1)  # so that the good ones come between them
        publish(broker, site, strange)
        os.kill(site.pid, signal.SIGCONT)
        outcomes = [said for future in good for said in future.result()]
    assert len(outcomes) == 20
    assert all("uid" in said for said in outcomes), outcomes
    until(lambda: ended(site) >= before + len(bad) + len(strange), "all to be refused")
    assert ended(site) == before + len(bad) + len(strange), "each once"
    stages = {what: n for what, n in (refusals(site) - refused).items() if what.startswith("refused")}
    assert set(stages) == {"refused at stage command", "refused at stage identity"}
    assert stages["refused at stage command"] >= len(bad)
    assert (site.folder / "audit.log").stat().st_size < 4 << 20, "others' lines are not lost among these"
    assert "uid" in submit(hub, site, "bob", {"AFTER": "all"})[0]
    assert site.pid == pid
    assert psutil.Process(pid).memory_info().rss < memory + 100 * 2**20


# Too large.


def peak(pid: int) -> int:
    """The most memory that a process has had since `forget_peak`, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0])


def forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def grown(field: bytes, size: int) -> bytes:
    """A start command of nobody's with so many bytes of lists in a field: in memory they take twenty times as many."""
    lists = b'{"x":[' + b"[]," * (size // 3) + b"0]}"
    return spoiled(**{field.decode(): "HERE"}).replace(b'"HERE"', lists)


def test_what_is_too_long_is_refused_without_being_parsed(
    hub: HubProcess, site: ManagerProcess, broker: PrivateBroker
) -> None:
    pid, refused = site.pid, len(site.audit("refused"))
    memory = psutil.Process(pid).memory_info().rss
    forget_peak(pid)
    publish(broker, site, [grown(b"user_runtime", 8_600_000)] * 3 + [grown(b"user_opts", 8_600_000)] * 3)
    until(lambda: len(site.audit("refused")) == refused + 6, "all to be refused")
    assert all("too large" in line["reason"] for line in site.audit("refused")[refused:])
    assert peak(pid) < memory + 100 * 2**20
    assert "uid" in submit(hub, site, "bob", {"AFTER": "large ones"})[0]
    assert site.pid == pid


@pytest.mark.parametrize(("field", "size"), [("user_runtime", 1_900_000), ("user_opts", 1_900_000)])
def test_nothing_large_is_kept_of_a_user_endpoint_that_runs(
    hub: HubProcess, site: ManagerProcess, broker: PrivateBroker, field: str, size: int
) -> None:
    """The command of a refresh is on record in memory and on disk, for as long as the user endpoint runs."""
    (said,) = submit(hub, site, "alice", {"LARGE": field})
    name = next(line["endpoint"] for line in site.audit("started") if line["pid"] == said["pid"])
    first = next(line for line in site.audit("mapped") if line["endpoint"] == name)
    identity = {"sub": first["identity"], "id": first["identity"], "username": first["username"], "status": "used"}
    command = json.loads(
        spoiled(
            globus_effective_identity=first["identity"],
            globus_username=first["username"],
            globus_identity_set=[identity],
            name=name,
        ).replace(b":5672/", b":1/")
    )
    command["kwargs"][field] = {"x": "y" * size}
    refused = len(site.audit("refused"))
    publish(broker, site, [json.dumps(command).encode()])
    until(lambda: len(site.audit("refused")) > refused, "the refresh to be refused")
    kept = [path for path in (site.folder / "run").rglob("*") if path.is_file() and path.stat().st_size > 2**18]
    assert kept == []
    assert submit(hub, site, "alice", {"LARGE": field})[0]["pid"] == said["pid"], "it goes on"


# Too many of one user's.


def test_limits_of_a_user(hub: HubProcess, site: ManagerProcess) -> None:
    limits = {"max_ueps_per_user": 2, "starts_per_minute_per_user": 5}
    with edited(site, limits=limits, start_patience=1):  # so that the sixth start of a minute is not waited for
        first, second, third, again = submit(
            hub, site, "alice", {"A": 1}, {"A": 2}, {"A": 3}, {"A": 1}, one_by_one=True
        )
        assert first["pid"] != second["pid"]
        assert "You may have 2 user endpoints at a time" in third["error"]
        assert again["pid"] == first["pid"], "those that run go on"
        *_, other, last = submit(hub, site, "bob", *[{"BROKEN": n} for n in range(5)], {"B": 1}, one_by_one=True)
        assert "NO_SUCH_OPTION" in other["error"]
        assert "may be started 5 times a minute" in last["error"]
        assert re.search(UTC, last["error"])
        stages = Counter(line["stage"] for line in site.audit("refused")[-7:])
        assert stages["admission"] == 2


def test_who_keeps_dying_is_held_back_until_a_restart(hub: HubProcess, site: ManagerProcess) -> None:
    options = [{"DIES": n} for n in range(5)]
    *died, held_back = [said["error"] for said in submit(hub, site, "alice", *options, one_by_one=True)]
    assert all("ended unexpectedly (signal 9 (SIGKILL))" in text for text in died)
    assert "keep ending before their first result, the last one with: signal 9 (SIGKILL)" in held_back
    assert re.search(UTC, held_back)
    assert "uid" in submit(hub, site, "bob", {})[0], "nobody else is"
    site.restart()
    assert "uid" in submit(hub, site, "alice", {})[0]
