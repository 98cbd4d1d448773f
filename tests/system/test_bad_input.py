"""What goes wrong before a manager runs ends in one clear text and an exit code, and leaves nothing half-made."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import globus_sdk
import pytest
import yaml
from globus_sdk.token_storage import SQLiteTokenStorage

from lab.broker import BrokerFailed, PrivateBroker
from lab.hub import HubFailed, HubProcess
from lab.manager import MEP, ManagerProcess
from tests.system.sites import MAPPING, TEMPLATE, run_without_network

pytestmark = pytest.mark.system

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def site(tmp_path: Path, hub: HubProcess) -> ManagerProcess:
    """A configured profile that has not been started."""
    manager = ManagerProcess(tmp_path / "mep", hub, "admin", mapping=MAPPING, template=TEMPLATE, schema={})
    manager.configure()
    return manager


def refused(site: ManagerProcess, *arguments: str, code: int) -> str:
    """The one text of a command that must fail with `code`."""
    done = site.run(*arguments)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("mep: "), done.stderr
    return done.stderr


def edit(site: ManagerProcess, **keys: object) -> None:
    path = site.profile / "config.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **keys}))


def test_a_profile_that_does_not_exist(site: ManagerProcess) -> None:
    text = refused(site, "start", "nosuch", code=os.EX_CONFIG)
    assert "mep configure nosuch" in text
    assert not (site.folder / "run" / "nosuch").exists()


def test_a_name_that_is_none(site: ManagerProcess) -> None:
    for command in ("start", "stop", "configure"):
        assert "cannot name an endpoint" in refused(site, command, "../etc", code=os.EX_USAGE)


def test_a_profile_is_never_overwritten(site: ManagerProcess) -> None:
    before = {path.name: path.read_bytes() for path in site.profile.iterdir()}
    assert "exists already" in refused(site, "configure", site.name, code=os.EX_CANTCREAT)
    assert {path.name: path.read_bytes() for path in site.profile.iterdir()} == before
    assert [path.name for path in site.profile.parent.iterdir()] == [site.name]


def test_a_broken_profile(site: ManagerProcess) -> None:
    edit(site, dispaly_name="x", heartbeat_period="soon")
    text = refused(site, "start", site.name, code=os.EX_CONFIG)
    assert "did you mean 'display_name'" in text
    assert "heartbeat_period" in text


def test_without_root_profiles_are_ones_own(site: ManagerProcess) -> None:
    user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
    environment = {"HOME": "/", "PATH": "/usr/bin:/bin"}
    for command, code in ((["start", site.name], os.EX_CONFIG), (["-c", str(site.profile.parent), "start"], 77)):
        typed = [*user, MEP, *command, *([site.name] if command[-1] == "start" else [])]
        done = subprocess.run(typed, env=environment, capture_output=True, text=True, check=False, cwd="/")
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        assert "no profile of this name" in done.stderr or "Permission denied" in done.stderr


def test_an_interpreter_that_users_cannot_execute(site: ManagerProcess, folder: Path) -> None:
    hidden = folder / "hidden"
    hidden.mkdir(mode=0o700)
    shutil.copy("/bin/true", hidden / "uep")
    edit(site, uep_command=[str(hidden / "uep")])
    text = refused(site, "start", site.name, code=os.EX_CONFIG)
    assert f"{hidden} has mode 0700" in text
    assert "/opt" in text


def test_a_python_that_users_cannot_execute(site: ManagerProcess, tmp_path: Path) -> None:
    """A whole environment under a closed folder, as one made under root's home is."""
    environment = tmp_path / "closed" / "env"
    subprocess.run(["/usr/bin/python3", "-m", "venv", "--without-pip", environment], check=True)
    packages = next(Path(MEP).parent.parent.glob("lib/python3*/site-packages"))
    (next(environment.glob("lib/python3*/site-packages")) / "link.pth").write_text(f"{packages}\n")
    (tmp_path / "closed").chmod(0o700)
    done = subprocess.run(
        [environment / "bin" / "python", "-c", "from mep.cli.main import main; main()", "start", site.name],
        env=site.environment,
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert done.returncode == os.EX_CONFIG, done.stderr
    assert "cannot be executed by ordinary users" in done.stderr
    assert "0700" in done.stderr


def test_the_service_is_not_there(site: ManagerProcess) -> None:
    done = run_without_network(site, "start", site.name)
    assert done.returncode == os.EX_TEMPFAIL, done.stderr
    assert "cannot reach" in done.stderr
    assert not (site.profile / "endpoint.json").exists()


def test_the_broker_is_not_there(site: ManagerProcess) -> None:
    edit(site, amqp_port=1)
    text = refused(site, "start", site.name, code=os.EX_TEMPFAIL)
    assert "cannot connect to the broker" in text
    assert "@" not in text


def test_a_stored_login_registers(site: ManagerProcess, hub: HubProcess) -> None:
    """What `mep login` leaves behind, written by hand because a browser cannot be had here."""
    owner = hub.users["admin"]
    auth = globus_sdk.ConfidentialAppAuthClient(owner.client_id, owner.client_secret, base_url=hub.url)
    scopes = [globus_sdk.ComputeClientV3.scopes.all, "openid"]
    answer = auth.oauth2_client_credentials_tokens(requested_scopes=scopes)
    root = site.profile.parent
    store = SQLiteTokenStorage(root / "storage.db", namespace="user/local")
    store.store_token_response(answer)
    tokens = store.get_token_data_by_resource_server()
    for token in tokens.values():
        token.refresh_token = "a login has one; a client credential has not"
    store.store_token_data_by_resource_server(tokens)
    store.close()
    edit(site, client_credentials_path=None, amqp_port=1)
    text = refused(site, "start", site.name, code=os.EX_TEMPFAIL)
    assert "cannot connect to the broker" in text, "registered, and came as far as the broker"
    assert (site.profile / "endpoint.json").exists()


def test_wrong_client_credentials(site: ManagerProcess) -> None:
    path = site.folder / "client.yaml"
    path.write_text(path.read_text().replace("client_secret: ", "client_secret: wrong"))
    text = refused(site, "start", site.name, code=os.EX_NOPERM)
    assert "the client's id and secret" in text


def test_credentials_that_others_can_read(site: ManagerProcess) -> None:
    (site.folder / "client.yaml").chmod(0o644)
    assert "chmod 600" in refused(site, "start", site.name, code=os.EX_CONFIG)


def test_no_login(site: ManagerProcess) -> None:
    edit(site, client_credentials_path=None)
    assert "mep login" in refused(site, "start", site.name, code=os.EX_NOPERM)


def test_an_id_that_the_service_does_not_know(site: ManagerProcess) -> None:
    (site.profile / "endpoint.json").write_text('{"endpoint_id": "4b116d3c-1703-4f8f-9f6f-39921e5864df"}')
    assert "endpoint.json" in refused(site, "start", site.name, code=os.EX_DATAERR)


def test_one_manager_at_a_time(manager: ManagerProcess) -> None:
    text = refused(manager, "start", manager.name, code=os.EX_TEMPFAIL)
    assert f"running already (pid {manager.pid})" in text


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock.getsockname()[1]


def test_a_broker_port_that_is_taken(tmp_path: Path, taken: int) -> None:
    with pytest.raises(BrokerFailed, match=f"port {taken} .* taken"):
        PrivateBroker(tmp_path, port=taken).start()


def test_a_hub_port_that_is_taken(tmp_path: Path, hub: HubProcess, broker: PrivateBroker) -> None:
    second = HubProcess(tmp_path / "second", broker, ["alice"])
    with pytest.raises(HubFailed, match=str(hub.port)):
        second.start()


def test_a_python_for_the_set_up_that_users_cannot_execute(tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    shutil.copy(Path("/usr/bin/python3").resolve(), hidden / "python3")
    done = subprocess.run(
        [PROJECT / "lab" / "setup"],
        env={"PATH": os.environ["PATH"], "MEP_DEV": str(tmp_path / "dev"), "MEP_PYTHON": str(hidden / "python3")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == os.EX_CONFIG, done.stderr
    assert f"{hidden}/python3 cannot be executed by ordinary users" in done.stderr
    assert not list((tmp_path / "dev").glob("*/bin"))


def test_no_package_manager_and_no_broker(tmp_path: Path) -> None:
    """lab/setup on a machine that has neither RabbitMQ nor a way to install it."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in (
        "bash",
        "env",
        "dirname",
        "sha256sum",
        "cut",
        "id",
        "setpriv",
        "mkdir",
        "flock",
        "useradd",
        "cat",
        "rm",
    ):
        (tools / tool).symlink_to(str(shutil.which(tool)))
    script = (PROJECT / "lab" / "setup").read_text().replace("/usr/lib/rabbitmq/bin/", "/nonexistent/")
    copy = tmp_path / "project" / "lab" / "setup"
    copy.parent.mkdir(parents=True)
    copy.write_text(script)
    done = subprocess.run(
        ["/bin/bash", copy],
        env={"PATH": str(tools), "MEP_DEV": str(tmp_path / "dev")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == os.EX_UNAVAILABLE, done.stderr
    assert "rabbitmq-server" in done.stderr
    assert "RabbitMQ team" in done.stderr
    assert not list((tmp_path / "dev").glob("*/bin"))
