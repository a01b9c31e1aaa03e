"""Which process of how many this one is: what torchrun, Slurm or nobody says in the environment.

torchrun sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT. `srun` sets none of these, but starts its tasks
all the same; a task that did not notice would train alone, and N tasks would make the same run N times. So Slurm's own
variables are read where there is no WORLD_SIZE. The batch script of a job and an interactive shell are steps, too, of
one process: they have numbers above those of srun's steps, and torchrun is started from them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from transfer.types import UserError

_LAST_STEP = 0xFFFFFFF0
"""Slurm's largest number of a step that srun made; above are the batch script, the interactive shell and others."""
_PORTS = range(15_000, 30_000)
"""Above the well-known ones, below those that systems give to outgoing connections."""


@dataclass(frozen=True, slots=True)
class Place:
    """This process among those that were started together."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Among those of its machine."""
    address: str = ""
    """Host of process 0; empty where there is one process."""
    port: int = 0
    """On that host, where the processes meet."""
    by_slurm: bool = False
    """Whether `srun` started them, and not torchrun or its like."""


def launched_place(environment: Mapping[str, str] = os.environ) -> Place:
    """The place of this process.

    Args:
        environment: of the process.

    Raises:
        UserError: variables that are missing or make no sense, all of them.
    """
    if environment.get("WORLD_SIZE") is not None:
        return _from_torchrun(environment)
    step = environment.get("SLURM_STEP_ID", "")
    if "SLURM_PROCID" not in environment or not re.fullmatch(r"[0-9]+", step) or int(step) > _LAST_STEP:
        return Place()
    return _from_slurm(environment, int(step))


def _from_torchrun(environment: Mapping[str, str]) -> Place:
    problems: list[str] = []
    size = _number(environment, "WORLD_SIZE", problems, least=1)
    if size == 1 and not problems:
        return Place()
    rank = _number(environment, "RANK", problems)
    local_rank = _number(environment, "LOCAL_RANK", problems, default=0)
    port = _number(environment, "MASTER_PORT", problems, least=1)
    address = environment.get("MASTER_ADDR", "")
    if not address:
        problems.append("MASTER_ADDR is not set")
    if not problems and rank >= size:
        problems.append(f"RANK={rank} is not below WORLD_SIZE={size}")
    if problems:
        raise UserError(f"WORLD_SIZE is set, but {'; '.join(problems)}: start several processes with torchrun")
    return Place(rank, size, local_rank, address, port)


def _from_slurm(environment: Mapping[str, str], step: int) -> Place:
    """The place of one of srun's tasks; MASTER_ADDR and MASTER_PORT go before what Slurm says."""
    problems: list[str] = []
    tasks = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environment else "SLURM_NTASKS"  # of the job, at worst
    size = _number(environment, tasks, problems, least=1, default=1)
    if size == 1 and not problems:
        return Place()
    rank = _number(environment, "SLURM_PROCID", problems)
    local_rank = _number(environment, "SLURM_LOCALID", problems, default=0)
    job = _number(environment, "SLURM_JOB_ID", problems, default=0)
    # Two steps of a job may run at once on the same node: each has its own port.
    port = _number(environment, "MASTER_PORT", problems, least=1, default=_PORTS[(31 * job + step) % len(_PORTS)])
    address = environment.get("MASTER_ADDR", "")
    if not address:
        nodes = "SLURM_STEP_NODELIST" if "SLURM_STEP_NODELIST" in environment else "SLURM_JOB_NODELIST"
        try:
            address = expand_hosts(environment.get(nodes, ""))[0]
        except ValueError:
            problems.append(f"{nodes}={environment.get(nodes)!r} cannot be read: set MASTER_ADDR to the first node")
    if not problems and rank >= size:
        problems.append(f"SLURM_PROCID={rank} is not below {tasks}={size}")
    if problems:
        raise UserError(f"started by srun, but {'; '.join(problems)}; or start torchrun by srun, one task a node")
    return Place(rank, size, local_rank, address, port, by_slurm=True)


def expand_hosts(text: str) -> list[str]:
    """The hosts of a list as Slurm writes it: "node[003-004,009],gpu1" is node003, node004, node009, gpu1.

    Raises:
        ValueError: it is not such a list, or empty.
    """
    parts = re.findall(r"(?:[^,\[\]]|\[[^\[\]]*\])+", text)
    if not parts or ",".join(parts) != text:
        raise ValueError(f"no list of hosts: {text!r}")
    hosts = [host for part in parts for host in _expanded(part)]
    if not hosts:
        raise ValueError(f"a list of no hosts: {text!r}")
    return hosts


def _expanded(part: str) -> Iterator[str]:
    """The hosts of one part; a second pair of brackets runs fastest."""
    before, bracket, rest = part.partition("[")
    if not bracket:
        yield part
        return
    inside, _, after = rest.partition("]")
    for item in inside.split(","):
        low, dash, high = item.partition("-")
        for number in range(int(low), int(high if dash else low) + 1):
            yield from (f"{before}{number:0{len(low)}d}{end}" for end in _expanded(after))


def _number(
    environment: Mapping[str, str], name: str, problems: list[str], *, least: int = 0, default: int | None = None
) -> int:
    """A variable as a whole number; what is wrong with it goes to `problems`."""
    text = environment.get(name)
    if text is None and default is not None:
        return default
    if text is None:
        problems.append(f"{name} is not set")
    elif not re.fullmatch(r"[0-9]+", text) or int(text) < least:
        problems.append(f"{name}={text!r} is no whole number of at least {least}")
    else:
        return int(text)
    return least
