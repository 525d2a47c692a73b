"""A real SLURM that tests start and stop."""

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from .servers import free_port

PROGRAMS = (
    "munged", "mariadb-install-db", "mariadbd", "slurmdbd", "slurmctld", "slurmd",
    "sbatch", "srun", "squeue", "scancel", "scontrol", "sinfo", "sacct", "sacctmgr",
)  # fmt: skip
"""What Debian's slurmctld, slurmd, slurm-client, munge, slurmdbd and mariadb-server bring."""

CONFIGURATION = """\
ClusterName=atheria
SlurmctldHost=localhost
SlurmctldPort={slurmctld}
SlurmdPort={slurmd}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort={slurmdbd}
AccountingStoragePass={folder}/munge.sock
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=500
ReturnToService=2
KillWait=2
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
SlurmdParameters=config_overrides
NodeName=localhost CPUs={cores} RealMemory=64000 State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime={grace}
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""

ACCOUNTING = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
DbdHost=localhost
DbdPort={slurmdbd}
SlurmUser={user}
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={mariadbd}
StorageUser=slurm
StoragePass={password}
StorageLoc=accounting
"""

DATABASE = """\
CREATE DATABASE IF NOT EXISTS accounting;
CREATE USER IF NOT EXISTS slurm@127.0.0.1 IDENTIFIED BY '{password}';
GRANT ALL ON accounting.* TO slurm@127.0.0.1;
"""


@dataclass(frozen=True)
class QueuedJob:
    """A line of ``squeue``; a task of an array is a job of its own, ``12_3``."""

    id: str
    state: str
    reason: str
    partition: str
    name: str


class Slurm:
    """A SLURM with accounting, of one node that takes as many jobs at once as it is told to have cores.

    Jobs in the partition ``high`` preempt those in ``debug``, the default. A preempted job gets the signal of
    its ``--signal``, or SIGTERM if it has none; after the time of grace SIGTERM and SIGKILL, and it is queued
    again.

    Args:
        cores: How many cores the node declares, whatever the machine has.
        grace: Seconds from that first signal to the end, at least; SLURM may take five more.

    Attributes:
        environment: What lets SLURM's commands find it.
    """

    def __init__(self, cores: int = 4, grace: int = 20) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="atheria-slurm-"))
        self._user = pwd.getpwuid(os.geteuid()).pw_name
        self._ports = {name: free_port() for name in ("mariadbd", "slurmdbd", "slurmctld", "slurmd")}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self.environment = {"SLURM_CONF": f"{self._folder}/slurm.conf"}
        values = {"folder": self._folder, "user": self._user, "password": secrets.token_hex(8),
                  "cores": cores, "grace": grace, **self._ports}  # fmt: skip
        self._write("slurm.conf", CONFIGURATION.format_map(values).encode())
        self._write("slurmdbd.conf", ACCOUNTING.format_map(values).encode())
        self._write("database.sql", DATABASE.format_map(values).encode())
        self._write("munge.key", secrets.token_bytes(128))
        for name in ("state", "spool"):
            (self._folder / name).mkdir()

    @staticmethod
    def programs() -> bool:
        """Whether all its programs are installed."""
        return all(_program(name) for name in PROGRAMS)

    def start(self) -> None:
        """Returns when the node waits for jobs; where it fails, it leaves nothing behind."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Kills it, its jobs and whatever else was started in its environment; deletes what it has kept."""
        while processes := self._processes():
            for process in processes:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            time.sleep(0.05)
        for daemon in self._daemons.values():
            daemon.wait(timeout=20)
        if self._folder.exists():
            shutil.rmtree(self._folder)

    def run(self, *command: str) -> str:
        """What one of SLURM's commands prints."""
        return subprocess.run(
            command, env=os.environ | self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            text=True, timeout=600, check=True,
        ).stdout  # fmt: skip

    def queue(self) -> list[QueuedJob]:
        """The jobs that wait, run or are ending."""
        lines = self.run("squeue", "--noheader", "--array", "--format=%i|%T|%r|%P|%j").splitlines()
        return [QueuedJob(*line.split("|", maxsplit=4)) for line in lines]

    def accounting(self, job_id: str) -> str:
        """The state of a job, past or present; may be empty in a job's first five seconds."""
        state = self.run(
            "sacct", "--noheader", "--allocations", "--parsable2", "--format=State", f"--jobs={job_id}"
        )
        return state.split()[0] if state else ""

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Its controller gives no answer meanwhile."""
        self._daemons["slurmctld"].send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._daemons["slurmctld"].send_signal(signal.SIGCONT)

    def start_soon(self, job_id: str) -> None:
        """Spares a job that was queued again the two minutes it would wait.

        In the second in which a job was killed a node takes it for one that is not to start.
        """
        self.run("scontrol", "update", f"JobId={job_id}", "StartTime=now+2")

    def _start(self) -> None:
        folder = self._folder
        database = ["--no-defaults", f"--user={self._user}", f"--datadir={folder}/database",
                    "--innodb-log-file-size=16M"]  # fmt: skip
        self._launch("munged", "--foreground", "--force", f"--socket={folder}/munge.sock",
                     f"--key-file={folder}/munge.key", f"--seed-file={folder}/munge.seed",
                     f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log")  # fmt: skip
        installation = self._popen("mariadb-install-db", *database, "--skip-test-db", "--skip-name-resolve")
        assert installation.wait(timeout=600) == 0, self._log("mariadb-install-db")
        self._launch("mariadbd", *database, "--bind-address=127.0.0.1", f"--port={self._ports['mariadbd']}",
                     "--skip-name-resolve", f"--socket={folder}/mariadb.sock",
                     f"--pid-file={folder}/mariadb.pid", f"--init-file={folder}/database.sql",
                     "--innodb-buffer-pool-size=64M", "--innodb-flush-log-at-trx-commit=0")  # fmt: skip
        self._launch("slurmdbd", "-D")
        self.run("sacctmgr", "--immediate", "add", "cluster", "atheria")  # which slurmctld expects there
        self._launch("slurmctld", "-D")
        self._launch("slurmd", "-D", "-N", "localhost")
        self._wait_for(
            lambda: self.run("sinfo", "--noheader", "--partition=debug", "--format=%T").strip() == "idle"
        )

    def _launch(self, name: str, *options: str) -> None:
        """Starts a daemon; returns when it answers at its port."""
        self._daemons[name] = self._popen(name, *options)
        if port := self._ports.get(name):
            self._wait_for(lambda: _answers(port))

    def _popen(self, name: str, *options: str) -> subprocess.Popen[bytes]:
        program = _program(name)
        assert program is not None, f"{name} is not installed"
        with (self._folder / f"{name}.out").open("wb") as log:
            return subprocess.Popen(
                [program, *options], env=os.environ | self.environment,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def _wait_for(self, condition: Callable[[], bool]) -> None:
        for _ in range(6000):
            if condition():
                return
            for name, daemon in self._daemons.items():
                assert daemon.poll() is None, f"{name} ended:\n{self._log(name)}"
            time.sleep(0.1)
        raise AssertionError(f"{list(self._daemons)[-1]} does not get ready")

    def _log(self, name: str) -> str:
        return (self._folder / f"{name}.out").read_text()

    def _write(self, name: str, content: bytes) -> None:
        path = self._folder / name
        path.touch(mode=0o600)  # the most that slurmdbd and munged bear
        path.write_bytes(content)

    def _processes(self) -> list[int]:
        """All processes with its environment: daemons, jobs, and clients."""
        mark = f"SLURM_CONF={self.environment['SLURM_CONF']}".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):  # it ended, or is somebody else's
                if mark in path.read_bytes().split(b"\0"):
                    found.append(int(path.parent.name))
        return found


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")  # which users lack on Debian


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
