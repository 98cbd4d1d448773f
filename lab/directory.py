"""A site's directory of accounts: an LDAP server (slapd), and SSSD, which asks it for this system's name service.

    with Directory(folder) as directory:
        directory.server.send_signal(signal.SIGSTOP)  # it hangs
        ...  pwd.getpwnam("Alice.Smith")

SSSD reads /etc/sssd, and the C library finds it in /var/lib/sss. So this is for a box (`lab.box`), where both are
nobody else's and systemd starts it. There are two domains: `hpc` has the names as they are in its part of the
directory, and `ad.example.org` has full ones, `carol@ad.example.org`; both have nested groups (RFC 2307bis).
"""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.ports import free_ports, is_free
from lab.process import Running
from lab.waiting import until

SLAPD, SSSD, SLAPADD = "/usr/sbin/slapd", "/usr/sbin/sssd", "/usr/sbin/slapadd"
MODULES = "/usr/lib/ldap"
TOP = "dc=example,dc=org"
SHORT, FULL = "hpc", "ad.example.org"
_PIPES, _CONFIG = Path("/var/lib/sss"), Path("/etc/sssd/sssd.conf")
_SERVER = """\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/nis.schema
modulepath {modules}
moduleload back_mdb
database mdb
suffix {top}
directory {folder}/db
maxsize 10485760
"""
_DOMAIN = """
[domain/{name}]
id_provider = ldap
auth_provider = none
access_provider = permit
ldap_uri = ldap://127.0.0.1:{port}
ldap_search_base = ou={name},{top}
ldap_schema = rfc2307bis
ldap_group_object_class = groupOfNames
ldap_network_timeout = 60
ldap_opt_timeout = 60
ldap_search_timeout = 60
dns_resolver_timeout = 60
offline_timeout = 1
offline_timeout_max = 1
offline_timeout_random_offset = 0
use_fully_qualified_names = {full}
"""
"""It waits as long for the server as it can be told to, and knows soon that the server is back."""
_SSSD = "[sssd]\nservices = nss\ndomains = {domains}\n[nss]\nentry_negative_timeout = 1\nmemcache_timeout = 0\n"


@dataclass(frozen=True)
class Person:
    """An account, in the domain where it is listed. Its primary group has its number."""

    name: str
    uid: int


@dataclass(frozen=True)
class Group:
    """A group. members: the names of people and of groups of the same domain."""

    name: str
    gid: int
    members: Sequence[str]


class Directory(Running):
    """Both programs. `entries` by domain: SHORT, FULL. Raises CalledProcessError when one cannot be started."""

    def __init__(self, folder: Path, entries: Mapping[str, Sequence[Person | Group]]) -> None:
        self._folder = folder
        self._entries = entries
        (self.port,) = free_ports(1)
        self.server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Fills the server and starts both; returns when accounts can be looked up."""
        (self._folder / "db").mkdir(parents=True)
        config, entries = self._folder / "slapd.conf", self._folder / "entries.ldif"
        config.write_text(_SERVER.format(modules=MODULES, top=TOP, folder=self._folder))
        entries.write_text(_ldif(self._entries))
        subprocess.run([SLAPADD, "-q", "-f", config, "-l", entries], check=True, capture_output=True)
        self.start_server()
        _CONFIG.parent.mkdir(exist_ok=True)
        domains = "".join(
            _DOMAIN.format(name=name, port=self.port, top=TOP, full=name == FULL) for name in self._entries
        )
        _CONFIG.write_text(_SSSD.format(domains=", ".join(self._entries)) + domains)
        _CONFIG.chmod(0o600)
        for name in ("db", "mc"):  # what this system's has cached
            shutil.rmtree(_PIPES / name, ignore_errors=True)
            (_PIPES / name).mkdir(mode=0o755)
        systemctl("start", "sssd")

    def start_server(self) -> None:
        """Starts the server, on the same port each time."""
        command = [SLAPD, "-d", "0", "-f", str(self._folder / "slapd.conf"), "-h", f"ldap://127.0.0.1:{self.port}"]
        self.server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        until(lambda: not is_free(self.port), "slapd to listen")

    def kill_server(self) -> None:
        """Ends it as a crash does."""
        assert self.server is not None
        self.server.kill()
        self.server.wait()

    def hang(self) -> None:
        """Has the server stand still: connections are taken, nothing is answered."""
        assert self.server is not None
        self.server.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Has it answer again, and what has come meanwhile."""
        assert self.server is not None
        self.server.send_signal(signal.SIGCONT)

    def is_asked(self) -> bool:
        """Whether something that it has not read yet lies on one of its connections."""
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
        ours = f"0100007F:{self.port:04X}"
        return any(line.split()[1] == ours and line.split()[3] == "01" and _unread(line) for line in lines)

    def stop(self) -> None:
        """Ends both."""
        systemctl("stop", "sssd")
        if self.server is not None:
            self.kill_server()


def systemctl(*arguments: str) -> None:
    """Raises CalledProcessError."""
    subprocess.run(["systemctl", *arguments], check=True, capture_output=True)


def _unread(line: str) -> bool:
    return int(line.split()[4].partition(":")[2], 16) > 0


def _ldif(entries: Mapping[str, Sequence[Person | Group]]) -> str:
    found = [f"dn: {TOP}\nobjectClass: dcObject\nobjectClass: organization\ndc: example\no: A site\n"]
    for domain, there in entries.items():
        base = f"ou={domain},{TOP}"
        found.append(f"dn: {base}\nobjectClass: organizationalUnit\nou: {domain}\n")
        people = {each.name for each in there if isinstance(each, Person)}
        for each in there:
            if isinstance(each, Person):
                found.append(
                    f"dn: uid={each.name},{base}\nobjectClass: account\nobjectClass: posixAccount\n"
                    f"uid: {each.name}\ncn: {each.name}\nuidNumber: {each.uid}\ngidNumber: {each.uid}\n"
                    f"homeDirectory: /home/{each.uid}\nloginShell: /bin/bash\n"
                )
            else:
                members = [f"member: {'uid' if m in people else 'cn'}={m},{base}\n" for m in each.members]
                found.append(
                    f"dn: cn={each.name},{base}\nobjectClass: groupOfNames\nobjectClass: extensibleObject\n"
                    f"cn: {each.name}\ngidNumber: {each.gid}\n{''.join(members)}"
                )
    return "\n".join(found)
