"""What `mep check --files` and `mep explain` say of slips that nobody else tells before a user meets them."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.accounts import LocalAccount
from lab.manager import MEP
from mep.accounts import look_up
from mep.cli import checks, dry_run
from mep.cli.checks import FAIL, NOTE, OK
from mep.daemon.endpoint_check import Verdict
from mep.monitor.stages import plan
from mep.processes.sealed_file import SealedFile
from mep.profile.paths import Paths
from mep.reader import loader
from mep.request.launch_plan import LaunchPlan
from mep.request.mapped_identity import MappedIdentity
from mep.request.refusal import Refused
from mep.request.rendered_config import RenderedConfig
from mep.request.start_endpoint import StartEndpoint

pytestmark = pytest.mark.usefixtures("root")


@pytest.fixture(scope="module")
def account(root: None) -> Iterator[LocalAccount]:
    with LocalAccount("meptest_checks") as made:
        yield made


def said(directory: Path, verdict: str) -> str:
    """The lines of one verdict, as people see them."""
    folder = directory.parent
    lines = checks.lines(directory, Paths(folder, folder / "state", folder / "run", folder), files_only=True)
    return "\n".join(f"{line.what}: {line.text}" for line in lines if line.verdict == verdict)


def configured(directory: Path, **keys: Any) -> Path:
    path = directory / "config.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **keys}))
    return directory


@pytest.mark.parametrize(
    ("policy", "verdict", "told"),
    [
        ({"deny_groups": ["nosuchgrp"]}, FAIL, "no group 'nosuchgrp': nobody is admitted"),
        ({"allow_groups": ["nosuchgrp"]}, FAIL, "no group 'nosuchgrp': nobody is admitted"),
        ({"allow_users": ["nosuchusr"]}, FAIL, "no user 'nosuchusr': nobody is admitted"),
        ({"allow_groups": ["nosuchgrp", "daemon"]}, NOTE, "no group 'nosuchgrp'; is it misspelt"),
        ({"allow_users": ["nosuchusr", "daemon"]}, NOTE, "no user 'nosuchusr'; is it misspelt"),
        ({"deny_users": ["nosuchusr"]}, NOTE, "no user 'nosuchusr'; if it is misspelt"),
    ],
)
def test_names_that_nobody_knows(profile_directory: Path, policy: object, verdict: str, told: str) -> None:
    assert told in said(configured(profile_directory, accounts=policy), verdict)


def test_what_every_user_would_load(profile_directory: Path) -> None:
    library = profile_directory.parent / "library.so"
    library.touch()
    (profile_directory / "user_environment.yaml").write_text(f"LD_PRELOAD: {library}\n")
    assert "LD_PRELOAD" not in said(profile_directory, NOTE)
    library.chmod(0o666)
    told = said(profile_directory, NOTE)
    assert f"user_environment.yaml: LD_PRELOAD: {library}: others than root may write to {library}" in told


def test_names_that_somebody_knows(profile_directory: Path) -> None:
    policy = {"deny_users": ["daemon"], "deny_groups": ["daemon"], "allow_groups": ["nogroup"]}
    configured(profile_directory, accounts=policy)
    assert said(profile_directory, FAIL) == "" and "accounts" not in said(profile_directory, NOTE)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("SCRATCH: /scratch/$USER", "SCRATCH: nothing expands '$USER'"),
        ("SCRATCH: '${HOME}/x'", "SCRATCH: nothing expands '${HOME}'"),
        ("SCRATCH: ~/x", "SCRATCH: nothing expands '~'"),
        ("WHO: $(id -un)", "WHO: nothing expands '$(id -un)'"),
        ("WHO: '{{ mapped_identity.local.uname }}'", "WHO: nothing expands '{{"),
        ("A:", "A: no value in YAML"),
        ("A: yes", "A: true in YAML"),
        ("PATH: /usr/bin:/opt/nosuch/bin", "PATH: no such folder here: '/opt/nosuch/bin'"),
    ],
)
def test_values_that_are_not_what_they_look_like(profile_directory: Path, text: str, told: str) -> None:
    (profile_directory / "user_environment.yaml").write_text(f"{text}\n")
    assert told in said(profile_directory, NOTE)


def test_template_and_schema_of_configure_agree(profile_directory: Path) -> None:
    for name in ("user_config_template.yaml.j2", "user_config_schema.json"):
        (profile_directory / name).write_text((resources.files("templates") / "default" / name).read_text())
    assert "user_config_" not in said(profile_directory, NOTE)


def test_an_option_that_no_template_reads(profile_directory: Path) -> None:
    schema = {"properties": {"WORKERS": {"type": "integer"}, "walltime": {"type": "string"}}}
    (profile_directory / "user_config_schema.json").write_text(json.dumps(schema))
    notes = said(profile_directory, NOTE)
    assert "the schema has an option 'walltime', which no template reads" in notes
    assert "'WORKERS'" not in notes


@pytest.mark.parametrize(
    ("schema", "template", "told"),
    [
        (
            {"A": {}},
            "{{ A }}{{ B | default(1) }}",
            "the template reads an option 'B' that is not in the schema, so it may have",
        ),
        (
            {"A": {"type": "integer"}},
            "{{ A | default('x') }}",
            "line 2: default('x') of 'A' breaks the schema: it takes a whole number",
        ),
        ({"A": {"$ref": "https://x.example/a"}}, "{{ A | default(1) }}", "$ref 'https://x.example/a' is elsewhere"),
        (
            {"A": {"type": "string"}},
            "{{ A | default('') | replace('\"', '') }}",
            "line 2: `replace` takes the quotes of 'A' away",
        ),
        ({"A": {}}, "{{ A[1:-1] }}", "line 2: `[...]` takes the quotes of 'A' away"),
        ({"A": {}}, "{{ A.strip('\"') }}", "line 2: `.strip()` takes the quotes of 'A' away"),
    ],
)
def test_template_and_schema_that_do_not_fit(
    profile_directory: Path, schema: dict[str, Any], template: str, told: str
) -> None:
    (profile_directory / "user_config_schema.json").write_text(json.dumps({"properties": schema}))
    (profile_directory / "user_config_template.yaml.j2").write_text(
        f"engine: {{type: ThreadPoolEngine}}\n# {template}\n"
    )
    notes = said(profile_directory, NOTE)
    assert told in notes and "j2: user_config_template" not in notes


@pytest.mark.parametrize(
    "template", ["{{ A | replace(' ', '_') }}", "{{ A.split()[0] }}", "{{ A[0] }}", "{{ N[1:-1] }}"]
)
def test_quotes_that_stay_or_cannot_matter(profile_directory: Path, template: str) -> None:
    schema = {"properties": {"A": {"type": "string"}, "N": {"type": "string", "pattern": "^[a-z]*$"}}}
    (profile_directory / "user_config_schema.json").write_text(json.dumps(schema))
    (profile_directory / "user_config_template.yaml.j2").write_text(
        f"engine: {{type: ThreadPoolEngine}}\n# {template}\n"
    )
    assert "takes the quotes" not in said(profile_directory, NOTE)


def test_no_function_at_all(profile_directory: Path) -> None:
    for nothing in ([], ""):
        assert "no function may run" in said(configured(profile_directory, allowed_functions=nothing), NOTE)


@pytest.mark.parametrize(
    ("key", "open_to"), [("allowed_functions", "all functions may run"), ("authentication_policy", "no policy")]
)
def test_a_key_that_keeps_nothing_out(profile_directory: Path, key: str, open_to: str) -> None:
    assert f"{key}: has no value, so" not in said(profile_directory, NOTE)
    assert f"{key}: has no value, so" in said(configured(profile_directory, **{key: None}), NOTE)
    assert open_to in said(profile_directory, NOTE)


@pytest.mark.parametrize(
    ("mapping", "told"),
    [
        ({"output": "root"}, "root never gets a user endpoint"),
        ({"source": "{user_name}"}, "'user_name', so this matches nobody; did you mean {username}?"),
    ],
)
def test_mappings_that_can_help_nobody(profile_directory: Path, mapping: dict[str, str], told: str) -> None:
    documents = json.loads((profile_directory / "mapping.json").read_text())
    documents[0]["mappings"].append(documents[0]["mappings"][0] | mapping)
    (profile_directory / "mapping.json").write_text(json.dumps(documents))
    assert told in said(profile_directory, NOTE)


def test_one_backslash(profile_directory: Path) -> None:
    text = (profile_directory / "mapping.json").read_text()
    (profile_directory / "mapping.json").write_text(text.replace("\\\\.", "\\."))
    assert "a backslash is written twice in JSON" in said(profile_directory, FAIL)


def test_a_folder_of_the_audit_trail_that_is_missing(profile_directory: Path, tmp_path: Path) -> None:
    configured(profile_directory, audit_log_path=str(tmp_path / "nosuch" / "audit.log"))
    assert f"make it: mkdir {tmp_path}/nosuch" in said(profile_directory, FAIL)


def test_credentials_that_are_missing(profile_directory: Path, tmp_path: Path) -> None:
    configured(profile_directory, client_credentials_path=str(tmp_path / "nosuch.yaml"))
    assert f"{tmp_path}/nosuch.yaml: no such file" in said(profile_directory, FAIL)


def test_a_full_disk_of_the_logs(profile_directory: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    with tmpfs(tmp_path / "full", "64k") as full:
        paths = Paths(tmp_path, tmp_path / "state", tmp_path / "run", full)
        profile = loader.load(profile_directory)
        assert checks._folders(profile, paths, profile_directory).verdict != FAIL
        (full / "filled").write_bytes(b"x" * 65536)
        line = checks._folders(profile, paths, profile_directory)
        assert line.verdict == FAIL and "No space left on device" in line.text and str(full) in line.text


@pytest.mark.parametrize(("options", "left"), [("32m", r"3\d MiB"), ("256m,nr_inodes=500", r"\d+ files")])
def test_a_disk_of_the_logs_with_little_room(profile_directory: Path, tmp_path: Path, options: str, left: str) -> None:
    (tmp_path / "small").mkdir()
    with tmpfs(tmp_path / "small", options) as small:
        paths = Paths(tmp_path, tmp_path / "state", tmp_path / "run", small)
        profile = loader.load(profile_directory)
        (line,) = [each for each in checks._room(profile, paths, profile_directory) if str(small) in each.text]
        assert line.verdict == NOTE and re.match(f"there is room for {left} only", line.text)
        audit = configured(profile_directory, audit_log_path=str(small / "audit.log"))
        told = [each.text for each in checks._room(loader.load(audit), paths, profile_directory)]
        assert [text for text in told if "audit.log" in text and "endpoint.log" in text], "one line for a file system"


class tmpfs:
    """A file system in memory of so many bytes."""

    def __init__(self, folder: Path, size: str) -> None:
        self._folder, self._size = folder, size

    def __enter__(self) -> Path:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={self._size},mode=0755", "tmpfs", self._folder], check=True
        )
        return self._folder

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "--lazy", self._folder], check=True)


# --- explain ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def planned(
    profile_directory: Path, account: LocalAccount, command: StartEndpoint, identity_of_alice: MappedIdentity
) -> LaunchPlan:
    owner = look_up.account(account.name)
    assert owner is not None
    return plan.make(
        loader.load(profile_directory), command, identity_of_alice, owner, RenderedConfig(SealedFile.of(b"engine: {}"))
    )


def launched(directory: Path, planned: LaunchPlan) -> str:
    """The reason for a refusal, to the user."""
    try:
        asyncio.run(dry_run.launch(loader.load(directory), planned, directory.parent / "run"))
    except Refused as e:
        return e.refusal.reason_for_user
    return ""


def test_a_home_in_order(profile_directory: Path, planned: LaunchPlan, account: LocalAccount) -> None:
    before = sorted(account.home.rglob("*"))
    assert launched(profile_directory, planned) == ""
    assert sorted(account.home.rglob("*")) == before, "nothing is left behind"


def test_a_home_that_is_missing(profile_directory: Path, planned: LaunchPlan, account: LocalAccount) -> None:
    moved = account.home.rename(account.home.with_name("meptest_checks_moved"))
    try:
        assert "cannot be entered: No such file or directory" in launched(profile_directory, planned)
    finally:
        moved.rename(account.home)


def test_a_home_that_is_closed(profile_directory: Path, planned: LaunchPlan, account: LocalAccount) -> None:
    os.chown(account.home, 0, 0)
    account.home.chmod(0o700)
    try:
        assert "cannot be entered: Permission denied" in launched(profile_directory, planned)
        account.home.chmod(0o755)
        assert "cannot be written to: Permission denied" in launched(profile_directory, planned)
    finally:
        os.chown(account.home, account.uid, account.gid)


def test_a_home_that_is_full(profile_directory: Path, planned: LaunchPlan, account: LocalAccount) -> None:
    with tmpfs(account.home, "64k"):
        os.chown(account.home, account.uid, account.gid)
        (account.home / "filled").write_bytes(b"x" * 65536)
        assert "cannot be written to: No space left on device" in launched(profile_directory, planned)


def test_as_many_user_endpoints_as_there_may_be(profile_directory: Path, planned: LaunchPlan) -> None:
    configured(profile_directory, limits={"max_ueps_per_user": 1})
    assert launched(profile_directory, planned) == ""
    folder = profile_directory.parent / "run" / "uep.one"
    folder.mkdir(parents=True)
    stat = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    process = {"pid": os.getpid(), "start_time": int(stat[19]), "uid": 0}
    (folder / "state.json").write_text(json.dumps({"process": process, "account": {"uid": planned.account.uid}}))
    assert "You may have 1 user endpoints at a time" in launched(profile_directory, planned)


def test_what_the_user_endpoint_itself_would_refuse(profile_directory: Path, planned: LaunchPlan) -> None:
    profile = loader.load(profile_directory)
    fine = dataclasses.replace(planned, handover={"config": "engine: {type: ThreadPoolEngine}"})
    assert asyncio.run(dry_run.ask_endpoint(profile, fine)) == Verdict(None)
    wrong = dataclasses.replace(planned, handover={"config": "engine: {type: ThreadPoolEngine, max_workers: 0}"})
    with pytest.raises(Refused) as caught:
        asyncio.run(dry_run.ask_endpoint(profile, wrong))
    assert caught.value.refusal.reason_for_user == "ThreadPoolEngine.max_workers: expected at least 1, got 0"
    assert caught.value.refusal.reason_for_admin.startswith("user_config_template.yaml.j2: ")


FUNCTION, HASH = "6d0b5a52-7d5b-4a4e-9f5a-0c7d3b1f5e01", "0f" * 32


def test_what_is_pinned_is_said(profile_directory: Path) -> None:
    found = said(configured(profile_directory, allowed_functions=[FUNCTION]), NOTE)
    assert "1 may run, with whatever code the service has of them" in found
    pinned = configured(profile_directory, allowed_functions=[f"{FUNCTION}@sha256:{HASH}"])
    assert f"pinned by the SHA-256 of their code: {FUNCTION} ({HASH[:12]}...)" in said(pinned, OK)


_ON_A_TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"


@pytest.mark.parametrize(
    ("variables", "words", "coloured"),
    [
        ({}, [], True),
        ({}, ["--no-color"], False),
        ({}, ["--json"], False),
        ({"NO_COLOR": "1"}, [], False),
        ({"NO_COLOR": ""}, [], True),
        ({"TERM": "dumb"}, [], False),
    ],
)
def test_a_terminal_gets_colours(
    profile_directory: Path, variables: dict[str, str], words: list[str], coloured: bool
) -> None:
    (profile_directory / "config.yaml").write_text("nosuch: 1\n")
    command = [MEP, "-c", str(profile_directory.parent), "check", profile_directory.name, "--files", *words]
    environment = {"PATH": "/usr/bin:/bin", "TERM": "xterm", **variables}
    for there, in_colour in (([sys.executable, "-c", _ON_A_TERMINAL, *command], coloured), (command, False)):
        done = subprocess.run(
            there, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False, timeout=60
        )
        assert done.returncode == os.EX_CONFIG
        assert b"FAIL" in done.stdout and (b"\x1b[31mFAIL\x1b[0m" in done.stdout) == in_colour
        assert (b"\x1b" in done.stdout) == in_colour
