"""The commands that come from the public package, at a real hub; where both can do it, beside the public one."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from globus_compute_sdk.sdk.auth.auth_client import ComputeAuthClient
from globus_compute_sdk.sdk.auth.globus_app import get_globus_app

from lab import peer
from lab.accounts import LocalAccount
from lab.client import run_script
from lab.hub import HubProcess, identity
from lab.manager import MEP, ManagerProcess
from lab.waiting import until
from mep.profile import profile
from tests.accounts import ALICE
from tests.conftest import need
from tests.system.clients import CALL, caller
from tests.system.sites import MAPPING

pytestmark = pytest.mark.system
NAME = "words"


@pytest.fixture
def site(folder: Path, hub: HubProcess, accounts: dict[str, LocalAccount], tmp_path: Path) -> Iterator[ManagerProcess]:
    made = ManagerProcess(folder / f"words-{tmp_path.name}", hub, "admin", mapping=MAPPING, name=NAME)
    made.configure()
    yield made
    made.run("stop", NAME, "--user-endpoints")
    made.stop()


@pytest.fixture(scope="module")
def still(folder: Path, hub: HubProcess, accounts: dict[str, LocalAccount]) -> ManagerProcess:
    """A site whose manager is not started, for all tests that leave its profile as it is."""
    made = ManagerProcess(folder / "words-still", hub, "admin", mapping=MAPPING, name=NAME)
    made.configure()
    return made


def id_of(site: ManagerProcess) -> str:
    endpoint_id: str = json.loads((site.profile / "endpoint.json").read_text())["endpoint_id"]
    return endpoint_id


def wait_until_it_serves(site: ManagerProcess) -> None:
    until(lambda: "connected" in site.run("status", NAME).stdout, "it to serve")


def has_ended(pid: int) -> bool:
    """Also when nobody has asked yet how it ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


def typed(
    program: str | Path, arguments: Sequence[str], environment: Mapping[str, str], said: str = "", **more: Any
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *arguments],
        env=dict(environment),
        input=said,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        **more,
    )


def test_an_id_in_place_of_a_name(site: ManagerProcess) -> None:
    site.start()
    endpoint_id = id_of(site)
    assert f"Endpoint {NAME} runs" in site.run("status", endpoint_id).stdout
    assert site.run("reload", endpoint_id.upper()).returncode == 0
    assert site.run("stop", endpoint_id).stdout == f"Endpoint {NAME} stopped.\n"
    detached = site.run("start", endpoint_id, "--detach")
    assert detached.returncode == 0, detached.stderr
    wait_until_it_serves(site)
    unknown = site.run("status", str(uuid.uuid4()))
    assert unknown.returncode == os.EX_CONFIG
    assert "look at `mep list`" in unknown.stderr
    refused = site.run("configure", endpoint_id)
    assert refused.returncode == os.EX_USAGE
    assert "another name" in refused.stderr


def test_the_name_that_is_meant_when_none_is_given(still: ManagerProcess) -> None:
    assert still.run("configure").returncode == 0
    assert (still.folder / "etc" / "default" / "config.yaml").exists()
    assert still.run("stop").stdout == "Endpoint default is not running.\n"
    assert still.run("delete", "--yes").returncode == 0
    assert not (still.folder / "etc" / "default").exists()


def test_a_restart_of_one_that_runs_and_of_one_that_does_not(site: ManagerProcess) -> None:
    started = site.run("restart", NAME, "--detach")
    assert started.returncode == 0, started.stderr
    wait_until_it_serves(site)
    before = site.run("status", NAME).stdout
    again = site.run("restart", NAME, "--detach")
    assert again.returncode == 0, again.stderr
    wait_until_it_serves(site)
    pids = [re.search(r"pid (\d+)", text)[1] for text in (before, site.run("status", NAME).stdout)]  # type: ignore[index]
    assert pids[0] != pids[1]
    assert site.run("restart", "nosuch").returncode == os.EX_CONFIG


def test_user_endpoints_outlive_a_restart(site: ManagerProcess, hub: HubProcess) -> None:
    (site.profile / "user_config_template.yaml.j2").write_text("engine: {type: ThreadPoolEngine, max_workers: 1}\n")
    config = site.profile / "config.yaml"
    config.write_text(yaml.safe_dump({**yaml.safe_load(config.read_text()), "public": True}))
    site.start()
    call = caller(hub, site)
    before = call("alice")
    assert site.run("restart", NAME, "--detach").returncode == 0
    wait_until_it_serves(site)
    assert call("alice")["pid"] == before["pid"]
    refused = site.run("delete", NAME, "--yes")
    assert refused.returncode == os.EX_TEMPFAIL
    deleted = site.run("delete", NAME, "--yes", "--force")
    assert deleted.returncode == 0, deleted.stderr
    until(lambda: has_ended(before["pid"]), "its user endpoint to end")
    assert not (site.folder / "run" / NAME).exists()


def test_a_remote_stop(site: ManagerProcess) -> None:
    early = site.run("stop", NAME, "--remote")
    assert early.returncode == os.EX_DATAERR
    assert "has never been registered" in early.stderr
    site.start()
    done = site.run("stop", NAME, "--remote")
    assert done.returncode == 0, done.stderr
    assert "has cut off all instances" in done.stdout
    assert f"Endpoint {NAME} stopped." in done.stdout


def test_an_id_to_register_under(site: ManagerProcess) -> None:
    site.start()
    site.stop()
    endpoint_id = id_of(site)
    (site.profile / "endpoint.json").unlink()
    started = site.run("start", NAME, "--detach", "--endpoint-uuid", endpoint_id)
    assert started.returncode == 0, started.stderr
    assert id_of(site) == endpoint_id
    site.run("stop", NAME)
    assert site.run("start", NAME, "--endpoint-uuid", str(uuid.uuid4())).returncode == os.EX_DATAERR
    assert id_of(site) == endpoint_id, "nothing was changed"


def test_a_delete_asks_and_spares_what_runs(site: ManagerProcess) -> None:
    no = typed(MEP, ["delete", NAME], site.environment, "n\n")
    assert no.returncode == 1
    assert str(site.profile) in no.stdout
    site.start()
    endpoint_id = id_of(site)
    running = site.run("delete", NAME, "--yes")
    assert running.returncode == os.EX_TEMPFAIL
    assert "stop it first, or say --force" in running.stderr
    site.stop()
    kept = site.folder / "etc" / "accepted" / f"{NAME}.json"
    assert kept.exists()
    yes = typed(MEP, ["delete", endpoint_id], site.environment, "y\n")
    assert yes.returncode == 0, yes.stderr
    assert f"The service has forgotten endpoint {endpoint_id}" in yes.stdout
    for left in (site.profile, kept, site.folder / "run" / NAME, site.folder / "etc" / "user-endpoints" / NAME):
        assert not left.exists()
    variables = {**site.environment, **client_of(site)}
    other = typed(MEP, ["delete", endpoint_id, "--yes"], variables)
    assert other.returncode == os.EX_CONFIG
    assert "--force" in other.stderr
    assert "knows no" in typed(MEP, ["delete", endpoint_id, "--yes", "--force"], variables).stdout


def test_a_delete_without_a_profile_here(site: ManagerProcess) -> None:
    site.start()
    site.stop()
    endpoint_id = id_of(site)
    shutil.rmtree(site.profile)
    done = typed(MEP, ["delete", endpoint_id, "--yes", "--force"], {**site.environment, **client_of(site)})
    assert f"The service has forgotten endpoint {endpoint_id}" in done.stdout, done.stderr


def test_a_delete_without_a_service(site: ManagerProcess, hub: HubProcess) -> None:
    site.start()
    site.stop()
    other = site.profile.with_name("other")
    shutil.copytree(site.profile, other)
    hub.stop()
    try:
        with ThreadPoolExecutor() as both:  # each tries for a while
            first = both.submit(site.run, "delete", NAME, "--yes")
            forced = both.submit(site.run, "delete", "other", "--yes", "--force").result()
        done = first.result()
    finally:
        hub.start()
    assert done.returncode == os.EX_TEMPFAIL
    assert "Nothing was deleted; --force deletes what is here" in done.stderr
    assert site.profile.exists()
    assert forced.returncode == 0, forced.stderr
    assert "may stay known to the service" in forced.stdout
    assert not other.exists()


def client_of(site: ManagerProcess) -> dict[str, str]:
    """The login of the site in the environment, where the public package looks for one."""
    client = yaml.safe_load((site.folder / "client.yaml").read_text())
    names = {"client_id": "GLOBUS_COMPUTE_CLIENT_ID", "client_secret": "GLOBUS_COMPUTE_CLIENT_SECRET"}
    return {names[key]: value for key, value in client.items()}


def test_whoami_shows_linked_identities(still: ManagerProcess, hub: HubProcess) -> None:
    alice = hub.users["alice"]
    client = {"GLOBUS_COMPUTE_CLIENT_ID": alice.client_id, "GLOBUS_COMPUTE_CLIENT_SECRET": alice.client_secret}
    environment = {**still.environment, **client}
    one = typed(MEP, ["whoami"], environment)
    assert one.stdout.split() == ["alice@example.org", identity("alice@example.org")["id"]], one.stderr
    both = typed(MEP, ["whoami", "--linked-identities"], environment)
    assert [line.split()[1] for line in both.stdout.splitlines()] == [
        identity(name)["id"] for name in ("alice@example.org", "al@other.example")
    ]


def test_a_logout_spares_the_login_of_what_runs(site: ManagerProcess) -> None:
    site.start()
    refused = site.run("logout")
    assert refused.returncode == os.EX_TEMPFAIL
    assert f"endpoints are running: {NAME};" in refused.stderr
    assert site.run("logout", "--force").returncode == 0


def test_python_exec(still: ManagerProcess) -> None:
    done = typed(MEP, ["python-exec", "json.tool", "--help"], still.environment)
    assert done.returncode == 0
    assert "json.tool" in done.stdout
    assert still.run("python-exec", "json.tool", "/nosuch").returncode not in (0, os.EX_USAGE)
    shown = still.run("python-exec", "site")
    assert str(Path(sys.executable).parent.parent) in shown.stdout


def test_the_public_manager_starts_our_user_endpoint_by_its_public_name(
    folder: Path, hub: HubProcess, accounts: dict[str, LocalAccount]
) -> None:
    need(peer.program().exists(), "needs the public package (lab/setup peer)")
    names = folder / "public-names"
    names.mkdir()
    (names / "globus-compute-endpoint").symlink_to(MEP)
    template = "engine: {type: ThreadPoolEngine, max_workers: 1}\n"
    made = peer.PublicManager(folder / "there", hub, "admin", mapping=MAPPING, template=template, names=names)
    with made as manager:
        (said,) = run_script(hub, "alice", CALL, manager.endpoint_id, "{}")
        assert said["uid"] == accounts[ALICE].uid
        assert "mep-uep" in Path(f"/proc/{said['pid']}/cmdline").read_text()


def test_boot_is_for_profiles_of_the_system(still: ManagerProcess, accounts: dict[str, LocalAccount]) -> None:
    for command in ("enable-on-boot", "disable-on-boot"):
        done = still.run(command, NAME)
        assert done.returncode == os.EX_USAGE
        assert f"--config-dir {still.profile.parent} start {NAME}" in done.stderr
    assert as_alice(MEP, ["--config-dir", str(still.profile.parent), "enable-on-boot", NAME], accounts).returncode == 64


@pytest.mark.parametrize("flag", ["--debug", "--no-color"])
def test_options_of_every_command_change_no_answer(still: ManagerProcess, flag: str) -> None:
    for arguments in (["version"], ["list"], ["status", NAME]):
        plain, flagged = still.run(*arguments), still.run(*arguments, flag)
        assert (plain.returncode, plain.stdout) == (flagged.returncode, flagged.stdout)


def test_debug_shows_what_is_asked_and_no_secret(still: ManagerProcess) -> None:
    client = client_of(still)
    done = typed(MEP, ["whoami", "--debug"], {**still.environment, **client})
    assert done.returncode == 0
    assert "DEBUG" in done.stderr
    assert client["GLOBUS_COMPUTE_CLIENT_SECRET"] not in done.stderr
    assert not re.search(r"Bearer (?!\[|\*|<)\S{8}", done.stderr)


# --- render-user-config ---------------------------------------------------------------------------------------------

TEMPLATE = """\
engine:
  type: GlobusComputeEngine
  max_workers_per_node: {{ WORKERS | default(1) }}
  account: {{ ACCOUNT }}
who: {{ _GC.mapped_identity.local.uname }}
python: {{ _GC.user_runtime.python.version }}
heartbeat: {{ _GC.parent_config.heartbeat_period | int }}
"""
OPTIONS = {"WORKERS": 3, "ACCOUNT": 'a: "b"'}
SCHEMA = {"type": "object", "properties": {"WORKERS": {"type": "integer", "maximum": 4}}}


@pytest.fixture
def given(folder: Path, accounts: dict[str, LocalAccount], tmp_path: Path) -> Path:
    """Files that everybody can read."""
    made = folder / f"given-{tmp_path.name}"
    made.mkdir()
    (made / "t.j2").write_text(TEMPLATE)
    (made / "o.json").write_text(json.dumps(OPTIONS))
    (made / "s.json").write_text(json.dumps(SCHEMA))
    (made / "p.yaml").write_text("heartbeat_period: 17\n")
    return made


def as_alice(
    program: str | Path, arguments: Sequence[str], accounts: Mapping[str, LocalAccount], said: str = ""
) -> subprocess.CompletedProcess[str]:
    alice = accounts[ALICE]
    environment = {"HOME": str(alice.home), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "USER": ALICE}
    return typed(
        program, arguments, environment, said, user=alice.uid, group=alice.gid, extra_groups=[], cwd=alice.home
    )


def test_a_template_is_rendered_by_anybody_as_there(given: Path, accounts: dict[str, LocalAccount]) -> None:
    need(peer.program().exists(), "needs the public package (lab/setup peer)")
    arguments = ["render-user-config", "-t", str(given / "t.j2"), "-s", str(given / "s.json"), "-o", "-"]
    said = [
        as_alice(program, [*arguments, "--parent-config", str(given / "p.yaml")], accounts, json.dumps(OPTIONS))
        for program in (MEP, peer.program())
    ]
    assert [done.returncode for done in said] == [0, 0], [done.stderr for done in said]
    ours, theirs = (yaml.safe_load(done.stdout) for done in said)
    assert ours.pop("python") == ".".join(map(str, sys.version_info[:3]))
    theirs.pop("python")  # of its own Python
    assert ours == theirs
    assert (ours["who"], ours["heartbeat"], ours["engine"]["account"]) == (ALICE, 17, 'a: "b"')


@pytest.mark.parametrize(
    ("more", "said", "ours"),
    [
        (["-o", "-"], '{"WORKERS": 9, "ACCOUNT": ""}', 1),
        (["-o", "-"], "{}", 1),
        (["-o", "-"], "[", os.EX_DATAERR),
        (["-o", "-"], "[]", os.EX_DATAERR),
        (["-o", "-", "--user-runtime", "-"], "{}", os.EX_USAGE),
        (["-o", "/nosuch"], "", os.EX_NOINPUT),
    ],
    ids=str,
)
def test_what_cannot_be_rendered(
    given: Path, accounts: dict[str, LocalAccount], more: list[str], said: str, ours: int
) -> None:
    need(peer.program().exists(), "needs the public package (lab/setup peer)")
    arguments = ["render-user-config", "-t", str(given / "t.j2"), "-s", str(given / "s.json"), *more]
    codes = [as_alice(program, arguments, accounts, said).returncode for program in (MEP, peer.program())]
    assert codes[0] == ours
    assert codes[1] in (1, 2)


def test_nothing_to_render(accounts: dict[str, LocalAccount]) -> None:
    done = as_alice(MEP, ["render-user-config"], accounts)
    assert done.returncode == os.EX_USAGE
    assert "--endpoint, --template" in done.stderr


def test_a_profile_is_rendered_with_what_options_replace(site: ManagerProcess, given: Path) -> None:
    (site.profile / "user_config_template.yaml.j2").write_text(TEMPLATE)
    (site.profile / "user_config_schema.json").write_text("{}")
    record = {
        "pw_name": ALICE,
        "pw_passwd": "x",
        "pw_uid": 5,
        "pw_gid": 5,
        "pw_gecos": "",
        "pw_dir": "/",
        "pw_shell": "/",
    }
    (given / "i.json").write_text(json.dumps({"local_user_record": record, "matched_identity": str(uuid.uuid4())}))
    (given / "r.json").write_text('{"python": {"version": "3.99"}}')
    arguments = ["--user-runtime", str(given / "r.json"), "--mapped-identity", str(given / "i.json")]
    done = site.run("render-user-config", "-e", NAME, "-o", str(given / "o.json"), *arguments)
    assert done.returncode == 0, done.stderr
    rendered = yaml.safe_load(done.stdout)
    assert (rendered["who"], rendered["python"], rendered["heartbeat"]) == (ALICE, "3.99", 5)
    too_many = site.run("render-user-config", "-e", NAME, "-o", str(given / "o.json"), "-t", str(given / "nosuch.j2"))
    assert too_many.returncode == os.EX_NOINPUT


# --- profiles of old ------------------------------------------------------------------------------------------------

OLD = """\
display_name: Old
admins: [%s]
amqp_port: 443
engine:
  type: GlobusComputeEngine
  max_workers_per_node: 2
idle_heartbeats_soft: 10
"""


def test_an_old_profile_gets_a_template_as_there(still: ManagerProcess, tmp_path: Path) -> None:
    need(peer.program().exists(), "needs the public package (lab/setup peer)")
    text = OLD % uuid.uuid4()
    ours, theirs = still.profile.with_name("old"), tmp_path / "there" / "old"
    for directory in (ours, theirs):
        directory.mkdir(parents=True, mode=0o755)
        (directory / "config.yaml").write_text(text)
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "GLOBUS_COMPUTE_USER_DIR": str(theirs.parent)}
    there = typed(peer.program(), ["migrate-to-template-capable", "old", "--yes"], environment)
    assert there.returncode == 0, there.stderr
    assert typed(MEP, ["migrate-to-template-capable", "old"], still.environment, "n\n").returncode == 1
    here = still.run("migrate-to-template-capable", "old", "--yes")
    assert here.returncode == 0, here.stderr
    assert "identity_mapping_config_path" in here.stdout
    for file in ("config.yaml", "user_config_template.yaml.j2", "config.yaml.backup"):
        assert yaml.safe_load((ours / file).read_text()) == yaml.safe_load((theirs / file).read_text()), file
    assert (ours / "config.yaml.backup").read_text() == text
    again = [
        still.run("migrate-to-template-capable", "old", "--yes").returncode,
        typed(peer.program(), ["migrate-to-template-capable", "old", "--yes"], environment).returncode,
    ]
    assert again == [os.EX_DATAERR, 1]


def test_plain_text_of_an_old_profile_stays_plain(still: ManagerProcess) -> None:
    directory = still.profile.with_name("older")
    directory.mkdir(mode=0o755)
    (directory / "config.yaml").write_text("engine: {type: ThreadPoolEngine, label: '{{ X }} {% raw'}\n")
    assert still.run("migrate-to-template-capable", "older", "--yes").returncode == 0
    done = still.run("render-user-config", "-t", str(directory / "user_config_template.yaml.j2"))
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["engine"]["label"] == "{{ X }} {% raw"


# --- configure ------------------------------------------------------------------------------------------------------

POLICY, SUBSCRIPTION = "8fb1f4b4-5a80-4a4b-9a59-8a4f2b52b0e5", "3d1cfb92-6b10-4a3e-8dbb-9c2a1d1a8f55"


def test_high_assurance_with_a_policy_that_is_there(still: ManagerProcess) -> None:
    arguments = ["--high-assurance", "--subscription-id", SUBSCRIPTION, "--auth-policy", POLICY, "--multi-user", "true"]
    done = still.run("configure", "ha", *arguments)
    assert done.returncode == 0, done.stderr
    from mep.reader.loader import load

    config = load(still.profile.with_name("ha")).config
    assert (config.high_assurance, config.subscription_id, config.authentication_policy) == (True, SUBSCRIPTION, POLICY)
    assert config.audit_log_path == still.profile.with_name("ha") / "audit.log"


def test_keys_replace_those_of_a_given_file(still: ManagerProcess, tmp_path: Path) -> None:
    given = tmp_path / "c.yaml"
    given.write_text(
        "# why\nsubscription_id: old\naccounts:\n  min_uid: 5\nauthentication_policy:\n  x\npublic: true\n"
    )
    arguments = ["--core-config", str(given), "--subscription-id", SUBSCRIPTION, "--auth-policy", POLICY]
    assert still.run("configure", "given", *arguments).returncode == 0
    text = (still.profile.with_name("given") / "config.yaml").read_text()
    assert text.startswith("# why\n")
    expected = {"accounts": {"min_uid": 5}, "public": True}
    expected |= {"subscription_id": SUBSCRIPTION, "authentication_policy": POLICY}
    expected["identity_mapping_config_path"] = str(still.profile.with_name("given") / profile.MAPPING)  # it has none
    assert yaml.safe_load(text) == expected


@pytest.mark.parametrize(
    "arguments",
    [
        ["--auth-policy", POLICY, "--allowed-domains", "example.org"],
        ["--high-assurance"],
        ["--high-assurance", "--subscription-id", SUBSCRIPTION],
        ["--high-assurance", "--allowed-domains", "example.org"],
        ["--auth-policy-mfa-required"],
        ["--auth-policy-mfa-required", "--allowed-domains", "example.org"],
        ["--auth-timeout", "-1"],
        ["--multi-user", "perhaps"],
    ],
    ids=str,
)
def test_options_that_do_not_go_together_here_and_there(
    still: ManagerProcess, tmp_path: Path, arguments: list[str]
) -> None:
    need(peer.program().exists(), "needs the public package (lab/setup peer)")
    done = still.run("configure", "wrong", *arguments)
    assert done.returncode == os.EX_USAGE, done.stderr
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "GLOBUS_COMPUTE_USER_DIR": str(tmp_path / "gc")}
    there = typed(peer.program(), ["configure", "wrong", "--contact-email", "a@example.org", *arguments], environment)
    assert there.returncode in (1, 2)
    assert not (still.profile.with_name("wrong")).exists()


@pytest.fixture
def auth(hub: HubProcess, monkeypatch: pytest.MonkeyPatch) -> Iterator[ComputeAuthClient]:
    """The hub's Globus Auth, for the admin who configures."""
    for name, value in hub.client_environment("admin").items():
        monkeypatch.setenv(name, value)
    with get_globus_app() as app:
        yield ComputeAuthClient(app=app)


def test_a_new_policy_for_a_new_profile(still: ManagerProcess, auth: ComputeAuthClient) -> None:
    environment = {**still.environment, **client_of(still)}
    me = auth.userinfo()["sub"]
    answers = f"\nWords\nsite@example.org\n{me}\n\ny\n"  # the first: no project that is there already
    options = ["--allowed-domains", "example.org, *.edu", "--auth-timeout", "600", "--subscription-id", SUBSCRIPTION]
    made = typed(MEP, ["configure", "held", *options], environment, answers)
    assert made.returncode == 0, made.stdout + made.stderr
    config = yaml.safe_load((still.profile.with_name("held") / "config.yaml").read_text())
    policy = auth.get_policy(config["authentication_policy"])["policy"]
    assert policy["domain_constraints_include"] == ["example.org", "*.edu"]
    assert policy["authentication_assurance_timeout"] == 600
    assert policy["display_name"] == "Globus Compute Authentication Policy"
    project = auth.get_project(policy["project_id"])["project"]
    assert (project["display_name"], project["contact_email"]) == ("Words", "site@example.org")

    numbers = {each["id"]: number for number, each in enumerate(auth.get_projects()["projects"], 1)}
    chosen = typed(
        MEP,
        ["configure", "other", "--excluded-domains", "x.example", "--auth-policy-display-name", "Other"],
        environment,
        f"nonsense\n{numbers[policy['project_id']]}\n",
    )
    assert chosen.returncode == 0, chosen.stdout + chosen.stderr
    config = yaml.safe_load((still.profile.with_name("other") / "config.yaml").read_text())
    other = auth.get_policy(config["authentication_policy"])["policy"]
    assert (other["project_id"], other["display_name"]) == (policy["project_id"], "Other")
    assert other["domain_constraints_exclude"] == ["x.example"]

    before = auth.get_policies().data
    there = typed(MEP, ["configure", "held", "--auth-policy-project-id", policy["project_id"]], environment)
    assert (there.returncode, auth.get_policies().data) == (os.EX_CANTCREAT, before), "no policy for no profile"
    more = ["--high-assurance", "--subscription-id", SUBSCRIPTION, "--auth-policy-mfa-required"]
    refused = typed(
        MEP, ["configure", "unassured", "--auth-policy-project-id", policy["project_id"], *more], environment
    )
    assert refused.returncode == os.EX_DATAERR, refused.stderr
    assert "the service refuses to make a policy (HTTP 422): high_assurance" in refused.stderr
    assert not still.profile.with_name("unassured").exists()


def test_nobody_answers_where_a_policy_is_to_lie(still: ManagerProcess, auth: ComputeAuthClient) -> None:
    before = auth.get_policies().data
    for answers in ("", "\nName\na@example.org\n\n\nq\n"):
        done = typed(
            MEP, ["configure", "unheld", "--auth-timeout", "5"], {**still.environment, **client_of(still)}, answers
        )
        assert done.returncode == 1, done.stdout + done.stderr
    assert auth.get_policies().data == before
    assert not still.profile.with_name("unheld").exists()
