"""What lies under /run for the next manager: nothing lost, nothing secret, nothing believed that is not so."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mep.monitor.endpoints import record, run_folder
from mep.monitor.endpoints.credentials import CredentialFile
from mep.monitor.endpoints.lifecycle import State
from mep.monitor.endpoints.record import RecordError
from mep.monitor.endpoints.user_endpoint import UserEndpoint
from mep.processes.process import Process
from mep.request.account import Account
from mep.request.refusal import Refusal
from mep.request.start_endpoint import StartEndpoint
from tests.mep.credentials import facts as facts_of
from tests.mep.credentials import inside, plain, seal, with_sealed


@pytest.fixture
def endpoint(tmp_path: Path, command: StartEndpoint, alice: Account) -> Iterator[UserEndpoint]:
    """This process, as if it were a user endpoint of alice's."""
    folder = tmp_path / "run" / "prod" / command.name
    pipe, audit = run_folder.make(folder, audited=True)
    assert audit is not None
    command = with_sealed(command)
    made = UserEndpoint(
        command=command,
        account=alice,
        process=Process.of(os.getpid(), os.getuid()),
        folder=folder,
        credentials=CredentialFile.create(folder / "credentials", command.credentials),
        pidfd=None,
        pipe=pipe,
        audit=audit,
        started=12.5,
    )
    yield made
    made.close()


@pytest.fixture
def saved(endpoint: UserEndpoint) -> Path:
    """The folder of one that is on record."""
    record.save(endpoint)
    return endpoint.folder


def loaded(folder: Path) -> UserEndpoint:
    """What `load` makes of the folder; its descriptors are closed."""
    found = record.load(folder)
    for descriptor in (found.pidfd, found.pipe, found.audit):
        if descriptor is not None:
            os.close(descriptor)
    return found


def test_what_is_saved_is_loaded(endpoint: UserEndpoint) -> None:
    endpoint.executed = True
    endpoint.state = State.RUNNING_ASKED
    endpoint.remembered_until = 99.25
    endpoint.scope = "mep-prod-uep.scope"
    endpoint.audit_session = 4711
    endpoint.worked = True
    endpoint.refusal = Refusal("orders", "killed by uid 0", "The administrators have ended it.")
    record.save(endpoint)
    found = loaded(endpoint.folder)
    unsaved = {"pidfd", "pipe", "audit", "adopted", "checked_in_after", "said", "exit", "forgotten"}
    for field in dataclasses.fields(UserEndpoint):
        if field.name == "command":
            assert facts_of(found.command) == facts_of(endpoint.command)
            assert found.command.credentials.key == endpoint.credentials.key
        elif field.name not in unsaved:
            assert getattr(found, field.name) == getattr(endpoint, field.name), field.name
    assert found.adopted
    assert found.pidfd is not None, "this process runs"
    assert found.pid == os.getpid()
    assert record.whose(endpoint.folder) == (endpoint.process, endpoint.scope, endpoint.audit_session)


def test_of_one_that_has_ended_there_is_no_descriptor(endpoint: UserEndpoint) -> None:
    endpoint.process = Process(endpoint.pid, endpoint.process.start_time + 1, endpoint.process.uid)
    record.save(endpoint)
    assert loaded(endpoint.folder).pidfd is None


def test_an_adopted_one_can_be_heard(endpoint: UserEndpoint) -> None:
    record.save(endpoint)
    found = record.load(endpoint.folder)
    assert found.pidfd is not None and found.pipe is not None and found.audit is not None
    found.close()


def test_the_newest_credentials_are_loaded(saved: Path, endpoint: UserEndpoint, message: dict[str, Any]) -> None:
    fresh = message["kwargs"]["amqp_creds"]
    fresh["task_queue_info"]["connection_url"] = "amqp://user:fresh@127.0.0.1:5672/%2F"
    endpoint.command = dataclasses.replace(endpoint.command, credentials=seal(plain(fresh), endpoint.credentials.key))
    endpoint.credentials.refresh(endpoint.command.credentials)
    record.save(endpoint)
    assert inside(loaded(saved).command.credentials) == fresh


def test_only_root_can_look(saved: Path) -> None:
    for umask in (0, 0o077):
        before = os.umask(umask)
        try:
            folder = saved.with_name("another")
            os.close(run_folder.make(folder, audited=False)[0])
            (folder / "credentials").unlink(missing_ok=True)
            CredentialFile.create(folder / "credentials", seal(plain({})))
        finally:
            os.umask(before)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert stat.S_IMODE(saved.stat().st_mode) == 0o700
    assert {path.name for path in saved.iterdir()} == {"state.json", "credentials", "pipe", "audit"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in saved.iterdir()} == {0o600}


def test_passwords_are_sealed(saved: Path, endpoint: UserEndpoint) -> None:
    assert "hunter2" in json.dumps(inside(endpoint.command.credentials)), "there is one to look for"
    for path in (saved / "state.json", saved / "credentials"):
        text = path.read_text()
        assert "hunter2" not in text
        assert "amqp:" not in text
    assert json.loads((saved / "state.json").read_text())["key"] == endpoint.credentials.key


def test_nothing_secret_is_printed(endpoint: UserEndpoint) -> None:
    assert "hunter2" not in repr(endpoint)
    assert endpoint.credentials.key not in repr(endpoint)


def test_a_new_state_replaces_the_old_one_whole(saved: Path, endpoint: UserEndpoint) -> None:
    with (saved / "state.json").open("rb") as earlier:
        endpoint.state = State.STOPPING
        (saved / "state.new").write_text("half of an earlier attem")
        record.save(endpoint)
        assert json.loads(earlier.read())["state"] == "starting", "who reads meanwhile reads the old one to its end"
    assert loaded(saved).state is State.STOPPING
    assert not (saved / "state.new").exists()


def edit(**facts: object) -> Callable[[dict[str, Any]], None]:
    return lambda saved: saved.update(facts)


def edit_in(part: str, **facts: object) -> Callable[[dict[str, Any]], None]:
    return lambda saved: saved[part].update(facts)


GARBAGE: dict[str, bytes | Callable[[dict[str, Any]], object]] = {
    "empty": b"",
    "half": b'{"format": 1, "process": {"pi',
    "not UTF-8": b"\xff\xfe\x00",
    "a list": b"[]",
    "null": b"null",
    "another format": edit(format=99),
    "no format": lambda facts: facts.pop("format"),
    "no key": lambda facts: facts.pop("key"),
    "credentials that are not sealed": edit(credentials='{"a": "b"}'),
    "no such state": edit(state="sleeping"),
    "a state that is a list": edit(state=[]),
    "no account": edit(account=None),
    "groups that are none": edit_in("account", groups=5),
    "a field too much": edit_in("command", surprise=1),
    "a field too few": lambda facts: facts["command"].pop("requester"),
    "a process that is a list": edit(process=[1, 2, 3]),
    "a pid that is text": edit_in("process", pid="1"),
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_garbage_is_named_and_left_alone(saved: Path, garbage: bytes | Callable[[dict[str, Any]], object]) -> None:
    spoil(saved, garbage)
    before = {path.name: path.lstat().st_mtime_ns for path in saved.iterdir()}
    with pytest.raises(RecordError, match="cannot be adopted") as caught:
        record.load(saved)
    assert str(caught.value).startswith(f"{saved}: ")
    assert "hunter2" not in str(caught.value)
    assert {path.name: path.lstat().st_mtime_ns for path in saved.iterdir()} == before


@pytest.mark.parametrize("name", ["state.json", "pipe"])
def test_a_file_that_is_missing_is_an_error(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(RecordError, match=str(saved)):
        record.load(saved)


@pytest.mark.parametrize("garbage", [edit_in("process", pid=2**40), b"[" * 200_000], ids=["huge pid", "deep"])
def test_garbage_that_is_further_out(saved: Path, garbage: bytes | Callable[[dict[str, Any]], object]) -> None:
    spoil(saved, garbage)
    for read in (record.open_process, lambda folder: record.load(folder)):
        with pytest.raises(RecordError, match=str(saved)):
            read(saved)


@pytest.mark.parametrize(
    "facts", [{"started": "x"}, {"remembered_until": None}, {"executed": "no"}, {"key": "x"}, {"key": 5}], ids=str
)
def test_values_are_what_they_should_be(saved: Path, facts: dict[str, object]) -> None:
    spoil(saved, edit(**facts))
    before = len(os.listdir("/proc/self/fd"))
    try:
        found = record.load(saved)
    except RecordError:
        assert len(os.listdir("/proc/self/fd")) == before
        return
    for descriptor in (found.pidfd, found.pipe):
        if descriptor is not None:
            os.close(descriptor)
    pytest.fail(f"believed: {facts}")


@pytest.mark.parametrize(
    "spoiled",
    [
        edit(state="sleeping"),
        None,
    ],
    ids=["state", "no pipe"],
)
def test_nothing_stays_open_after_an_error(saved: Path, spoiled: Callable[[dict[str, Any]], None] | None) -> None:
    if spoiled is None:
        (saved / "pipe").unlink()
    else:
        spoil(saved, spoiled)
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(RecordError):
        record.load(saved)
    left = set(os.listdir("/proc/self/fd")) - before
    for descriptor in left:
        os.close(int(descriptor))
    assert not left


def spoil(folder: Path, garbage: bytes | Callable[[dict[str, Any]], object]) -> None:
    path = folder / "state.json"
    if isinstance(garbage, bytes):
        path.write_bytes(garbage)
        return
    facts = json.loads(path.read_text())
    garbage(facts)
    path.write_text(json.dumps(facts))


def test_who_runs(saved: Path, endpoint: UserEndpoint) -> None:
    run_directory = saved.parent
    (run_directory / "manager.pid").write_text("1\n")
    (run_directory / "begun").mkdir()  # a start that did not come as far as its state
    os.close(run_folder.make(run_directory / "garbage", audited=False)[0])
    (run_directory / "garbage" / "state.json").write_text("{")
    ended = dataclasses.replace(endpoint, folder=run_directory / "ended", process=Process(endpoint.pid, 1, 0))
    ended.folder.mkdir()
    record.save(ended)
    assert {path.name for path in record.folders(run_directory)} == {saved.name, "garbage", "ended"}
    pidfds = {}
    for folder in (saved, run_directory / "ended"):
        if (pidfd := record.open_process(folder)) is not None:
            pidfds[folder.name] = pidfd
            os.close(pidfd)
    assert list(pidfds) == [saved.name]
    with pytest.raises(RecordError, match="garbage"):
        record.open_process(run_directory / "garbage")


def test_nobody_runs_where_there_is_no_folder(tmp_path: Path) -> None:
    assert record.folders(tmp_path / "nosuch") == []


def test_a_word_is_kept_while_nobody_reads(saved: Path, endpoint: UserEndpoint) -> None:
    """The manager ends, its user endpoint says `ready`, and the next manager hears it."""
    writing = run_folder.pipe_writing_end(saved)
    assert endpoint.pipe is not None
    os.close(endpoint.pipe)
    os.write(writing, b"ready\n")
    endpoint.pipe = record.load(saved).pipe
    assert endpoint.pipe is not None
    assert os.read(endpoint.pipe, 100) == b"ready\n"
    with pytest.raises(BlockingIOError):
        os.read(endpoint.pipe, 100)
    os.close(writing)
    assert os.read(endpoint.pipe, 100) == b"", "nobody is left who could write"


def test_descriptors_are_not_inherited_by_accident(saved: Path, endpoint: UserEndpoint) -> None:
    writing = run_folder.pipe_writing_end(saved)
    found = record.load(saved)
    assert found.pidfd is not None and found.pipe is not None and found.audit is not None and endpoint.pipe is not None
    for descriptor in (writing, endpoint.pipe, found.pidfd, found.pipe, found.audit):
        assert not os.get_inheritable(descriptor)
        assert fcntl.fcntl(descriptor, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    for descriptor in (writing, found.pidfd, found.pipe, found.audit):
        os.close(descriptor)


def test_what_an_earlier_version_wrote_is_read(saved: Path) -> None:
    facts = json.loads((saved / "state.json").read_text())
    del facts["scope"], facts["worked"], facts["audit_session"]
    before = [{"id": "a", "username": "alice@example.org"}]
    facts["command"] |= {"user_options": {"WORKERS": 2}, "user_runtime": {}, "identity_set": before}
    (saved / "state.json").write_text(json.dumps({**facts, "format": 1}))
    found = loaded(saved)
    assert json.loads(found.command.identity_set) == before
    assert (found.scope, found.worked, found.audit_session) == (None, False, None)
    assert record.whose(saved)[1:] == (None, None)
    assert (found.command.user_options, found.command.user_runtime) == ('{"WORKERS": 2}', "{}")


@pytest.mark.parametrize(
    ("state", "seconds", "now"),
    [
        ("starting", 0, State.STARTING),
        ("starting", 100, State.STARTING_ASKED),
        ("running", 100, State.RUNNING_ASKED),
        ("running", -100, State.RUNNING),
        ("stopping", 100, State.STOPPING_ASKED),
    ],
)
def test_a_command_that_an_earlier_version_remembered_is_remembered(
    saved: Path, state: str, seconds: float, now: State
) -> None:
    remembered_until = time.monotonic() + seconds if seconds else 0.0
    spoil(saved, edit(format=2, state=state, remembered_until=remembered_until))
    assert loaded(saved).state is now
