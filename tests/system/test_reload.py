"""An edited profile is taken over as a whole, or refused as a whole."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.hub import HubProcess
from lab.manager import ManagerProcess
from lab.waiting import until
from tests.accounts import BOB
from tests.system.clients import caller, request_of, submit
from tests.system.sites import MAPPING, TEMPLATE

pytestmark = pytest.mark.system


@pytest.fixture
def edited(manager: ManagerProcess) -> Iterator[ManagerProcess]:
    """The manager, with the old files back in force afterwards."""
    before = {path: path.read_bytes() for path in manager.profile.iterdir() if path.name != "endpoint.log"}
    yield manager
    for path, content in before.items():
        path.write_bytes(content)
    assert "profile reloaded\n" in manager.reload()


@pytest.fixture
def run(hub: HubProcess, edited: ManagerProcess) -> Any:
    return caller(hub, edited)


def test_template_schema_environment_and_mapping(edited: ManagerProcess, run: Any) -> None:
    first = run("alice", RUN="reload")
    (edited.profile / "user_config_template.yaml.j2").write_text(TEMPLATE + "\n# {{ NEW }}\n")
    (edited.profile / "user_config_schema.json").write_text(json.dumps({"properties": {"NEW": {"type": "integer"}}}))
    (edited.profile / "user_environment.yaml").write_text("SITE: new\n")
    edited.write_mapping([*MAPPING, {"source": "{username}", "match": "mallory@example\\.org", "output": BOB}])
    assert "profile reloaded\n" in edited.reload()
    assert "NEW" in run("alice", RUN="reload 2")["error"]
    assert "it takes a whole number" in run("alice", RUN="reload 2", NEW="x")["error"]
    assert "uid" in run("mallory", NEW=1)
    assert run("alice", RUN="reload", NEW=1)["pid"] != first["pid"], "other options are another user endpoint"


def test_a_bad_edit_is_refused_and_the_old_profile_stays_in_force(edited: ManagerProcess, run: Any) -> None:
    (edited.profile / "user_config_template.yaml.j2").write_text("{% if %}")
    (edited.profile / "user_config_schema.json").write_text("{")
    said = edited.reload()
    assert "the old one stays in force" in said
    assert "user_config_template.yaml.j2: line 1" in said
    assert "user_config_schema.json: not JSON" in said, "all that is wrong, at once"
    assert "uid" in run("alice", RUN="after a bad edit")


def test_keys_that_need_a_restart_are_named(edited: ManagerProcess) -> None:
    path = edited.profile / "config.yaml"
    keys = {**yaml.safe_load(path.read_text()), "amqp_port": 1, "heartbeat_period": 7}
    path.write_text(yaml.safe_dump(keys))
    assert "a restart is needed for: amqp_port" in edited.reload()


def test_logs_can_be_rotated(edited: ManagerProcess, run: Any) -> None:
    for path in (edited.profile / "endpoint.log", edited.folder / "audit.log"):
        path.rename(path.with_suffix(".1"))
    run("alice", RUN="rotated")
    assert edited.audit("received")
    assert "received" in (edited.profile / "endpoint.log").read_text()
    for path in (edited.folder / "audit.log",):
        path.write_text(path.with_suffix(".1").read_text() + path.read_text())


def test_a_program_that_users_cannot_execute_is_a_bad_edit(edited: ManagerProcess, tmp_path: Path) -> None:
    path = edited.profile / "config.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "uep_command": [str(tmp_path / "nosuch")]}))
    assert "cannot be executed" in edited.reload()


def wait_for(edited: ManagerProcess, text: str, before: int) -> None:
    until(lambda: text in edited.log.read_text()[before:], f"the log to say {text!r}")


def test_an_edited_mapping_is_taken_over_by_itself(edited: ManagerProcess, run: Any) -> None:
    before = edited.log.stat().st_size
    more = {"source": "{username}", "match": "mallory@example\\.org", "output": BOB}
    edited.write_mapping([*MAPPING, more])
    wait_for(edited, "_mapping_config.json is in force", before)
    assert "uid" in run("mallory")
    (digest,) = {line["mapping"] for line in edited.audit("mapped") if line["username"] == "mallory@example.org"}
    assert digest in edited.log.read_text()
    before = edited.log.stat().st_size
    (edited.profile / "example_identity_mapping_config.json").write_text("[")
    wait_for(edited, "the old one stays in force", before)
    assert "edited mapping refused" in edited.run("status", edited.name).stdout
    assert "uid" in run("mallory", RUN="still"), "the last good one"
    time.sleep(6)
    assert edited.log.read_text()[before:].count("edited identity mapping is refused") == 1, "said once"


TYPO = TEMPLATE.replace("max_workers: 1", "max_wrokers: 1")


def test_the_command_answers_as_the_manager_does(edited: ManagerProcess) -> None:
    done = edited.run("reload", edited.name)
    assert (done.returncode, done.stderr) == (0, "")
    assert "is in force" in done.stdout
    (edited.profile / "user_config_template.yaml.j2").write_text(TYPO)
    done = edited.run("reload", edited.name)
    assert done.returncode == os.EX_CONFIG
    assert "did you mean 'max_workers'" in done.stderr and "the old one stays in force" in done.stderr
    assert "did you mean 'max_workers'" in edited.run("status", edited.name).stdout
    path = edited.profile / "config.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "pam": {"service_name": "nosuch"}}))
    done = edited.run("reload", edited.name)
    assert done.returncode == os.EX_CONFIG and "/etc/pam.d/nosuch" in done.stderr


def test_several_who_ask_at_once_are_all_answered(edited: ManagerProcess) -> None:
    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(lambda _: edited.run("reload", edited.name), range(3)))
    assert [each.returncode for each in done] == [0, 0, 0], [each.stderr for each in done]


def test_nobody_answers_where_no_manager_runs(edited: ManagerProcess) -> None:
    done = edited.run("reload", "nosuch")
    assert (done.returncode, "no profile of this name" in done.stderr) == (os.EX_CONFIG, True)
    assert edited.run("configure", "still").returncode == 0
    assert edited.run("reload", "still").returncode == os.EX_UNAVAILABLE


def test_a_broken_edit_is_never_in_force_and_keeps_no_manager_from_starting(edited: ManagerProcess, run: Any) -> None:
    assert edited.run("reload", edited.name).returncode == 0
    kept = edited.folder / "etc" / "accepted" / f"{edited.name}.json"
    assert (kept.stat().st_mode & 0o777, kept.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    (edited.profile / "user_config_template.yaml.j2").write_text(TYPO)
    before = edited.log.stat().st_size
    edited.restart()
    assert "did you mean 'max_workers'" in edited.log.read_text()[before:], "loudly"
    assert "is in force" in edited.run("status", edited.name).stdout
    checked = edited.run("check", "--files", edited.name)
    assert checked.returncode == os.EX_CONFIG and "accepted on" in checked.stdout
    assert "uid" in run("alice", RUN="with the accepted profile")
    (edited.profile / "config.yaml").write_text("nonsense: 1\n")
    edited.restart()
    assert "uid" in run("alice", RUN="with the accepted profile")
    assert edited.run("reload", edited.name).returncode == os.EX_CONFIG


def test_a_first_start_of_a_broken_profile_is_refused(edited: ManagerProcess) -> None:
    (edited.profile / "user_config_template.yaml.j2").write_text(TYPO)
    path = edited.profile / "endpoint.json"
    registered = path.read_text()
    edited.stop()
    try:
        path.write_text(json.dumps({**json.loads(registered), "endpoint_id": str(uuid.uuid4())}))
        done = edited.run("start", edited.name)
        assert done.returncode == os.EX_CONFIG, "what was accepted for another endpoint of this name counts for nothing"
        assert "did you mean 'max_workers'" in done.stderr
    finally:
        path.write_text(registered)
        edited.start()


WRITES_LATER = """
def task(begun, done):
    import pathlib, time
    pathlib.Path(begun).touch()
    time.sleep(20)
    pathlib.Path(done).touch()
"""


@pytest.mark.parametrize("way", ["denied", "not mapped"])
def test_who_loses_the_right_to_run_loses_what_runs(
    hub: HubProcess, edited: ManagerProcess, run: Any, way: str
) -> None:
    """The task that runs does not come to its end, its user is told why, and nobody else notices."""
    folder = edited.folder / f"right {way}"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    begun, done = folder / "begun", folder / "done"
    other = run("alice", RUN=f"goes on {way}")
    with ThreadPoolExecutor(1) as pool:
        options = {"RUN": f"loses {way}"}
        future = pool.submit(
            submit, hub, edited, "bob", options, function=WRITES_LATER, arguments=[str(begun), str(done)]
        )
        until(begun.exists, "the task to run")
        if way == "denied":
            path = edited.profile / "config.yaml"
            path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "accounts": {"deny_users": [BOB]}}))
            assert "profile reloaded\n" in edited.reload()
        else:
            edited.write_mapping([{**MAPPING[0], "match": "(alice)@example\\.org"}, *MAPPING[1:]])
        (said,) = future.result()
    assert not done.exists()
    stage, cause = {"denied": ("admission", "may not run"), "not mapped": ("identity", "not mapped")}[way]
    assert cause in said["error"]
    withdrawn = edited.wait_for("withdrawn", request=request_of(said))
    assert (withdrawn["account"], withdrawn["stage"]) == (BOB, stage)
    assert edited.wait_for("exited", endpoint=withdrawn["endpoint"])
    refusal = edited.wait_for("refused", request=request_of(said))
    assert (refusal["endpoint"], refusal["stage"]) == (withdrawn["endpoint"], stage)
    journal = [line for line in edited.log.read_text().splitlines() if f"[{request_of(said)}]" in line]
    for line in (withdrawn, refusal):
        assert any(line["reason"] in said for said in journal), line["reason"]
    assert not done.exists()
    refused = run("bob", RUN=f"loses {way}")["error"]
    assert "(request " in refused and ("may not run" in refused or "not mapped" in refused)
    assert run("alice", RUN=f"goes on {way}")["pid"] == other["pid"]
