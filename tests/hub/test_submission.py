"""Submissions: decoded, stored, published; or refused, or taken back when they cannot be published."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from hub import endpoints, submission
from hub.amqp import topology
from hub.amqp.passwords import Passwords
from hub.callers import Callers
from hub.commands import Commands
from hub.limits import Limits
from hub.shared_lock import SharedLock
from hub.submission import Submitter, decode
from hub.web import ApiError, Forbidden, Invalid, NotFound
from tests.hub.units import (
    ADMIN,
    ALICE,
    BOB,
    CLIENTS,
    CONFIG,
    StubBroker,
    add_function,
    add_manager,
    change,
    new_id,
    one,
    rows,
    run,
)
from wire.messages import unpack


@pytest.fixture
def broker():
    return StubBroker()


class Site:
    """A manager, Alice's function, and who takes submissions."""

    def __init__(self, store, broker, **limits):
        self.store = store
        self.broker = broker
        commands = Commands(store, broker, Passwords(store), CONFIG, Callers(store, CLIENTS))
        self.submitter = Submitter(store, broker, commands, Limits(**limits), SharedLock())
        self.function = new_id()

    async def set_up(self, **record):
        self.manager = await add_manager(self.store, ADMIN, **record)
        await add_function(self.store, self.function)

    def submit(self, caller=ALICE, **body):
        body = {"tasks": {self.function: ["args"]}, **body}

        async def submit():
            manager = await endpoints.read_manager(self.store, self.manager)
            return await self.submitter.submit(caller, manager, decode(body))

        return run(submit())

    def tasks(self):
        return [row.id for row in rows(self.store, "SELECT id FROM task ORDER BY rowid")]


@pytest.fixture
def site(store, broker):
    made = Site(store, broker)
    run(made.set_up())
    return made


def refusal(call, *arguments, **more):
    with pytest.raises(ApiError) as refused:
        call(*arguments, **more)
    return refused.value


def test_a_body_is_decoded_with_what_is_not_given():
    read = decode({"tasks": {"f": ["a"]}, "user_endpoint_config": None, "more": 1})
    assert read == submission.Submission({"f": ["a"]}, None, False, {}, {}, None, [])


def test_a_task_group_whose_id_the_client_has_made_up_is_its(site):
    group = new_id()
    with pytest.raises(NotFound):
        site.submit(task_group_id=group)
    made_up = replace(decode({"tasks": {site.function: ["args"]}, "task_group_id": group}), group_may_be_new=True)
    manager = run(endpoints.read_manager(site.store, site.manager))
    for _ in range(2):
        assert run(site.submitter.submit(ALICE, manager, made_up))["task_group_id"] == group
    run(change(site.store, "UPDATE function SET public = true"))
    with pytest.raises(NotFound):
        run(site.submitter.submit(BOB, manager, made_up))


def test_of_two_who_make_up_the_same_group_at_once_one_gets_it(site):
    made_up = replace(decode({"tasks": {site.function: ["args"]}, "task_group_id": new_id()}), group_may_be_new=True)
    manager = run(endpoints.read_manager(site.store, site.manager))
    run(change(site.store, "UPDATE function SET public = true"))

    async def both():
        submissions = (site.submitter.submit(caller, manager, made_up) for caller in (ALICE, BOB))
        return await asyncio.gather(*submissions, return_exceptions=True)

    ends = run(both())
    assert [end["task_group_id"] for end in ends if isinstance(end, dict)] == [made_up.task_group]
    assert [type(end) for end in ends if not isinstance(end, dict)] == [NotFound]
    assert len(site.tasks()) == 1


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, "tasks: missing"),
        ({"tasks": {}}, "tasks: expected"),
        ({"tasks": {"f": []}}, "tasks: expected"),
        ({"tasks": {"f": [1]}}, "tasks: expected"),
        ({"tasks": {"f": "args"}}, "tasks: expected"),
        ({"tasks": {"f": ["a"]}, "task_group_id": "x"}, "task_group_id: expected a UUID"),
        ({"tasks": {"f": ["a"]}, "result_serializers": [1]}, "result_serializers: expected"),
        ({"tasks": {"f": ["a"]}, "user_endpoint_config": []}, "user_endpoint_config: wrong type"),
    ],
)
def test_a_body_that_does_not_fit_is_refused_with_the_field(body, text):
    with pytest.raises(Invalid, match=text):
        decode(body)


def test_tasks_reach_the_queue_of_the_user_endpoint_and_the_manager_its_command(site):
    options = {"account": "x"}
    asked = site.function.upper()
    body = {"tasks": {asked: ["one", "two"]}, "user_endpoint_config": options, "create_queue": True}
    answer = site.submit(**body, resource_specification={"num_nodes": 2})
    user_endpoint = endpoints.user_endpoint_id(site.manager, ALICE.identity.id, options)
    assert answer["endpoint_id"] == site.manager
    assert answer["tasks"] == {asked: site.tasks()}
    queue = topology.task_queue(user_endpoint)
    sent = [unpack(body) for body in site.broker.sent_to(queue)]
    assert [(task.task_id, task.task_buffer) for task in sent] == list(
        zip(site.tasks(), ["CODE one", "CODE two"], strict=True)
    )
    headers = site.broker.sent[0][0].properties["headers"]
    assert headers["function_uuid"] == site.function
    assert json.loads(headers["resource_specification"]) == {"num_nodes": 2}
    group_queue = topology.client_queue_prefix(ALICE.identity.id) + answer["task_group_id"]
    assert site.broker.calls == [("declare for a client", group_queue), ("declare", queue)]
    (command,) = site.broker.sent_to(topology.command_queue(site.manager))
    assert json.loads(command)["kwargs"]["user_opts"] == options


def test_the_same_options_go_to_the_same_user_endpoint(site):
    for options in ({"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1}):
        site.submit(user_endpoint_config=options)
    assert len(rows(site.store, "SELECT * FROM user_endpoint")) == 2


def test_a_function_that_was_registered_as_source_is_packed_as_workers_read_it(site):
    source = new_id()
    run(add_function(site.store, source, serialized=False))
    site.submit(tasks={source: ["args"]})
    assert unpack(site.broker.sent[0][1]).task_buffer == "10\nst\nf:CODE args"


def test_who_may_run_what(site):
    assert isinstance(refusal(site.submit, BOB), Forbidden), "not public"
    assert isinstance(refusal(site.submit, tasks={new_id(): ["a"]}), NotFound)
    public = new_id()
    run(add_function(site.store, public, public=True))
    assert site.tasks() == []
    site.submit(BOB, tasks={public: ["a"]})
    assert len(site.tasks()) == 1


def test_an_endpoint_that_runs_some_functions_only(store, broker):
    allowed = new_id()
    site = Site(store, broker)
    run(site.set_up(allowed_functions=[allowed]))
    run(add_function(site.store, allowed))
    assert "not permitted" in str(refusal(site.submit))
    assert site.tasks() == []
    site.submit(tasks={allowed: ["a"]})


def test_a_task_group_is_its_owners(site):
    group = site.submit()["task_group_id"]
    assert site.submit(task_group_id=group.upper())["task_group_id"] == group
    public = new_id()
    run(add_function(site.store, public, public=True))
    assert isinstance(refusal(site.submit, BOB, tasks={public: ["a"]}, task_group_id=group), NotFound)
    assert isinstance(refusal(site.submit, task_group_id=new_id()), NotFound)


def test_a_group_that_once_had_a_queue_keeps_it(site):
    group = site.submit(create_queue=True)["task_group_id"]
    site.submit(task_group_id=group)
    assert one(site.store, "SELECT has_queue FROM task_group WHERE id = :id", id=group).has_queue == 1


def test_what_cannot_be_published_is_taken_back(site):
    user_endpoint = endpoints.user_endpoint_id(site.manager, ALICE.identity.id, {})
    site.broker.unroutable = {topology.task_queue(user_endpoint)}
    assert refusal(site.submit).status == 503
    assert site.tasks() == []
    site.broker.unroutable = set()
    site.broker.lose()
    assert refusal(site.submit).status == 503
    assert site.tasks() == []
    assert site.broker.sent == []


def test_a_queue_that_is_full_is_said(site):
    user_endpoint = endpoints.user_endpoint_id(site.manager, ALICE.identity.id, {})
    site.broker.full = {topology.task_queue(user_endpoint)}
    assert refusal(site.submit).status == 429
    assert site.tasks() == []


def test_one_client_has_so_many_task_groups(store, broker):
    site = Site(store, broker, task_groups=2)
    run(site.set_up())
    group = site.submit()["task_group_id"]
    site.submit()
    assert "2 task groups" in str(refusal(site.submit))
    site.submit(task_group_id=group)
    manager = run(endpoints.read_manager(store, site.manager))
    made_up = replace(decode({"tasks": {site.function: ["args"]}, "task_group_id": new_id()}), group_may_be_new=True)
    with pytest.raises(ApiError, match="2 task groups"):
        run(site.submitter.submit(ALICE, manager, made_up))
    run(site.submitter.submit(ALICE, manager, replace(made_up, task_group=group)))


def test_waiting_tasks_are_counted_again_before_they_are_too_many(store, broker):
    site = Site(store, broker, tasks_waiting=3)
    run(site.set_up())
    site.submit(tasks={site.function: ["a", "b", "c"]})
    assert "3 of your tasks" in str(refusal(site.submit))
    run(change(store, "UPDATE task SET ended_at = 1"))
    site.submit()


def test_what_the_broker_would_not_take_is_refused(site, monkeypatch):
    """A message that is too large for RabbitMQ costs the hub's connection, and everybody a 503."""
    monkeypatch.setattr(submission, "TASK_BYTES", 1000)
    monkeypatch.setattr(submission, "SUBMISSION_BYTES", 2500)
    site.submit(tasks={site.function: ["x" * 900] * 2})
    for arguments in (["x" * 1000], ["\u00e9" * 200], ["x" * 900] * 3):  # what is not ASCII is longer in JSON
        refused = refusal(site.submit, tasks={site.function: arguments})
        assert (refused.status, refused.code) == (413, "PAYLOAD_TOO_LARGE")
    assert len(site.tasks()) == 2


def test_many_large_tasks_are_published_in_turns(site, monkeypatch):
    monkeypatch.setattr(submission, "AHEAD_BYTES", 100)
    site.submit(tasks={site.function: [str(n) for n in range(50)]})
    queue = topology.task_queue(endpoints.user_endpoint_id(site.manager, ALICE.identity.id, {}))
    assert [unpack(body).task_buffer for body in site.broker.sent_to(queue)] == [f"CODE {n}" for n in range(50)]


def test_a_client_has_so_many_tasks_waiting_and_user_endpoints(store, broker):
    site = Site(store, broker, tasks_waiting=3, user_endpoints=2)
    run(site.set_up())
    run(add_function(site.store, public := new_id(), public=True))
    site.submit(tasks={site.function: ["a", "b"]}, user_endpoint_config={"n": 1})
    too_many = refusal(site.submit, tasks={site.function: ["a", "b"]}, user_endpoint_config={"n": 1})
    assert (too_many.status, str(too_many)[:7]) == (429, "2 of yo")
    assert len(site.tasks()) == 2, "nothing of it is stored"
    site.submit(caller=BOB, tasks={public: ["a", "b", "c"]})
    site.submit(tasks={site.function: ["c"]}, user_endpoint_config={"n": 2})
    run(change(store, "UPDATE task SET ended_at = 1"))
    assert "2 user endpoints" in str(refusal(site.submit, user_endpoint_config={"n": 3}))
    site.submit(user_endpoint_config={"n": 2})


@pytest.mark.parametrize(
    "body",
    [
        {"resource_specification": {"a": "x" * 70_000}},
        {"result_serializers": ["x"] * 20_000},
        {"user_endpoint_config": {"a": "x" * 300_000}},
        {"user_runtime": {"a": "x" * 300_000}},
    ],
)
def test_what_does_not_fit_into_headers_is_too_large(site, body):
    """One frame of AMQP; more of it ended the hub's connection."""
    assert refusal(site.submit, **body).status == 413
    assert site.tasks() == []
