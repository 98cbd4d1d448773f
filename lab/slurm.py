"""A private Slurm cluster of one node: real munged, slurmctld and slurmd, on loopback; gone without a trace afterwards.

    with SlurmNode(folder) as node:
        ...  node.environment  for whoever submits,  node.jobs()

Any account may submit to the partition `debug`, which is the default one. The partition `closed` takes jobs only for
accounts (in Slurm's sense) that nobody has. The node claims 8 processors and 2 GPUs, whatever the machine has; there is
no accounting database, so no `sacct`. All files are in `folder`, which ordinary users must be able to enter. Needs
root: jobs run as those who submitted them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab.ports import free_ports
from lab.process import Running
from lab.waiting import until

PROGRAMS = ("munged", "mungekey", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo")
"""What has to be installed (Debian: slurm-wlm, munge)."""
START_TIMEOUT = 30.0
"""Seconds for the node to be ready for jobs; it takes about 1."""
STOP_TIMEOUT = 30.0
"""Seconds for all jobs to end, and for each daemon."""

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# A daemon that is told not to listen on all addresses (NoInAddrAny below) listens on that of the machine's name, and
# there may be none. So it runs on a machine whose name is an address: 127.0.0.1, written without dots.
_NAME = "2130706433"
_RENAMED = ("unshare", "--uts", "sh", "-c", f'echo {_NAME} >/proc/sys/kernel/hostname && exec "$@"', "sh")

# EnableIPv6: without it no address at all can be looked up where there is only loopback. MinJobAge: what has ended must
# be known for longer than the minute between two looks of Parsl. linuxproc: there may be no cgroup to write to.
_CONF = """\
ClusterName=lab
GresTypes=gpu
SlurmctldHost={name}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge/socket
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny,EnableIPv6
StateSaveLocation={folder}/controller
SlurmdSpoolDir={folder}/node
SlurmctldPidFile={folder}/controller/pid
SlurmdPidFile={folder}/node/pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.log
PlugStackConfig={folder}/plugstack.conf
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0
ReturnToService=2
KillWait=2
MinJobAge={min_job_age}
EnforcePartLimits=ALL
SlurmdParameters=config_overrides
NodeName=lab1 NodeHostname={name} NodeAddr=127.0.0.1 CPUs=8 RealMemory=4000 Gres=gpu:2 State=UNKNOWN
PartitionName=debug Nodes=lab1 Default=YES MaxTime=60 State=UP
PartitionName=closed Nodes=lab1 MaxTime=60 State=UP AllowAccounts=nobodys
"""
_GPUS = "AutoDetect=off\nName=gpu File=/dev/null\nName=gpu File=/dev/zero\n"  # what is counted must be files


class SlurmFailed(Exception):
    """The node could not be started or stopped, or a command of Slurm's failed; the text says why."""


@dataclass(frozen=True, slots=True)
class BatchJob:
    """A job in the queue. `state` is Slurm's abbreviation, such as R or PD."""

    id: str
    user: str
    state: str


class SlurmNode(Running):
    """`start`, `stop`; a context manager does both."""

    def __init__(self, folder: Path, min_job_age: int = 300) -> None:
        """`folder` is made when it is not there; nobody but its owner may be able to write to it.

        `min_job_age`: seconds for which a job that has ended is known; 2 is Slurm's least.
        """
        self.folder = folder.absolute()
        self._min_job_age = min_job_age
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def environment(self) -> dict[str, str]:
        """The variables that whoever submits needs."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": _PATH}

    def start(self) -> None:
        """Starts the daemons and waits until the node takes jobs. Raises SlurmFailed, and nothing is left then."""
        if reason := obstacle():
            raise SlurmFailed(reason)
        self._write_files()
        munge = self.folder / "munge"
        try:
            self.run("mungekey", "--create", f"--keyfile={munge}/private/key")
            self._spawn(
                "munged",
                "--foreground",
                f"--key-file={munge}/private/key",
                f"--seed-file={munge}/private/seed",
                f"--log-file={munge}/private/log",
                f"--pid-file={munge}/pid",
                f"--socket={munge}/socket",
            )
            self._wait("munged to listen", (munge / "socket").exists)
            self._spawn("slurmctld", "-D")
            self._spawn("slurmd", "-D", "-N", "lab1")
            self._wait("the node to take jobs", lambda: self._node_state() == "idle")
        except BaseException:
            self._end_daemons()
            raise

    def stop(self) -> None:
        """Cancels all jobs, waits until they have ended, and ends the daemons. Harmless when stopped.

        Raises:
            SlurmFailed: a job did not end, or a daemon had to be killed.
        """
        if not self._daemons:
            return
        try:
            if jobs := self.jobs():
                self.run("scancel", *(job.id for job in jobs))
            self._wait("all jobs to end", lambda: not self.jobs(), STOP_TIMEOUT)
        finally:
            self._end_daemons()

    def jobs(self) -> list[BatchJob]:
        """All jobs in the queue, in the order of their submission; one that has ended is not in it any more."""
        lines = self.run("squeue", "--noheader", "--sort=i", "--format=%i %u %t").splitlines()
        return [BatchJob(*line.split()) for line in lines]

    def run(self, *argv: str) -> str:
        """What a command of Slurm's prints, run as root. Raises SlurmFailed."""
        done = subprocess.run(argv, env=self.environment, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode != 0:
            raise SlurmFailed(f"{' '.join(argv)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def _node_state(self) -> str:
        done = subprocess.run(
            ["sinfo", "--noheader", "--partition=debug", "--format=%T"],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip()

    def _write_files(self) -> None:
        shared = ["", "munge", "log", "controller", "node"]
        for name, mode in [*((name, 0o755) for name in shared), ("munge/private", 0o700)]:
            path = self.folder / name
            path.mkdir(mode=mode, parents=True, exist_ok=True)
            path.chmod(mode)
        controller_port, node_port = free_ports(2)
        text = _CONF.format(
            name=_NAME,
            folder=self.folder,
            controller_port=controller_port,
            node_port=node_port,
            min_job_age=self._min_job_age,
        )
        for name, content in {"slurm.conf": text, "gres.conf": _GPUS, "plugstack.conf": ""}.items():
            (self.folder / name).write_text(content)
            (self.folder / name).chmod(0o644)

    def _spawn(self, *argv: str) -> None:
        with (self.folder / "log" / f"{argv[0]}.out").open("ab") as out:
            self._daemons[argv[0]] = subprocess.Popen(
                [*_RENAMED, *argv],
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us: we end them in good order
            )

    def _wait(self, what: str, done: Callable[[], bool], timeout: float = START_TIMEOUT) -> None:
        def look() -> bool:
            for name, daemon in self._daemons.items():
                if daemon.poll() is not None:
                    raise SlurmFailed(f"{name} ended with {daemon.returncode}:\n{self._log_ends()}")
            return done()

        until(look, what, timeout, failed=lambda text: SlurmFailed(f"{text}:\n{self._log_ends()}"))

    def _end_daemons(self) -> None:
        daemons, self._daemons = self._daemons, {}
        killed = []
        for name, daemon in reversed(daemons.items()):
            daemon.terminate()
            try:
                daemon.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
                killed.append(name)
        if killed:
            raise SlurmFailed(f"did not end within {STOP_TIMEOUT:g} s: {', '.join(killed)}")

    def _log_ends(self) -> str:
        lines = []
        for path in sorted((self.folder / "log").iterdir()):
            lines += [f"{path.name}: {line}" for line in path.read_text(errors="replace").splitlines()[-10:]]
        return "\n".join(lines)


def obstacle() -> str | None:
    """Why no node can be started here; None when nothing is known to be in the way."""
    if os.geteuid() != 0:
        return "needs root"
    missing = [program for program in PROGRAMS if not shutil.which(program, path=_PATH)]
    return f"needs the programs {', '.join(missing)} (lab/setup slurm)" if missing else None
