"""How a run's processes were started, as ``torchrun`` and SLURM's ``srun`` tell it: the environment.

Nothing else reads these variables.
"""

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from atheria.config import UserError

_FIRST_PORT, _PORTS = 10_000, 20_000
"""Below the ports that Linux gives to connections."""


@dataclass(frozen=True)
class Place:
    """A process among those that train one run together.

    Attributes:
        rank: Its number, from 0.
        size: How many there are.
        local_rank: Its number among those on its machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether it is the one that logs, prints and saves."""
        return self.rank == 0


class Meeting(NamedTuple):
    """Where the processes find each other.

    Attributes:
        host: The machine that listens.
        port: Its port.
        is_hosted: Whether somebody listens there already; else the first process does.
        attempt: How often ``torchrun`` has started the processes anew.
    """

    host: str
    port: int
    is_hosted: bool
    attempt: str


def place(environment: Mapping[str, str] = os.environ) -> Place:
    """The place of this process; alone where nothing says otherwise."""
    if "RANK" in environment and "WORLD_SIZE" in environment:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    # A batch script has SLURM_NTASKS too and is one process; only a step has the number of its own tasks.
    elif int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
    else:
        return Place()
    rank, size, local_rank = (int(environment.get(name, "0")) for name in names)
    return Place(rank, size, local_rank)


def meeting(environment: Mapping[str, str] = os.environ) -> Meeting:
    """Where the processes find each other; MASTER_ADDR and MASTER_PORT count before what SLURM says.

    Raises:
        UserError: Nothing says where.
    """
    job, step = environment.get("SLURM_JOB_ID"), environment.get("SLURM_STEP_ID", "0")
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST")
    host, port = environment.get("MASTER_ADDR"), environment.get("MASTER_PORT")
    if host is None and nodes:
        host = _first_host(nodes)
    if port is None and job:
        port = str(_FIRST_PORT + (31 * int(job) + int(step)) % _PORTS)  # two steps at once want two ports
    if host is None or port is None:
        raise UserError(
            "MASTER_ADDR and MASTER_PORT must say where the processes of the run meet; start them with "
            "torchrun or srun, which do"
        )
    is_hosted = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return Meeting(host, int(port), is_hosted, environment.get("TORCHELASTIC_RESTART_COUNT", "0"))


def _first_host(nodes: str) -> str:
    """The first machine of a list in SLURM's notation, as ``gpu[03-07,12],cpu1``."""
    if "[" not in nodes:
        return nodes.partition(",")[0]
    try:
        listed = subprocess.run(
            ["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(
            f"the first of the machines {nodes} could not be found ({error}); name it: MASTER_ADDR=..."
        ) from None
    return listed.stdout.split()[0]
