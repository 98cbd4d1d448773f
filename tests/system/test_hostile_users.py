"""Users who do all they can with their home, their tasks and their processes: it never reaches beyond their account."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from hub.endpoints import user_endpoint_id
from lab.accounts import LocalAccount
from lab.broker import PrivateBroker
from lab.client import run_script
from lab.hub import HubProcess
from lab.manager import ManagerProcess
from lab.waiting import until
from mep.worker import sealing
from tests.accounts import ALICE, BOB
from tests.system.clients import IDLE, request_of, submit
from tests.system.sites import moved_away, own_site, program, site_of

pytestmark = pytest.mark.system

site = own_site("hostile")  # restarted after each test: that pardons who was held back


@pytest.fixture
def alice(site: ManagerProcess, accounts: dict[str, LocalAccount]) -> Iterator[LocalAccount]:
    """Her account; she has and runs nothing before and afterwards, and then she is pardoned."""
    account = accounts[ALICE]
    clear(account)
    yield account
    clear(account)
    site.restart()


def clear(account: LocalAccount) -> None:
    account.end_processes()
    for path in account.home.iterdir():
        subprocess.run(["rm", "-rf", path], check=True)


def as_user(account: LocalAccount, script: str, *arguments: str) -> subprocess.Popen[bytes]:
    """A Python program of the user's own."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        user=account.uid,
        group=account.gid,
        extra_groups=[],
        cwd="/",
        env={"PATH": "/usr/bin:/bin"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )


# What lies in the home.


@pytest.fixture
def treasure(folder: Path) -> Iterator[Path]:
    """A folder of root's; unchanged afterwards."""
    with unchanged(folder / "treasure", 0, 0) as path:
        yield path


@pytest.fixture
def bobs(accounts: dict[str, LocalAccount]) -> Iterator[Path]:
    """A folder in bob's home; unchanged afterwards."""
    account = accounts[BOB]
    with unchanged(account.home / "private", account.uid, account.gid) as path:
        yield path


@contextlib.contextmanager
def unchanged(folder: Path, uid: int, gid: int) -> Iterator[Path]:
    """A new folder with files, all of them still there and as they were in the end."""
    folder.mkdir(mode=0o755)
    for name, mode in (("secret", 0o600), ("public", 0o644), ("endpoint.log", 0o644)):
        path = folder / name
        path.write_text(f"{name} of {uid}\n")
        path.chmod(mode)
        os.chown(path, uid, gid)
    os.chown(folder, uid, gid)
    before = look(folder)
    try:
        yield folder
        assert look(folder) == before
    finally:
        shutil.rmtree(folder)


def look(place: Path) -> dict[str, Any]:
    """All that may be seen of a folder and of what is in it, and must stay."""
    seen: dict[str, Any] = {}
    for path in (place, *place.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        seen[str(path)] = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, content)
    return seen


def made_in_system_folders(account: LocalAccount) -> list[str]:
    found = [entry for place in ("/", "/etc", "/home", "/run") for entry in os.scandir(place)]
    return [
        e.path for e in found if e.stat(follow_symlinks=False).st_uid == account.uid and e.path != str(account.home)
    ]


@pytest.mark.parametrize("leads_to", ["/etc", "treasure", "private", "/nowhere", ".globus_compute"])
def test_a_folder_that_leads_elsewhere(
    hub: HubProcess, site: ManagerProcess, alice: LocalAccount, treasure: Path, bobs: Path, leads_to: str
) -> None:
    place = {"treasure": str(treasure), "private": str(bobs)}.get(leads_to, leads_to)
    link(alice, alice.home / ".globus_compute", place)
    (said,) = submit(hub, site, "alice", {})
    refused = site.wait_for("refused", request=request_of(said))
    assert "step 'log'" in said["error"]
    assert refused["stage"] == "launch"
    assert not made_in_system_folders(alice)


def link(account: LocalAccount, path: Path, leads_to: str) -> None:
    path.symlink_to(leads_to)
    os.lchown(path, account.uid, account.gid)


def test_an_endpoints_folder_or_log_that_is_something_else(
    hub: HubProcess, site: ManagerProcess, alice: LocalAccount, treasure: Path, bobs: Path
) -> None:
    """Each with a start of its own; every third is a good one, so that she is not held back."""

    def hard_link(path: Path, other: Path) -> None:
        with as_user(alice, "import os, sys; os.link(*sys.argv[1:])", str(other), str(path)) as own:
            pass
        if own.returncode:  # forbidden by protected_hardlinks, which not every site has
            path.hardlink_to(other)

    tricks: dict[str, Callable[[Path], object]] = {
        "folder leads to /etc": lambda path: link(alice, path, "/etc"),
        "folder leads to root's": lambda path: link(alice, path, str(treasure)),
        "folder leads to bob's": lambda path: link(alice, path, str(bobs)),
        "folder is a file": lambda path: path.touch(),
        "log leads to a secret": lambda path: link(alice, in_folder(path), str(treasure / "secret")),
        "log leads to root's log": lambda path: link(alice, in_folder(path), str(treasure / "endpoint.log")),
        "log leads to a new file": lambda path: link(alice, in_folder(path), "/etc/mep-test-made-by-alice"),
        "log is root's": lambda path: hard_link(in_folder(path), treasure / "public"),
        "log is bob's": lambda path: hard_link(in_folder(path), bobs / "public"),
        "log is a folder": lambda path: in_folder(path).mkdir(),
        "log is a FIFO": lambda path: os.mkfifo(in_folder(path)),
    }

    def in_folder(path: Path) -> Path:
        path.mkdir()
        os.chown(path, alice.uid, alice.gid)
        return path / "endpoint.log"

    parent = alice.home / ".globus_compute"
    parent.mkdir()
    os.chown(parent, alice.uid, alice.gid)
    all_options: list[dict[str, Any]] = []
    for n, (name, play) in enumerate(tricks.items()):
        all_options += [{"TRICK": name}] if n % 2 else [IDLE | {"FINE": n}, {"TRICK": name}]
        play(parent / name_of(hub, site, "alice", {"TRICK": name}))
    said = dict(zip(map(str, all_options), submit(hub, site, "alice", *all_options, one_by_one=True), strict=True))
    for options, outcome in said.items():
        if "TRICK" in options:
            assert "step 'log'" in outcome["error"], options
            assert site.wait_for("refused", request=request_of(outcome))["stage"] == "launch"
        else:
            assert outcome["uid"] == alice.uid
    assert not made_in_system_folders(alice)


def name_of(hub: HubProcess, site: ManagerProcess, user: str, options: dict[str, Any]) -> str:
    """How the user endpoint with these options will be called."""
    id = user_endpoint_id(site.endpoint_id, hub.users[user].identities[0]["id"], options)
    return f"uep.{site.endpoint_id}.{id}"


SWAP = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
home, *places = sys.argv[1:]
os.chdir(home)
os.makedirs(".globus_compute", exist_ok=True)
links = [f"link{n}".encode() for n, _ in enumerate(places)]
for name, place in zip(links, places):
    os.symlink(place, name)
print("ready", flush=True)
while True:
    for name in links:
        for _ in range(2):  # there and back: RENAME_EXCHANGE
            libc.renameat2(-100, b".globus_compute", -100, name, 2)
"""


def test_a_folder_that_is_swapped_all_the_time(
    hub: HubProcess, site: ManagerProcess, alice: LocalAccount, treasure: Path, bobs: Path
) -> None:
    audited = len(site.audit())
    with as_user(alice, SWAP, str(alice.home), str(treasure), str(bobs), "/etc") as swapping:
        try:
            assert swapping.stdout is not None
            swapping.stdout.readline()
            said = submit(hub, site, "alice", *[IDLE | {"SWAP": n} for n in range(10)])
            site.restart()
            said += submit(hub, site, "alice", *[IDLE | {"SWAP": n} for n in range(10, 20)])
        finally:
            swapping.kill()
    assert len(said) == 20
    assert all(outcome["uid"] == alice.uid for outcome in said if "error" not in outcome)
    # Others are her own user endpoint's words, or her task's.
    told = [outcome["error"] for outcome in said if "(request " in outcome.get("error", "")]
    assert not [text for text in told if str(alice.home) in text or "Traceback" in text]
    lines = site.audit()[audited:]
    refused = [line["request"] for line in lines if line["event"] == "refused"]
    assert len(refused) == len(set(refused)), "one refusal of each"
    assert {request_of({"error": text}) for text in told} <= set(refused)
    assert len([line for line in lines if line["event"] == "starting"]) >= 8, "enough of them came as far as the home"
    assert not made_in_system_folders(alice)


# A home that is none.


@contextlib.contextmanager
def mounted(account: LocalAccount, options: str, *, full: bool = False) -> Iterator[None]:
    """A small file system at the home, in memory."""
    given = f"{options},mode=700,uid={account.uid},gid={account.gid}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", given, "mep-test", account.home], check=True)
    try:
        if full:
            with pytest.raises(OSError, match="No space left"):
                for n in range(1000):
                    (account.home / str(n)).write_bytes(bytes(2**16))
        yield
    finally:
        account.end_processes()
        subprocess.run(["umount", "--lazy", account.home], check=True)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("FIFO", "cannot be entered: Not a directory"),
        ("file", "cannot be entered: Not a directory"),
        ("missing", "cannot be entered: No such file"),
        ("closed", "cannot be entered: Permission denied"),
        ("read-only", "cannot be written to: Read-only file system"),
        ("full", "Your home folder is full"),
    ],
)
def test_a_home_that_is_none(hub: HubProcess, site: ManagerProcess, alice: LocalAccount, kind: str, told: str) -> None:
    with contextlib.ExitStack() as undo, ThreadPoolExecutor() as pool:
        if kind == "read-only":
            undo.enter_context(mounted(alice, "ro"))
        elif kind == "full":
            undo.enter_context(mounted(alice, "size=1m,nr_inodes=8", full=True))
        else:
            undo.enter_context(moved_away(alice.home))
        if kind == "FIFO":
            os.mkfifo(alice.home)
            os.chown(alice.home, alice.uid, alice.gid)
        elif kind == "file":
            alice.home.touch()
        elif kind == "closed":
            alice.home.mkdir(0)
        others = pool.submit(submit, hub, site, "bob", {})
        (said,) = submit(hub, site, "alice", {})
        assert "uid" in others.result()[0], "the other user is served meanwhile"
    assert told in said["error"]
    assert str(alice.home) not in said["error"]
    assert site.wait_for("refused", request=request_of(said))["stage"] == "launch"


def test_a_disk_that_is_full_once_the_folder_is_there(
    hub: HubProcess, site: ManagerProcess, alice: LocalAccount
) -> None:
    """The user endpoint starts, and takes no tasks: it could not keep them through a crash."""
    with mounted(alice, "size=1m,nr_inodes=100", full=True):
        (said,) = submit(hub, site, "alice", {})
        assert "full" in said["error"]


# Tasks against the manager and against others.


@pytest.fixture
def running(hub: HubProcess, site: ManagerProcess, alice: LocalAccount) -> dict[str, int]:
    """The pids of a user endpoint of alice's and of one of bob's."""
    with ThreadPoolExecutor() as pool:
        said = pool.map(lambda user: (user, submit(hub, site, user, {})[0]["pid"]), ("alice", "bob"))
        return dict(said)


ATTACK = """
def task(manager, other, run, files):
    import ctypes, errno, fcntl, os, resource, signal, socket, tempfile

    libc = ctypes.CDLL(None, use_errno=True)
    own = os.getpid()
    eight_bytes = ctypes.c_size_t()
    iovec = (ctypes.c_size_t * 2)(ctypes.addressof(eight_bytes), 8)
    inside = lambda path: os.path.join(path, "made by a task")

    def call(name, *arguments):
        if getattr(libc, name)(*arguments) == -1:
            raise OSError(ctypes.get_errno(), "")

    attempts = {
        "open the credentials for writing": lambda: os.open("/proc/self/fd/3", os.O_RDWR),
        "write to the credentials": lambda: os.write(3, b"x"),
        "open the credentials to all": lambda: os.fchmod(3, 0o666),
        "hold up who writes the credentials": lambda: fcntl.fcntl(3, fcntl.F_SETLEASE, fcntl.F_RDLCK),
        "open the report pipe to all": lambda: os.fchmod(5, 0o666),
        "read the report pipe": lambda: os.open("/proc/self/fd/5", os.O_RDONLY),
        "go where the manager is": lambda: os.listdir(f"/proc/{manager}/root/"),
    }
    for who, pid in {"manager": manager, "other": other}.items():
        attempts |= {
            f"kill {who}": lambda pid=pid: os.kill(pid, signal.SIGKILL),
            f"stop {who} by pidfd": lambda pid=pid: signal.pidfd_send_signal(os.pidfd_open(pid), signal.SIGSTOP),
            f"take a descriptor of {who}": lambda pid=pid: call("syscall", 438, os.pidfd_open(pid), 0, 0),
            f"attach to {who}": lambda pid=pid: call("ptrace", 16, pid, 0, 0),
            f"seize {who}": lambda pid=pid: call("ptrace", 0x4206, pid, 0, 0),
            f"read {who}": lambda pid=pid: call("process_vm_readv", pid, iovec, 1, iovec, 1, 0),
            f"write {who}": lambda pid=pid: call("process_vm_writev", pid, iovec, 1, iovec, 1, 0),
            f"open the memory of {who}": lambda pid=pid: os.open(f"/proc/{pid}/mem", os.O_RDWR),
            f"limit {who}": lambda pid=pid: resource.prlimit(pid, resource.RLIMIT_NOFILE, (0, 0)),
            f"slow {who} down": lambda pid=pid: os.setpriority(os.PRIO_PROCESS, pid, 19),
            f"move {who}": lambda pid=pid: os.sched_setaffinity(pid, {0}),
            f"have {who} killed first": lambda pid=pid: os.open(f"/proc/{pid}/oom_score_adj", os.O_WRONLY),
        }
    for folder in run:
        attempts |= {
            f"write into {folder}": lambda folder=folder: os.mkdir(inside(folder)),
            f"rename {folder}": lambda folder=folder: os.rename(folder, folder + ".old"),
            f"open {folder} to all": lambda folder=folder: os.chmod(folder, 0o777),
        }
    for file in files:
        attempts |= {
            f"read {file}": lambda file=file: os.open(file, os.O_RDONLY | os.O_NONBLOCK),
            f"write {file}": lambda file=file: os.open(file, os.O_WRONLY | os.O_NONBLOCK),
            f"delete {file}": lambda file=file: os.unlink(file),
        }

    outcomes = {}
    for name, attempt in attempts.items():
        try:
            attempt()
            outcomes[name] = "done"
        except OSError as e:
            outcomes[name] = errno.errorcode[e.errno]
    return outcomes
"""


def test_a_task_that_attacks_the_manager_and_others(
    hub: HubProcess, site: ManagerProcess, running: dict[str, int]
) -> None:
    run = site.folder / "run" / site.name
    files = [str(path) for path in run.glob("uep.*/*")] + [str(site.folder / "client.yaml")]
    folders = [str(path) for path in (run, *run.glob("uep.*"), site.profile)]
    assert len(files) >= 7, "those of two user endpoints are among them"
    arguments = [site.pid, running["bob"], folders, files]
    (outcomes,) = submit(hub, site, "alice", {}, function=ATTACK, arguments=arguments)
    allowed = {"write to the credentials": "EBADF"}
    bad = {name: code for name, code in outcomes.items() if code not in ("EPERM", "EACCES", allowed.get(name))}
    assert not bad
    assert len(outcomes) > 40
    assert submit(hub, site, "bob", {})[0]["pid"] == running["bob"]


def test_nothing_of_the_manager_can_be_connected_to(site: ManagerProcess) -> None:
    own = set()
    for descriptor in Path(f"/proc/{site.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            own.add(os.readlink(descriptor))
    assert any(name.startswith("socket:") for name in own)
    named = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    listening = [Path(words[7]) for words in named if f"socket:[{words[6]}]" in own and len(words) > 7]
    assert {path.name for path in listening} <= {"api.sock", "control"}
    assert (site.folder / "run" / site.name).stat().st_mode & 0o777 == 0o700, "nobody but root comes to that"
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for words in map(str.split, Path(f"/proc/net/{table}").read_text().splitlines()[1:]):
            assert f"socket:[{words[9]}]" not in own or words[3] == "01", "it only has connections"


FLOOD = """
def task():
    import os
    written = 0
    for word in (b"ready\\n", b"working\\nstopped\\n", b"\\0" * 4096, b"\\xff\\n"):
        try:
            for _ in range(10000):
                written += os.write(5, word)
        except BlockingIOError:
            pass
    return {"pid": os.getpid(), "written": written}
"""


def test_a_task_that_floods_the_report_pipe(hub: HubProcess, site: ManagerProcess, running: dict[str, int]) -> None:
    (said,) = submit(hub, site, "alice", {}, function=FLOOD)
    assert said["pid"] == running["alice"]
    assert said["written"] > 2**15
    assert submit(hub, site, "bob", {})[0]["pid"] == running["bob"]
    assert submit(hub, site, "alice", {})[0]["pid"] == running["alice"]


WALK = r"""
import os, re, sys

def read(path, most):
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return os.read(descriptor, most)
    finally:
        os.close(descriptor)

def memory(folder):
    maps = read(folder + "/maps", 2**16) and open(folder + "/maps", "rb").read()
    descriptor = os.open(folder + "/mem", os.O_RDONLY)
    for line in maps.splitlines():
        begin, end, readable = re.match(rb"(\w+)-(\w+) (.)", line).groups()
        if readable == b"r":
            try:
                sys.stdout.buffer.write(os.pread(descriptor, int(end, 16) - int(begin, 16), int(begin, 16)))
            except (OSError, OverflowError):
                pass  # of the kernel's own
    os.close(descriptor)

for folder in sys.argv[1:]:
    for at, folders, files in os.walk(folder, onerror=lambda e: print(e.filename, e.errno, file=sys.stderr)):
        for name in files + [name for name in folders if os.path.islink(f"{at}/{name}")]:
            path = f"{at}/{name}"
            try:
                if name == "mem":
                    memory(at)
                else:
                    if os.path.islink(path):
                        sys.stdout.buffer.write(os.fsencode(os.readlink(path)))
                    sys.stdout.buffer.write(read(path, 2**16))
                print(path, 0, file=sys.stderr)
            except OSError as e:
                print(path, e.errno, file=sys.stderr)
"""
PRIVATE = [
    "auxv",
    "cwd",
    "environ",
    "exe",
    "fd",
    "fdinfo",
    "io",
    "maps",
    "map_files",
    "mem",
    "pagemap",
    "root",
    "stack",
]
DENIED = {str(errno.EPERM), str(errno.EACCES)}


def walk(account: LocalAccount | None, *pids: int) -> tuple[bytes, dict[str, str]]:
    """All that an account can read below /proc/PID of some processes, and the errno of each path ("0": it was read)."""
    who: dict[str, Any] = {"user": account.uid, "group": account.gid, "extra_groups": []} if account else {}
    command = [sys.executable, "-c", WALK, *(f"/proc/{pid}" for pid in pids)]
    done = subprocess.run(command, capture_output=True, check=False, cwd="/", **who)
    outcomes = dict(line.rsplit(" ", 1) for line in done.stderr.decode().splitlines())
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, outcomes


def password_of(site: ManagerProcess, pid: int) -> bytes:
    """The AMQP password of a user endpoint."""
    name = site.wait_for("started", pid=pid)["endpoint"]
    folder = site.folder / "run" / site.name / name
    facts = json.loads((folder / "state.json").read_text())
    credentials = sealing.read(facts["credentials"].encode(), facts["key"])
    return (urlsplit(credentials["task_queue_info"]["connection_url"]).password or "").encode()


def test_what_a_user_can_read_of_processes_holds_no_others_secrets(
    hub: HubProcess, site: ManagerProcess, alice: LocalAccount, running: dict[str, int], broker: PrivateBroker
) -> None:
    own, others = password_of(site, running["alice"]), password_of(site, running["bob"])
    children = psutil.Process(site.pid).children()
    workers = [child.pid for child in children if any(word.startswith("mep.") for word in child.cmdline())]
    assert len(workers) >= 2
    all_of_manager, _ = walk(None, site.pid)
    at_broker = set(re.findall(rb"mep\.[0-9a-f-]{36}:([\w-]{40,})@", all_of_manager))
    assert at_broker, "root sees the manager's password in its memory"
    secrets = {others, *at_broker, (urlsplit(broker.url).password or "").encode()}
    secrets |= {user.client_secret.encode() for user in hub.users.values()}
    assert all(len(secret) >= 16 for secret in secrets)

    read, _ = walk(alice, *alice.processes())
    assert own in read, "she sees her own one in the memory of her user endpoint"
    assert not [secret for secret in secrets if secret in read]

    protected = [site.pid, *workers, running["bob"], hub.pid]
    read, outcomes = walk(alice, *protected)
    assert b"mep-manager" in read, "what is everybody's can be read"
    assert not [secret for secret in {own, *secrets} if secret in read]
    for pid in protected:
        for name in PRIVATE:
            tried = {path: code for path, code in outcomes.items() if path.startswith(f"/proc/{pid}/{name}")}
            assert tried, (pid, name)
            assert set(tried.values()) <= DENIED, tried


# More processes than there may be, and processes that do not end.


BOMB = """
def task():
    import errno, os, time
    made = 0
    for n in range(200):
        try:
            pid = os.fork()
        except OSError as e:
            return {"pid": os.getpid(), "made": made, "why": errno.errorcode[e.errno]}
        if pid == 0:
            if n % 3 == 0:
                os.setpgid(0, 0)
            time.sleep(600)
            os._exit(0)
        made += 1
    return {"pid": os.getpid(), "made": made, "why": None}
"""


def test_a_fork_bomb_is_held_and_ends_with_the_manager(folder: Path, hub: HubProcess, alice: LocalAccount) -> None:
    config = {"public": True, "resources": {"tasks_max": 60}}
    with site_of(folder, hub, "bombed", config=config) as site:
        (said,) = submit(hub, site, "alice", {}, function=BOMB)
        assert said["why"] == "EAGAIN"
        assert 20 < said["made"] < 60
        assert len(alice.processes()) <= 60
        assert "uid" in submit(hub, site, "bob", {})[0]
        assert submit(hub, site, "alice", {})[0]["pid"] == said["pid"], "it can still work, and report"
    until(lambda: not alice.processes(), "the bomb to end")


STUBBORN = """\
#!/bin/sh
trap '' TERM HUP INT QUIT
sh -c 'sleep 600 & setsid sleep 600 & wait' &
while :; do sleep 600; done
"""
START = """
import os, sys, time
from globus_compute_sdk import Executor
future = Executor(endpoint_id=sys.argv[1]).submit(lambda: None)
while future.task_id is None:
    time.sleep(0.05)
os._exit(0)
"""


def test_a_user_endpoint_that_does_not_want_to_end(folder: Path, hub: HubProcess, alice: LocalAccount) -> None:
    config = {"public": True, "uep_command": [program(folder, "does-not-listen", STUBBORN)]}
    with site_of(folder, hub, "stubborn", config=config) as site:
        run_script(hub, "alice", START, site.endpoint_id)
        site.wait_for("started", account=ALICE)
        until(lambda: len(alice.processes()) == 5, "its processes")
    assert "did not stop within 30 s; killing it" in site.log.read_text()
    until(lambda: not alice.processes(), "all of them to end")
