"""The command line as a sysadmin uses it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from lab.accounts import LocalAccount
from lab.hub import HubProcess, identity
from lab.manager import MEP, ManagerProcess
from lab.waiting import until
from tests.accounts import ALICE, BOB
from tests.system.sites import MAPPING

pytestmark = pytest.mark.system


@pytest.fixture
def site(tmp_path: Path, hub: HubProcess) -> ManagerProcess:
    return ManagerProcess(tmp_path / "mep", hub, "admin", mapping=MAPPING, name="detached")


def test_version(site: ManagerProcess) -> None:
    assert re.fullmatch(r"mep \d+\.\d+\.\d+\n", site.run("version").stdout)


def test_configure_tells_what_it_made_and_what_to_do_next(site: ManagerProcess) -> None:
    done = site.run("configure", "prod", "--display-name", 'Say "hi"', "--contact-email", "a@example.org")
    assert done.returncode == 0, done.stderr
    profile = site.folder / "etc" / "prod"
    made = {path.name for path in profile.iterdir()}
    assert made == {
        "config.yaml",
        "example_identity_mapping_config.json",
        "user_config_template.yaml.j2",
        "user_config_schema.json",
        "user_environment.yaml",
    }
    assert all(name in done.stdout for name in made)
    assert "mep start prod" in done.stdout
    assert not any(stat.S_IMODE(path.stat().st_mode) & 0o022 for path in profile.iterdir())

    from mep.reader.loader import load

    loaded = load(profile)
    assert (loaded.config.display_name, loaded.config.email) == ('Say "hi"', "a@example.org")
    assert loaded.mapping.hints == ()


def test_files_can_be_given(site: ManagerProcess, tmp_path: Path) -> None:
    (tmp_path / "t.j2").write_text("engine: {type: ThreadPoolEngine}\n")
    assert site.run("configure", "own", "--template-config", str(tmp_path / "t.j2")).returncode == 0
    assert (site.folder / "etc" / "own" / "user_config_template.yaml.j2").read_text().startswith("engine: {type: Th")
    missing = site.run("configure", "none", "--schema-config", str(tmp_path / "nosuch"))
    assert missing.returncode != 0
    assert "nosuch: cannot be read" in missing.stderr
    assert not (site.folder / "etc" / "none").exists()


def test_nobody_is_logged_in(site: ManagerProcess) -> None:
    done = site.run("whoami")
    assert done.returncode == 77
    assert "mep login" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_that_comes_as_soon_as_the_manager_is_executed_stops_it_in_good_order(
    site: ManagerProcess, number: signal.Signals
) -> None:
    site.configure()
    starting = subprocess.Popen(
        [MEP, "start", site.name], env=site.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    program = Path(f"/proc/{starting.pid}/cmdline")
    deadline = time.monotonic() + 60
    while b"mep.daemon.serve" not in program.read_bytes():  # without a pause: what is tried is the first moment
        assert starting.poll() is None and time.monotonic() < deadline
    starting.send_signal(number)
    _, said = starting.communicate(timeout=60)
    assert starting.returncode == 0, said
    assert "stopped" in site.run("status", site.name).stdout


def test_a_detached_manager_is_listed_and_stopped(site: ManagerProcess) -> None:
    site.configure()
    started = site.run("start", site.name, "--detach")
    assert started.returncode == 0, started.stderr
    assert "is registered" in started.stdout
    log = site.profile / "endpoint.log"
    until(lambda: log.exists() and "consumes start commands" in log.read_text(), "it to consume commands")
    assert re.search(rf"^{site.name} +running +[0-9a-f-]{{36}} 0$", site.run("list").stdout, re.MULTILINE)
    status = site.run("status", site.name)
    assert re.search(r"runs \(pid \d+\)\. Endpoint [0-9a-f-]{36}: connected; 0 user endpoints", status.stdout)
    assert site.run("stop", site.name).stdout == f"Endpoint {site.name} stopped.\n"
    assert site.run("status", site.name).returncode == 3
    assert "stopped" in site.run("list").stdout
    assert site.run("stop", site.name).stdout == f"Endpoint {site.name} is not running.\n"
    left = {path.name for path in (site.folder / "run" / site.name).iterdir()}
    assert left == {"manager.pid", "last.json", "connection.json"}, "a lock file is never removed"


@pytest.fixture
def configured(site: ManagerProcess, accounts: dict[str, LocalAccount]) -> ManagerProcess:
    site.configure()
    return site


def test_check_has_a_line_for_everything(configured: ManagerProcess) -> None:
    done = configured.run("check", configured.name)
    assert done.returncode == 0, done.stdout + done.stderr
    for what in ("config.yaml", "_mapping_config.json", "template.yaml.j2", "schema.json", "environment.yaml"):
        assert re.search(rf"^ok .*{what}: ", done.stdout, re.MULTILINE), done.stdout
    for what in ("program .*python", "program .*mep-uep", "logs and state", "template, rendered", "service", "clock"):
        assert re.search(rf"^ok +{what}", done.stdout, re.MULTILINE), done.stdout
    assert re.search("^note +broker: not tried: .* only after the first start", done.stdout, re.MULTILINE)
    assert not (configured.profile / "endpoint.json").exists(), "nothing is registered"


def test_check_says_all_that_is_wrong_at_once(configured: ManagerProcess) -> None:
    (configured.profile / "config.yaml").chmod(0o666)
    (configured.profile / "user_config_schema.json").write_text("{")
    (configured.profile / "user_config_template.yaml.j2").write_text("{% for %}")
    done = configured.run("check", configured.name)
    assert done.returncode == os.EX_CONFIG
    assert len(re.findall("^FAIL", done.stdout, re.MULTILINE)) == 3, done.stdout
    assert "chmod go-w" in done.stdout


def test_check_without_a_service(configured: ManagerProcess) -> None:
    path = configured.folder / "client.yaml"
    path.write_text(path.read_text().replace("client_secret: ", "client_secret: wrong"))
    done = configured.run("check", configured.name)
    assert done.returncode == os.EX_NOPERM, done.stdout
    assert re.search("^FAIL  service: .*the client's id and secret", done.stdout, re.MULTILINE)


def test_check_finds_a_broker_that_cannot_be_reached(configured: ManagerProcess) -> None:
    known = {"endpoint_id": "ee9d42e2-85b1-487f-a350-9712bb321d5f", "broker": "amqp://127.0.0.1:1"}
    (configured.profile / "endpoint.json").write_text(json.dumps(known))
    done = configured.run("check", configured.name)
    assert done.returncode == os.EX_TEMPFAIL, done.stdout
    assert "FAIL  broker: cannot connect to 127.0.0.1 port 1: connection refused; is the broker up" in done.stdout
    assert "can be reached: set" not in done.stdout
    with socket.create_server(("127.0.0.1", 443)):
        done = configured.run("check", configured.name)
    assert done.returncode == os.EX_TEMPFAIL, done.stdout
    assert "Port 443 can be reached: set `amqp_port: 443` in config.yaml" in done.stdout


def test_one_port_for_manager_and_user_endpoints(configured: ManagerProcess) -> None:
    known = {"endpoint_id": "ee9d42e2-85b1-487f-a350-9712bb321d5f", "broker": "amqp://127.0.0.1:1"}
    (configured.profile / "endpoint.json").write_text(json.dumps(known))
    config = configured.profile / "config.yaml"
    with socket.create_server(("127.0.0.1", 0)) as there:
        port = there.getsockname()[1]
        config.write_text(yaml.safe_dump({**yaml.safe_load(config.read_text()), "amqp_port": port}))
        done = configured.run("check", configured.name)
        assert done.returncode == 0, done.stdout
        assert f"note  broker: 127.0.0.1 port {port} can be reached; login and queue not tried" in done.stdout
        template = configured.profile / "user_config_template.yaml.j2"
        template.write_text(f"amqp_port: 1\n{template.read_text()}")
        done = configured.run("check", configured.name)
    assert "FAIL  broker, for user endpoints: cannot connect to 127.0.0.1 port 1" in done.stdout
    assert "leave `amqp_port` out of user_config_template.yaml.j2: config.yaml's is for both" in done.stdout


def test_map(configured: ManagerProcess, accounts: dict[str, LocalAccount], tmp_path: Path) -> None:
    done = configured.run("map", configured.name, "--identity", "alice@example.org")
    assert done.returncode == 0, done.stderr
    assert f"account   {ALICE} (uid {accounts[ALICE].uid}," in done.stdout
    assert "_mapping_config.json" in done.stdout
    linked = configured.run("map", configured.name, "--identity", "x@other.example", "--identity", "bob@example.org")
    assert BOB in linked.stdout
    records = tmp_path / "set.json"
    records.write_text(json.dumps([identity("bob@example.org", status="used")]))
    assert BOB in configured.run("map", configured.name, "--identity-set", str(records)).stdout


def test_map_explains_itself(configured: ManagerProcess) -> None:
    done = configured.run("map", configured.name, "--identity", "x@other.example", "--identity", "bob@example.org")
    assert done.returncode == 0
    assert "rule      " in done.stdout
    nobody = configured.run("map", configured.name, "--identity", "root@example.org")
    assert nobody.returncode == 1


def test_explain_shows_the_job_that_would_be_submitted(configured: ManagerProcess) -> None:
    provider = "{type: SlurmProvider, partition: long, gpus_per_node: 1, scheduler_options: '#SBATCH --gres=gpu:1'}"
    template = configured.profile / "user_config_template.yaml.j2"
    template.write_text(f"engine: {{type: GlobusComputeEngine, provider: {provider}}}\n")
    done = configured.run("explain", configured.name, "--identity", "alice@example.org")
    assert done.returncode == 0, done.stderr
    assert "whole nodes are asked for and charged" in done.stdout
    assert "gpus_per_node and '--gres=gpu:1' in scheduler_options ask for the same" in done.stdout
    _, _, job = done.stdout.partition("\njob (capitals stand for what is known when it runs):\n")
    assert job.startswith("sbatch DIRECTORY/submit_scripts/")
    for line in (
        "#SBATCH --exclusive",
        "#SBATCH --partition=long",
        "#SBATCH --gpus-per-node=1",
        "#SBATCH --gres=gpu:1",
    ):
        assert line in job.splitlines()


def test_explain_shows_what_would_be_started(configured: ManagerProcess) -> None:
    who = ("explain", configured.name, "--identity", "alice@example.org")
    done = configured.run(*who, "--options", '{"workers": 3}')
    assert done.returncode == 0, done.stderr
    for line in (f"account   {ALICE}", "rule      ", "program   .*mep-uep", f"variable  HOME=.*{ALICE}"):
        assert re.search(f"^{line}", done.stdout, re.MULTILINE), done.stdout
    assert yaml.safe_load(done.stdout.split("configuration:\n")[1])["engine"]["max_workers_per_node"] == 3
    refused = configured.run(*who, "--options", '{"workers": "many"}')
    assert refused.returncode == 1
    assert "refused at stage options" in refused.stderr
    assert f"account   {ALICE}" in refused.stdout, "what was found before is told"


@pytest.mark.parametrize(
    ("username", "stage"),
    [
        ("mallory@example.org", "identity"),
        ("ghost@example.org", "account"),
        ("rooty@example.org", "admission|identity"),
    ],
)
def test_map_refuses_as_the_manager_does(configured: ManagerProcess, username: str, stage: str) -> None:
    done = configured.run("map", configured.name, "--identity", username)
    assert done.returncode == 1
    assert re.search(f"refused at stage ({stage})", done.stderr)
    assert "the user would read:" in done.stderr


def test_render(configured: ManagerProcess, tmp_path: Path) -> None:
    arguments = ("render", configured.name, "--user", ALICE, "--options")
    done = configured.run(*arguments, '{"workers": 3}')
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["engine"]["max_workers_per_node"] == 3
    (tmp_path / "options.json").write_text('{"workers": 4}')
    assert "max_workers_per_node: 4" in configured.run(*arguments, f"@{tmp_path / 'options.json'}").stdout
    refused = configured.run(*arguments, '{"workers": "many"}')
    assert refused.returncode == 1
    assert "refused at stage options" in refused.stderr
    assert configured.run(*arguments, "[").returncode == os.EX_DATAERR
    assert configured.run("render", configured.name, "--user", "nosuchaccount").returncode == 1


def test_variables_of_the_environment_file_reach_every_command(configured: ManagerProcess) -> None:
    (configured.profile.parent / "environment").write_text("# a comment\nMEP_RUN_DIR=/elsewhere\nMEP_OTHER='x'\n")
    assert configured.run("check", configured.name).returncode == 0, "what is set already wins"
    (configured.profile.parent / "environment").write_text("not a variable\n")
    done = configured.run("list")
    assert done.returncode == os.EX_CONFIG
    assert "environment: line 1: expected NAME=value" in done.stderr
