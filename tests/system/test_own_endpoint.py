"""Endpoints of ordinary users: the same manager, without root, for its owner alone."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.accounts import LocalAccount
from lab.browser import Browser
from lab.client import ClientFailed, output_of, run_script
from lab.hub import HubProcess, identity
from lab.login import LoginProgram, log_in
from lab.own_manager import OwnManager
from lab.provider import CLIENT_ID, OidcProvider, modules
from lab.waiting import until
from tests.conftest import need
from tests.system.clients import CALL, caller

pytestmark = pytest.mark.system

ACCOUNT = "mepown_alice"
BOB = str(identity("bob@example.org")["id"])
TEMPLATE = """\
heartbeat_period: 5
engine: {type: ThreadPoolEngine, max_workers: 1}
"""
ENVIRONMENT = """
import json, sys
from globus_compute_sdk import Executor

def environment():
    import os
    return dict(os.environ)

with Executor(endpoint_id=sys.argv[1]) as ex:
    print(json.dumps(ex.submit(environment).result(timeout=60)))
"""


@pytest.fixture(scope="module")
def account(root: None) -> Iterator[LocalAccount]:
    with LocalAccount(ACCOUNT) as account:
        yield account


@pytest.fixture(scope="module")
def site(account: LocalAccount, hub: HubProcess) -> Iterator[OwnManager]:
    with OwnManager(account, hub, "alice", template=TEMPLATE, config={"public": True, "admins": [BOB]}) as manager:
        yield manager


@pytest.fixture
def call(hub: HubProcess, site: OwnManager) -> Any:
    return caller(hub, site)


def test_tasks_of_its_owner_run_as_the_owner(call: Any, account: LocalAccount) -> None:
    facts = call("alice")
    assert (facts["uid"], facts["euid"]) == (account.uid, account.uid)


def test_its_owner_may_have_any_name_that_accounts_have(root: None, hub: HubProcess) -> None:
    """No key is needed: it is the owner's account, whatever the name is."""
    with (
        LocalAccount("1Mepown@ad.example.org", arguments=("--badname",)) as account,
        OwnManager(account, hub, "bob", name="named", template=TEMPLATE) as site,
    ):
        assert caller(hub, site)("bob")["uid"] == account.uid


def test_others_are_refused_and_told_so(call: Any) -> None:
    """By the service; and by the manager whom the service lets in, as one who may administer the endpoint."""
    with pytest.raises(ClientFailed, match="is for its owner alone"):
        call("mallory")
    assert "not mapped" in call("bob")["error"]


def test_another_host_that_shares_the_home_does_not_start_it_too(site: OwnManager) -> None:
    def there(command: str) -> subprocess.CompletedProcess[str]:
        renamed = ["unshare", "--uts", "sh", "-c", 'hostname login-2 && exec "$@"', "sh", *site.command]
        return subprocess.run(
            [*renamed, command, site.name],
            env=site.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    here = f"runs on host {socket.gethostname()}: stop it there"
    started = there("start")
    assert started.returncode == os.EX_TEMPFAIL
    assert here in started.stderr
    status = there("status")
    assert (status.returncode, here in status.stdout) == (3, True)
    assert f"is not running here, but {here}" in there("stop").stdout
    assert "runs (pid" in site.run("status", site.name).stdout, "still"


def test_what_its_owner_types_works_without_root(site: OwnManager, call: Any, account: LocalAccount) -> None:
    before = call("alice")["pid"]
    assert re.search(rf"^{site.name} +running +{site.endpoint_id} 1$", site.run("list").stdout, re.MULTILINE)
    assert "runs (pid" in site.run("status", site.name).stdout
    checked = site.run("check", site.name)
    assert checked.returncode == 0, checked.stdout
    assert f"run as {ACCOUNT}, and no others" in checked.stdout
    assert "FAIL" not in checked.stdout
    assert "ThreadPoolEngine" in site.run("render", site.name).stdout
    for command in ("map", "explain"):
        assert f"account   {ACCOUNT}" in site.run(command, site.name, "--identity", "alice@example.org").stdout
        assert site.run(command, site.name, "--identity", "bob@example.org").returncode == 1
    assert "login uid" not in site.log.read_text()
    assert f"account   {ACCOUNT}" in site.run("explain", site.name, "--identity-set", str(whoever(site))).stdout
    assert "is in force" in site.run("reload", site.name).stdout
    site.restart()
    assert call("alice")["pid"] == before, "the next manager has adopted it"


def test_nothing_of_it_has_another_account_or_gains_rights(site: OwnManager, call: Any, account: LocalAccount) -> None:
    call("alice")
    of_it = [pid for pid in account.processes() if "mep" in Path(f"/proc/{pid}/cmdline").read_text()]
    assert len(of_it) >= 6, "manager, worker, mapper, renderer, look-ups, audit writer"
    for pid in of_it:
        status = Path(f"/proc/{pid}/status").read_text()
        assert re.search(rf"^Uid:(\t{account.uid}){{4}}$", status, re.MULTILINE)
        assert re.search(r"^CapPrm:\t0+$", status, re.MULTILINE)


def test_the_environment_that_it_was_started_with_is_that_of_tasks(account: LocalAccount, hub: HubProcess) -> None:
    also = {"MODULEPATH": "/opt/modules", "PATH": "/opt/site/bin:/usr/bin:/bin"}
    its_own = {"GLOBUS_COMPUTE_CLIENT_ID": "nobody", "GLOBUS_COMPUTE_CLIENT_SECRET": "s3", "NOTIFY_SOCKET": "/nosuch"}
    with OwnManager(account, hub, "bob", name="variables", template=TEMPLATE, also=also | its_own) as site:
        (found,) = run_script(hub, "bob", ENVIRONMENT, site.endpoint_id)
    assert {**found, **also} == found
    assert not {"MEP_HELPER", *its_own} & found.keys(), "the manager's secrets, and what it was told by systemd"
    assert found["HOME"] == str(account.home)


def test_in_the_background_and_ended_with_what_it_started(account: LocalAccount, hub: HubProcess) -> None:
    site = OwnManager(account, hub, "bob", name="detached", template=TEMPLATE)
    site.configure()
    started = site.run("start", site.name, "--detach")
    assert started.returncode == 0, started.stderr
    log = site.profile / "endpoint.log"
    until(lambda: log.exists() and "consumes start commands" in log.read_text(), "it to consume commands")
    assert log.stat().st_uid == account.uid
    endpoint_id = json.loads((site.profile / "endpoint.json").read_text())["endpoint_id"]
    (pid,) = (facts["pid"] for facts in run_script(hub, "bob", CALL, endpoint_id, "{}"))
    assert Path(f"/proc/{pid}").exists()
    assert "stopped" in site.run("stop", site.name).stdout
    until(lambda: not Path(f"/proc/{pid}").exists(), "its user endpoint to end")
    (site.profile / "user_config_template.yaml.j2").write_text(TEMPLATE.replace("max_workers", "max_wrokers"))
    again = site.run("start", site.name, "--detach")
    assert again.returncode == 0
    assert "edited profile refused" in again.stderr, "told where it was typed, and not in the log alone"
    assert "did you mean 'max_workers'" in again.stderr
    assert "stopped" in site.run("stop", site.name).stdout


def test_it_starts_nobody_else(account: LocalAccount, hub: HubProcess, tmp_path: Path) -> None:
    """Not even when it maps others: an ordinary user's endpoint is for its owner alone, whatever a profile says."""
    mapping = tmp_path / "mapping.json"
    rule = {"source": "{username}", "match": "(.*)@example\\.org", "output": ACCOUNT}
    mapping.write_text(json.dumps([{"DATA_TYPE": "expression_identity_mapping#1.0.0", "mappings": [rule]}]))
    config = {"identity_mapping_config_path": str(mapping), "public": True, "admins": [BOB]}
    with OwnManager(account, hub, "alice", name="mapping", template=TEMPLATE, config=config) as site:
        (refused,) = run_script(hub, "bob", CALL, site.endpoint_id, "{}")
        assert "not mapped" in refused["error"]
        (facts,) = run_script(hub, "alice", CALL, site.endpoint_id, "{}")
        assert facts["uid"] == account.uid


def test_what_only_root_can_do_is_told(account: LocalAccount, hub: HubProcess) -> None:
    site = OwnManager(account, hub, "alice", name="pam", template=TEMPLATE, config={"pam": {"enable": True}})
    site.configure()
    done = site.run("start", site.name)
    assert done.returncode == os.EX_CONFIG
    assert "pam.enable: only root's manager can do that" in done.stderr


def whoever(site: OwnManager) -> Path:
    """A file with the identities that the endpoint is for."""
    rules = json.loads((site.profile / "owner_identity_mapping.json").read_text())[0]["mappings"]
    ids = [rule["match"] for rule in rules]
    records = [{"sub": each, "id": each, "username": "alice@example.org", "status": "used"} for each in ids]
    path = site.folder / "identities.json"
    path.write_text(json.dumps(records))
    return path


POLARIS = """\
display_name: Workshop
engine:
    # This engine uses the HighThroughputExecutor
    type: GlobusComputeEngine

    available_accelerators: 4 # Assign one worker per GPU
    max_workers_per_node: 4

    cpu_affinity: "list:24-31,56-63:16-23,48-55:8-15,40-47:0-7,32-39"

    prefetch_capacity: 0  # Increase if you have many more tasks than workers
    max_retries_on_system_failure: 2

    strategy: simple
    job_status_kwargs:
        max_idletime: 300
        strategy_period: 1

    provider:
        type: PBSProProvider

        launcher:
            type: MpiExecLauncher
            # Ensures 1 manger per node, work on all 64 cores
            bind_cmd: --cpu-bind
            overrides: --ppn 1

        account: alcf_training
        queue: HandsOnHPC
        cpus_per_node: 64
        select_options: ngpus=4

        # e.g., "#PBS -l filesystems=home:grand:eagle\\n#PBS -k doe"
        scheduler_options: "#PBS -l filesystems=home:eagle:grand"

        # Node setup: activate necessary conda environment and such
        worker_init: "source /grand/_env/bin/activate; cd $HOME/.globus_compute/workshop-endpoint"

        walltime: 00:30:00
        nodes_per_block: 1
        init_blocks: 0
        min_blocks: 0
        max_blocks: 1
"""
"""The configuration of ALCF's tutorial, as it is but for a path, a name, and how often Parsl looks at its jobs."""
QSUB = """\
#!/bin/sh
for script; do :; done
(echo "qsub $*"; cat "$script") >"$HOME/submitted.$$" && mv "$HOME/submitted.$$" "$HOME/submitted"
echo 4711.polaris-pbs
"""
QSTAT = """\
#!/bin/sh
echo '{"Jobs": {"4711.polaris-pbs": {"job_state": "Q"}}}'
"""
SUBMIT = """
import sys
from globus_compute_sdk import Client

client = Client()
print(client.run(endpoint_id=sys.argv[1], function_id=client.register_function(abs)))
"""


def test_the_tutorial_of_polaris(account: LocalAccount, hub: HubProcess, tmp_path: Path) -> None:
    """As a user types it, with the commands of PBS Pro in the place of those that are not here."""
    commands = account.home / "pbs"
    commands.mkdir()
    for name, text in {"qsub": QSUB, "qstat": QSTAT, "qdel": "#!/bin/sh\n"}.items():
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    given = account.home / "polaris_config.yaml"
    given.write_text(POLARIS)
    also = {"PATH": f"{commands}:/usr/bin:/bin"}
    arguments = ("--endpoint-config", str(given))
    with OwnManager(account, hub, "alice", name="workshop-endpoint", also=also, arguments=arguments) as site:
        assert "# Ensures 1 manger per node" in (site.profile / "user_config_template.yaml.j2").read_text()
        assert "display_name: Workshop" in (site.profile / "config.yaml").read_text()
        assert "workshop-endpoint" in site.run("list").stdout
        site.restart()
        output_of(hub, "alice", SUBMIT, site.endpoint_id)
        submitted = account.home / "submitted"
        logs = [*account.home.glob(".globus_compute/uep.*/*.log"), site.log]

        def said(text: str) -> AssertionError:
            return AssertionError("\n".join([text, *(log.read_text()[-3000:] for log in logs)]))

        until(submitted.exists, "a job for PBS", 60, failed=said)
        script = submitted.read_text()
    for line in (
        "-q HandsOnHPC",
        "-A alcf_training",
        "#PBS -l select=1:ncpus=64:ngpus=4",
        "#PBS -l walltime=00:30:00",
        "#PBS -l filesystems=home:eagle:grand",
        "source /grand/_env/bin/activate",
        "mpiexec --cpu-bind none --ppn 1 -n $WORKERCOUNT",
        "--available-accelerators",
        "list:24-31,56-63:16-23,48-55:8-15,40-47:0-7,32-39",
    ):
        assert line in script, script


def test_its_owner_logs_in_on_a_terminal(
    account: LocalAccount, hub: HubProcess, folder: Path, browser: Browser
) -> None:
    need(modules().is_dir(), "needs a provider of logins (lab/setup browser)")
    base = f"http://localhost:{hub.port}"
    site = OwnManager(account, hub, "bob", name="terminal", template=TEMPLATE)
    site.configure()
    config = yaml.safe_load((site.profile / "config.yaml").read_text())
    del config["client_credentials_path"]
    (site.profile / "config.yaml").write_text(yaml.safe_dump(config))
    people = {"terry-1": {"preferred_username": "terry", "name": "Terry"}}  # nobody else's name at this hub
    with OidcProvider(folder / "provider of terry", [f"{base}/login/return"], people) as provider:
        login = {"url": base, "issuer": provider.issuer, "client_id": CLIENT_ID, "domain": "example.org"}
        with restarted(hub, {**login, "client_secret": provider.client_secret, "name": "Example"}):
            command = shlex.join([*site.command, "start", site.name, "--detach"])
            terminal = ["script", "--quiet", "--return", "--command", command, "/dev/null"]
            with LoginProgram(terminal, site.environment, account.home) as starting:
                starting.answer(log_in(browser, starting.address, "terry-1"))
                assert "is registered" in starting.output()
            rules = json.loads((site.profile / "owner_identity_mapping.json").read_text())[0]["mappings"]
            assert {rule["output"] for rule in rules} == {ACCOUNT}
            assert site.run("whoami").stdout.startswith("terry@example.org")
            log = site.profile / "endpoint.log"
            until(lambda: "consumes start commands" in log.read_text(), "it to go on without the terminal")
            assert "stopped" in site.run("stop", site.name).stdout


@contextlib.contextmanager
def restarted(hub: HubProcess, login: dict[str, Any]) -> Iterator[None]:
    """The hub of all tests, with a provider of logins meanwhile."""
    try:
        hub.stop()
        hub.login = login
        hub.start()
        yield
    finally:
        hub.stop()
        hub.login = None
        hub.start()
