"""A sysadmin's year with the package, told by docs/install.md and docs/hub.md: installation, a hub on the site's own
RabbitMQ, first task, changes, upgrade, removal. The pages are typed as they stand.

The tests are chapters: each goes on from where the one before ended.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import re
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import psutil
import pytest

from lab.accounts import LocalAccount
from lab.certificates import Authority
from lab.client import ClientFailed
from lab.waiting import until
from tests.box.guide import HUB, INSTALL, Login, code, run, type_as
from wire.listeners import _listeners

_TITLE = "mep-uep uep."
PROFILE = Path("/etc/mep/prod")
DOMAIN = "site.example"
SITE = {"ADMIN": f"root@{DOMAIN}", "USERS": f"alice@{DOMAIN} bob@{DOMAIN}", "DOMAIN": DOMAIN}
"""The values of this site, none of them those of the pages."""
TAKE = """
import socket
for address, port in (("127.0.0.1", 5000), ("::1", 5000), ("0.0.0.0", 5000), ("::", 5000), ("127.0.0.1", 300)):
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as sock:
            sock.setsockopt(socket.SOL_SOCKET, option, 1)
            try:
                sock.bind((address, port))
                sock.listen()
                print("taken", address, port)
            except OSError:
                pass
"""
"""Tries to be the hub, or who answers RabbitMQ's questions."""
TEMPLATE = """\
heartbeat_period: 5
idle_heartbeats_soft: 100
engine: {type: ThreadPoolEngine, max_workers: {{ workers | default(1) }}}
"""
LOAD = """
import json, sys
from concurrent.futures import wait
from globus_compute_sdk import Executor
def work(n):
    import os, time
    time.sleep(0.2)
    return n, os.getpid(), os.getuid()
executors = [Executor(endpoint_id=sys.argv[1], user_endpoint_config={"workers": w}) for w in range(1, 6)]
futures = [[ex.submit(work, n) for n in range(60)] for ex in executors]
answers = [[future.result(timeout=120) for future in of_one] for of_one in futures]
for ex in executors:
    ex.shutdown()
print(json.dumps({
    "complete": all([n for n, _, _ in of_one] == list(range(60)) for of_one in answers),
    "processes": sorted({pid for of_one in answers for _, pid, _ in of_one}),
    "uids": sorted({uid for of_one in answers for _, _, uid in of_one}),
}))
"""


@pytest.fixture(scope="module")
def packages() -> list[Path]:
    """The package of this tree, and a newer one."""
    return [Path(path) for path in json.loads(os.environ["MEP_PACKAGES"])]


@pytest.fixture(scope="module")
def users() -> Iterator[dict[str, LocalAccount]]:
    with LocalAccount("alice") as alice, LocalAccount("bob") as bob:
        yield {"alice": alice, "bob": bob}


@pytest.fixture(scope="module")
def login() -> Iterator[Login]:
    """The shell in which root types the pages."""
    with Login(SITE) as shell:
        yield shell


@pytest.fixture
def first_task(users: dict[str, LocalAccount]) -> Callable[[str], str]:
    """Types what the pages tell a user to, and returns what the task said."""

    def call(user: str) -> str:
        (users[user].home / "first.py").write_text(code(INSTALL, "The first task", "python"))
        return type_as(users[user], code(HUB, "7. The first task"), ENDPOINT_ID=endpoint_id())

    return call


@pytest.fixture
def load(users: dict[str, LocalAccount]) -> Iterator[Callable[[str], Future[Any]]]:
    """Begins a load of 300 tasks on 5 user endpoints of a user; the answer comes later."""

    def call(user: str) -> Any:
        (users[user].home / "load.py").write_text(LOAD)
        return json.loads(type_as(users[user], f". ./hub.env; python load.py {endpoint_id()}"))

    with ThreadPoolExecutor(2) as pool:
        yield lambda user: pool.submit(call, user)


def endpoint_id() -> str:
    return str(json.loads((PROFILE / "endpoint.json").read_text())["endpoint_id"])


def ok(script: str) -> str:
    done = run(script)
    assert done.returncode == 0, f"{script}: {done.stdout}{done.stderr}"
    return done.stdout


def shown(name: str) -> str:
    """A property of the manager's unit."""
    return property_of("mep@prod", name)


def property_of(unit: str, name: str) -> str:
    return ok(f"systemctl show --value --property={name} {unit}").strip()


def words(said: str) -> set[str]:
    """How `mep-hub setup` has found the things that it looked at."""
    return {line[:6].strip() for line in said.splitlines() if not line.startswith("Next: ")}


def listeners() -> dict[str, set[int]]:
    """Who listens at the hub's port, as the kernel says: uids."""
    return {host: set(_listeners(ip_address(host), 5000)) for host in ("127.0.0.1", "::1")}


def hub_version(patience: float) -> object:
    with urlopen("http://localhost:5000/v2/version", timeout=patience) as answer:
        return json.load(answer)


def wait_for(what: str, done: Callable[[], object]) -> None:
    until(done, what, failed=lambda text: AssertionError(f"{text}: {run('systemctl status mep@prod').stdout}"))


def user_endpoints() -> set[int]:
    """The pids of user endpoints, as the system knows them."""
    found = psutil.process_iter(["username", "cmdline"])
    return {
        p.pid for p in found if p.info["username"] in ("alice", "bob") and _TITLE in " ".join(p.info["cmdline"] or [])
    }


def result(future: Future[Any]) -> dict[str, Any]:
    said = future.result(timeout=150)
    assert isinstance(said, dict)
    return said


def test_installation_starts_nothing_and_is_whole(login: Login, packages: list[Path]) -> None:
    assert "mep 0." in login.follow(INSTALL, "1. Install", packages[0].parent)
    assert ok("rpm -V mep") == ""
    for unit in (
        "mep@prod.service",
        "mep-hub.service",
        "mep-hub.socket",
        "mep-hub-forward.socket",
        "mep-metrics@prod.socket",
    ):
        assert run(f"systemctl is-enabled {unit}").stdout.strip() == "disabled"
        assert ok(f"systemd-analyze verify {unit} 2>&1") == ""
    for unit in ("mep-hub-forward.service", "mep-metrics@prod.service"):
        assert ok(f"systemd-analyze verify {unit} 2>&1") == ""
    assert ok("setpriv --reuid=65534 --regid=65534 --clear-groups /opt/mep/bin/mep version").startswith("mep 0.")
    assert run("command -v globus-compute-endpoint gce").stdout == "", "the public package may have these names"
    assert ok("setpriv --reuid=65534 --regid=65534 --clear-groups /opt/mep/public-names/gce version").startswith(
        "mep 0."
    )
    for file in (
        "/etc/pam.d/mep",
        "/usr/lib/tmpfiles.d/mep.conf",
        "/usr/lib/sysusers.d/mep.conf",
        "/usr/share/man/man8/mep.8.gz",
    ):
        assert Path(file).stat().st_mode & 0o777 == 0o644
    assert Path("/usr/share/bash-completion/completions/mep").read_text()


def test_metrics_on_tcp_without_a_manager() -> None:
    """The unit's account, its group, and what it may do: all that it needs to say that nobody answers."""
    ok("systemctl start mep-metrics@prod.socket")
    with pytest.raises(HTTPError) as caught:
        urlopen("http://127.0.0.1:9469/metrics", timeout=60)
    assert caught.value.code == 503 and b"no manager runs" in caught.value.read()
    status = Path(f"/proc/{property_of('mep-metrics@prod', 'MainPID')}/status").read_text()
    assert re.search(r"^CapEff:\t0+$", status, re.MULTILINE) and not re.search(r"^Uid:\t0\b", status, re.MULTILINE)
    assert str(grp.getgrnam("mep-status").gr_gid) in status.partition("\nGroups:\t")[2].partition("\n")[0].split()
    ok("systemctl stop mep-metrics@prod.socket mep-metrics@prod.service")


def test_a_hub_by_its_page(login: Login, users: dict[str, LocalAccount]) -> None:
    login.follow(HUB, "1. The values of your site")
    ok("systemctl start rabbitmq-server")
    assert ok("rabbitmqctl -q list_users --no-table-headers").startswith("guest"), "a RabbitMQ as it comes"
    assert words(ok("touch /root/before; mep-hub setup --dry-run")) == {"to do"}
    assert ok("find /etc -newer /root/before") == ""
    assert words(login.follow(HUB, "2. Set up")) == {"done"}
    login.follow(HUB, "3. Who may call")
    assert "active (running)" in login.follow(HUB, "4. Start")
    login.follow(HUB, "5. A manager")
    login.follow(HUB, "6. What a user needs")
    for user, account in users.items():
        ok(f"install -m 0600 -o {user} /root/{user}@{DOMAIN}.env {account.home}/hub.env")
    status = Path(f"/proc/{property_of('mep-hub', 'MainPID')}/status").read_text()
    uid = pwd.getpwnam("mep-hub").pw_uid
    assert f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n" in status and 0 < uid < 1000
    assert "CapPrm:\t0000000000000400\n" in status and "CapBnd:\t0000000000000400\n" in status, "port 300, no more"
    for path in ("/etc/mep-hub/hub.yaml", "/etc/mep-hub/broker.url", "/var/lib/mep-hub/hub.db"):
        assert (Path(path).stat().st_uid, Path(path).stat().st_mode & 0o777) == (uid, 0o600)
    secrets = re.findall(r"^client_secret: (.*)$", Path(f"/root/root@{DOMAIN}.client").read_text(), re.MULTILINE)
    assert secrets and secrets[0] not in Path("/etc/mep-hub/hub.yaml").read_text()


def test_another_set_up_changes_nothing_but_what_is_not_right_any_more() -> None:
    """What an admin has edited is theirs, whatever it is."""
    pids = [property_of(unit, "MainPID") for unit in ("mep-hub", "rabbitmq-server")]
    hub_yaml = Path("/etc/mep-hub/hub.yaml").read_text()
    assert words(ok("mep-hub setup")) == {"ok"}
    assert [property_of(unit, "MainPID") for unit in ("mep-hub", "rabbitmq-server")] == pids
    assert Path("/etc/mep-hub/hub.yaml").read_text() == hub_yaml
    ours = Path("/etc/rabbitmq/conf.d/50-mep-hub.conf")
    before = ours.read_text()
    ours.write_text(before.replace("channel_max = 64", "channel_max = 65"))
    ok("systemctl disable mep-hub; rabbitmqctl -q add_user guest guest")
    said = ok("mep-hub setup")
    assert re.search(f"^kept +{ours}; it was edited.*mv {ours} {ours}.old, then mep-hub setup$", said, re.MULTILINE)
    assert {line.partition(" ")[2].strip() for line in said.splitlines() if line.startswith("done")} == {
        "rabbitmq-server.service runs with these files",
        "no user 'guest' in RabbitMQ",
        "mep-hub.service starts at each boot",
    }
    assert "channel_max = 65" in ours.read_text()
    ours.unlink()
    ok("mep-hub setup")
    assert ours.read_text() == before


def test_the_port_of_the_hub_is_nobody_elses_while_it_is_down(users: dict[str, LocalAccount]) -> None:
    held = {"127.0.0.1": {0}, "::1": {0}}
    assert listeners() == held
    config = Path("/etc/mep-hub/hub.yaml")
    before = config.read_text()
    config.write_text(before + "listen: localhost:5001\n")
    assert run("systemctl restart mep-hub").returncode != 0
    said = "mep-hub.socket listens on 127.0.0.1:5000, [::1]:5000, hub.yaml says `listen: localhost:5001`"
    wait_for("the reason", lambda: said in ok("journalctl --no-pager -u mep-hub"))
    config.write_text(before + "nonsense: 1\n")
    with pytest.raises(OSError):
        hub_version(3)
    wait_for("the start in vain", lambda: "nonsense: unknown key" in ok("journalctl --no-pager -u mep-hub"))
    assert listeners() == held
    assert type_as(users["alice"], f"python -c '{TAKE}'") == ""
    config.write_text(before)
    assert hub_version(60), "who asks has it started"
    assert listeners() == held


def test_tls_for_other_hosts_by_its_page(tmp_path: Path) -> None:
    """And back: the rest of the story is that of one host."""
    authority, name = Authority("the site's CA"), "hub.site.example"
    authority.write(tmp_path / "ca.pem")
    authority.issue(name).write(tmp_path / "pem")
    files = [Path("/etc/mep-hub/hub.yaml"), Path("/etc/hosts")]
    before = [file.read_bytes() for file in files]
    with files[1].open("a") as hosts:
        hosts.write(f"\n127.0.0.1 {name}\n")
    site = f"NAME={name} CERTIFICATE={tmp_path}/pem KEY={tmp_path}/pem"
    ok(f"{site}\n{code(HUB, 'TLS for other hosts')}")
    context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    for port in (5443, 5671):

        def proves_its_name(port: int = port) -> bool:
            try:
                with (
                    socket.create_connection((name, port), 5) as plain,
                    context.wrap_socket(plain, server_hostname=name),
                ):
                    return True
            except ConnectionError:
                return False

        wait_for(f"TLS on port {port}", proves_its_name)
    assert {"ok"} == words(ok(f"mep-hub setup --name {name} --certificate {tmp_path}/pem --key {tmp_path}/pem"))
    for file, text in zip(files, before, strict=True):
        file.write_bytes(text)
    ok("rm /etc/rabbitmq/conf.d/60-mep-hub-tls.conf; systemctl restart rabbitmq-server mep-hub")
    assert hub_version(60)


def test_on_another_host_the_port_is_the_forwarders(users: dict[str, LocalAccount], tmp_path: Path) -> None:
    """This host plays the other one for a moment; what listens there does not prove to be the hub."""
    Authority("nobody's CA").issue("localhost").write(tmp_path / "pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "pem")
    with socket.create_server(("127.0.0.1", 5443)) as listening, ThreadPoolExecutor(1) as pool:
        site = "HUB=localhost:5443 CA=/etc/ssl/certs/ca-certificates.crt"
        ok(f"{site}\n{code(HUB, 'Other hosts')}")
        assert listeners() == {"127.0.0.1": {0}, "::1": {0}}

        def take() -> None:
            with pytest.raises(OSError):
                context.wrap_socket(listening.accept()[0], server_side=True).recv(1)

        taken = pool.submit(take)
        with pytest.raises(HTTPError) as said:
            hub_version(60)
        assert (said.value.code, b"certificate" in said.value.read()) == (503, True)
        taken.result()
    status = Path(f"/proc/{property_of('mep-hub-forward', 'MainPID')}/status").read_text()
    assert "CapBnd:\t0000000000000000\n" in status and "Uid:\t0" not in status
    ok("systemctl stop mep-hub-forward")
    assert type_as(users["alice"], f"python -c '{TAKE}'") == ""
    ok("systemctl disable --now mep-hub-forward.socket; systemctl stop mep-hub-forward; systemctl start mep-hub")
    assert hub_version(60)


def test_profile_mapping_and_login(login: Login, users: dict[str, LocalAccount]) -> None:
    login.follow(INSTALL, "The values of your site")
    assert "/etc/mep/prod" in login.follow(INSTALL, "2. Make a profile")
    said = login.follow(INSTALL, "3. Say who becomes whom")
    assert f"account   alice (uid {users['alice'].uid}" in said
    assert "identity_mapping_config.json" in said, "the rule is named"
    done = run("mep check prod")
    assert done.returncode == os.EX_NOPERM
    assert [line for line in done.stdout.splitlines() if line.startswith("FAIL") and "mep login" in line]
    login.follow(INSTALL, "4. Log in")
    with (PROFILE / "config.yaml").open("a") as file:
        file.write("audit_log_path: /var/log/mep/audit.log\n")


def test_check(login: Login) -> None:
    said = login.follow(INSTALL, "5. Look before you start")
    assert "FAIL" not in said
    for what in ("config.yaml", "user_config_template.yaml.j2", "mep-uep", "template, rendered", "service", "clock"):
        assert re.search(f"^ok .*{re.escape(what)}", said, re.MULTILINE), said


def test_a_broken_profile_is_not_started_again_and_again() -> None:
    config = PROFILE / "config.yaml"
    before = config.read_text()
    config.write_text(before + "pubic: true\n")
    assert run("systemctl start mep@prod").returncode != 0
    assert (shown("ExecMainStatus"), shown("NRestarts"), shown("ActiveState")) == ("78", "0", "failed")
    assert "did you mean 'public'" in ok("journalctl --no-pager -u mep@prod")
    config.write_text(before)
    ok("systemctl reset-failed mep@prod")


def test_start(login: Login) -> None:
    said = login.follow(INSTALL, "6. Start")
    assert "connected; 0 user endpoints" in said
    assert re.search(r"^prod +running +[0-9a-f-]{36} 0$", said, re.MULTILINE)
    assert "FAIL" not in login.follow(INSTALL, "5. Look before you start"), "also while it runs, now with the broker"
    assert ok("journalctl --no-pager -p warning -u mep@prod --since=-5s").count("mep[") == 0


def test_boot_and_restart_by_a_public_name() -> None:
    on = "PATH=/opt/mep/public-names:$PATH"
    ok(f"{on} globus-compute-endpoint disable-on-boot prod")
    assert run("systemctl is-enabled mep@prod").stdout.strip() == "disabled"
    assert shown("ActiveState") == "active"
    assert "systemctl start mep@prod" in ok(f"{on} gce enable-on-boot prod")
    assert run("systemctl is-enabled mep@prod").stdout.strip() == "enabled"
    before = shown("MainPID")
    refused = run(f"{on} gce restart prod --detach")
    assert (refused.returncode, shown("MainPID")) == (os.EX_USAGE, before)
    assert "systemctl restart mep@prod" in refused.stderr
    ok(f"{on} gce restart prod")
    assert shown("ActiveState") == "active"
    assert shown("MainPID") not in ("0", before)


def test_a_deleted_profile_is_not_started_at_the_next_boot() -> None:
    assert run("mep enable-on-boot nosuch").returncode == os.EX_CONFIG
    ok("mep configure gone && cp /etc/mep/prod/example_identity_mapping_config.json /etc/mep/gone/")
    not_logged_in = run("mep enable-on-boot gone")
    assert (not_logged_in.returncode, "mep login" in not_logged_in.stderr) == (os.EX_NOPERM, True)
    ok("echo 'client_credentials_path: /etc/mep/client.yaml' >>/etc/mep/gone/config.yaml; mep enable-on-boot gone")
    assert run("systemctl is-enabled mep@gone").stdout.strip() == "enabled"
    ok("mep delete gone --yes")
    assert run("systemctl is-enabled mep@gone").stdout.strip() == "disabled"
    assert not Path("/etc/mep/gone").exists()
    assert "prod" in ok("mep list") and "gone" not in ok("mep list")


def test_the_first_task(first_task: Callable[[str], str], users: dict[str, LocalAccount]) -> None:
    assert first_task("alice").startswith("alice on ")
    wait_for("the status", lambda: "connected; 1 user endpoint" in shown("StatusText"))


def test_the_manager_has_only_the_power_that_it_needs() -> None:
    """CAP_KILL, CAP_SETGID, CAP_SETUID, CAP_SETPCAP, CAP_SYS_PTRACE: bits 5 to 8 and 19 (capabilities(7))."""
    status = Path(f"/proc/{shown('MainPID')}/status").read_text()
    assert "CapEff:\t00000000000801e0\n" in status
    assert "CapBnd:\t00000000000801e0\n" in status


def test_a_user_endpoint_is_in_a_scope_of_its_own(users: dict[str, LocalAccount]) -> None:
    (pid,) = user_endpoints()
    slices = f"/mep.slice/mep-prod.slice/mep-prod-{users['alice'].uid}.slice/mep-prod-uep."
    assert re.search(re.escape(slices) + rf"\S*-{pid}\.scope", Path(f"/proc/{pid}/cgroup").read_text())
    assert "user endpoints run in scopes of systemd" in ok("mep check prod")


def test_edit_and_reload(login: Login, first_task: Callable[[str], str]) -> None:
    (PROFILE / "user_config_template.yaml.j2").write_text(TEMPLATE)
    rendered = login.follow(INSTALL, "Changing something")
    assert "ThreadPoolEngine" in rendered
    assert first_task("bob").startswith("bob on ")
    assert len(user_endpoints()) == 2


def test_a_bad_edit_is_refused_and_said(first_task: Callable[[str], str]) -> None:
    (PROFILE / "user_config_template.yaml.j2").write_text("{% if %}")
    (PROFILE / "user_config_schema.json").write_text((PROFILE / "user_config_schema.json").read_text()[:50])
    assert run("systemctl reload mep@prod").returncode != 0
    assert shown("ActiveState") == "active"
    assert "edited profile refused, the old one is in force" in shown("StatusText")
    assert "user_config_template.yaml.j2: line 1" in ok("journalctl --no-pager -p err -u mep@prod")
    assert first_task("bob").startswith("bob on ")
    (PROFILE / "user_config_template.yaml.j2").write_text(TEMPLATE)
    (PROFILE / "user_config_schema.json").write_text('{"properties": {"workers": {"type": "integer"}}}')
    ok("systemctl reload mep@prod")
    wait_for("the status", lambda: "refused" not in shown("StatusText"))


def test_what_only_the_manager_refuses_fails_the_reload_too() -> None:
    config, template = PROFILE / "config.yaml", PROFILE / "user_config_template.yaml.j2"
    before = config.read_text()
    config.write_text(f"{before}pam: {{enable: true, service_name: nosuch}}\n")
    done = run("systemctl reload mep@prod")
    assert done.returncode != 0
    assert "/etc/pam.d/nosuch" in ok("journalctl --no-pager -p err -u mep@prod")
    config.write_text(before)
    template.write_text(TEMPLATE.replace("ThreadPoolEngine", "ThreadPoolEngin"))
    assert run("systemctl reload mep@prod").returncode != 0
    assert "did you mean 'ThreadPoolEngine'" in shown("StatusText")
    template.write_text(TEMPLATE)
    ok("systemctl reload mep@prod")


def test_limits_are_put_in_force(load: Callable[[str], Future[Any]], users: dict[str, LocalAccount]) -> None:
    with (PROFILE / "config.yaml").open("a") as file:
        file.write("resources: {tasks_max: 1500, memory_max: 3G, cpu_quota: 190%}\n")
    ok("systemctl reload mep@prod")
    said = "1500 tasks, 1.9 processors per account, as read back"
    wait_for("the limits", lambda: said in ok("journalctl -u mep@prod"))
    assert result(load("alice"))["complete"]
    slice_ = f"mep-prod-{users['alice'].uid}.slice"
    shown_limits = ok(f"systemctl show {slice_} --property=TasksMax,MemoryMax,CPUQuotaPerSecUSec")
    assert set(shown_limits.split()) == {"TasksMax=1500", f"MemoryMax={3 * 2**30}", "CPUQuotaPerSecUSec=1.900000s"}
    assert "limits" not in shown("StatusText")


def test_restart_and_crash_lose_no_task(load: Callable[[str], Future[Any]], users: dict[str, LocalAccount]) -> None:
    ok("mkdir -p /etc/systemd/system/mep@.service.d")
    Path("/etc/systemd/system/mep@.service.d/quick.conf").write_text("[Service]\nRestartSec=1\nWatchdogSec=6\n")
    ok("systemctl daemon-reload")
    futures = [load("alice"), load("bob")]
    wait_for("ten user endpoints", lambda: "connected; 12 user endpoints" in shown("StatusText"))
    wait_for("all of them to have their title", lambda: len(user_endpoints()) == 12)
    first = user_endpoints()
    ok("systemctl restart mep@prod")
    manager = int(shown("MainPID"))
    assert "12 user endpoints" in shown("StatusText")
    os.kill(manager, signal.SIGKILL)
    wait_for("a new manager", lambda: shown("MainPID") not in ("0", str(manager)) and shown("ActiveState") == "active")
    assert "12 user endpoints" in shown("StatusText")
    for user, future in zip(("alice", "bob"), futures, strict=True):
        said = result(future)
        assert said["complete"]
        assert said["uids"] == [users[user].uid]
        assert set(said["processes"]) <= first
    assert user_endpoints() == first


def test_a_manager_that_hangs_is_replaced() -> None:
    before, manager = user_endpoints(), int(shown("MainPID"))
    os.kill(manager, signal.SIGSTOP)
    wait_for("the watchdog", lambda: shown("MainPID") not in ("0", str(manager)) and shown("ActiveState") == "active")
    assert user_endpoints() == before
    assert "12 user endpoints" in shown("StatusText")


def test_an_upgrade_keeps_edits_and_user_endpoints(
    login: Login, packages: list[Path], load: Callable[[str], Future[Any]]
) -> None:
    before, future = user_endpoints(), load("alice")
    manager, hub = shown("MainPID"), property_of("mep-hub", "MainPID")
    config = (PROFILE / "config.yaml").read_text()
    (PROFILE / "config.yaml").write_text(f"{config}nonsense: 1\n")
    login.follow(INSTALL, "Upgrading", packages[1].parent)
    assert property_of("mep-hub", "MainPID") not in ("0", hub)
    assert "edited profile refused, the one accepted on" in shown("StatusText")
    (PROFILE / "config.yaml").write_text(config)
    ok("systemctl reload mep@prod")
    assert ok("mep version") == "mep 99.0.0\n"
    assert shown("MainPID") != manager
    assert (shown("ActiveState"), user_endpoints()) == ("active", before)
    assert "GLOBUS_SDK_ENVIRONMENT=local" in Path("/etc/mep/environment").read_text()
    assert "newer" in Path("/etc/mep/environment.rpmnew").read_text()
    assert (PROFILE / "user_config_template.yaml.j2").read_text() == TEMPLATE
    assert result(future)["complete"]


def test_pam_sessions(first_task: Callable[[str], str], users: dict[str, LocalAccount]) -> None:
    """As docs/operation.md says; what `password-auth` is on Enterprise Linux has other names on Debian."""
    files = [Path(f"/etc/pam.d/common-{kind}") for kind in ("auth", "account")]
    Path("/etc/pam.d/password-auth").write_text("".join(file.read_text() for file in files))
    ok("mep stop prod --user-endpoints")
    config = PROFILE / "config.yaml"
    config.write_text(config.read_text() + "pam: {enable: true, service_name: mep}\n")
    ok("install -D -m 644 /usr/share/doc/mep/pam.conf /etc/systemd/system/mep@prod.service.d/pam.conf")
    ok("systemctl daemon-reload; systemctl restart mep@prod")
    assert first_task("bob").startswith("bob on ")
    (pid,) = user_endpoints()
    assert Path(f"/proc/{pid}/loginuid").read_text() == str(users["bob"].uid)
    keeper = [p for p in psutil.process_iter(["name"]) if p.info["name"] == "mep-session"]
    assert len(keeper) == 1 and keeper[0].uids().real == 0
    assert re.search(r" mep\[\d+\]: .*session opened for user bob", ok("journalctl --no-pager --since=-60s"))
    ok("chage -E 0 alice")
    with pytest.raises(ClientFailed, match="expired"):
        first_task("alice")
    ok("chage -E -1 alice")
    config.write_text(config.read_text().replace("pam: {enable: true, service_name: mep}\n", ""))
    ok("systemctl reload mep@prod")
    first_task("alice")
    assert len(user_endpoints()) == 2


def test_stop_ends_everything(users: dict[str, LocalAccount]) -> None:
    ok("systemctl stop mep@prod")
    assert shown("Result") == "success"
    assert user_endpoints() == set()
    assert ok("systemctl list-units --no-legend --all 'mep-*.scope' 'mep-prod-*.slice'") == ""
    assert not [p for p in psutil.process_iter(["name"]) if p.info["name"] == "mep-session"]
    assert [pid for account in users.values() for pid in account.processes()] == []
    assert re.search(r"^prod +stopped", ok("mep list"), re.MULTILINE)
    left = {path.name for path in Path("/run/mep").rglob("*") if path.is_file()}
    assert left <= {"manager.pid", "last.json", "connection.json"}
    ok("systemctl start mep@prod")


def test_removal_ends_what_is_left_and_keeps_what_is_the_sites(login: Login, first_task: Callable[[str], str]) -> None:
    Path("/etc/systemd/system/mep@.service.d/quick.conf").write_text("[Service]\nRestart=no\n")
    ok("systemctl daemon-reload")
    first_task("alice")
    os.kill(int(shown("MainPID")), signal.SIGKILL)
    wait_for("the crash", lambda: shown("ActiveState") == "failed")
    assert user_endpoints(), "one without a manager"
    login.follow(INSTALL, "Stopping and removing")
    assert not any(listeners().values())
    assert not list(Path("/etc/systemd/system").rglob("*.wants/mep-hub*"))
    assert Path("/var/lib/mep-hub/hub.db").exists()
    assert user_endpoints() == set()
    assert not any(Path(path).exists() for path in ("/opt/mep", "/usr/bin/mep", "/usr/lib/systemd/system/mep@.service"))
    assert not list(Path("/etc/systemd/system").rglob("*.wants/mep@*"))
    assert (PROFILE / "config.yaml").exists()
    assert Path("/etc/mep/environment.rpmsave").exists()
    assert "started" in Path("/var/log/mep/audit.log").read_text()
    assert "adopted" in Path("/var/log/mep/prod/endpoint.log").read_text()
    assert not [
        p for p in psutil.process_iter(["cmdline"]) if any("/opt/mep/" in word for word in p.info["cmdline"] or [])
    ]
