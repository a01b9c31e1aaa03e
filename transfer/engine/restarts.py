"""After torchrun has restarted the processes of a run: which run directory is theirs.

`torchrun --max-restarts` starts its workers anew when one of them died. They find their run by the torchrun processes
("agents", one a node), which live on: process 0 leaves their names in the run directory. A run is this job's where one
of the agents named there is among those of today. So it is found, too, where process 0 has moved to another node or one
node of several was replaced, as long as the folder is on a file system that all nodes share; and a later job never
takes an earlier one's run, which `--rdzv-id` alone would not prevent: people give the same id again.

Nothing here asks how often torchrun has restarted: TORCHELASTIC_RESTART_COUNT counts, on each node, the failures of
that node's own workers, and stays 0 on the others.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path

from transfer.engine.distributed import World
from transfer.engine.run_directory import write_text_atomically

AGENT_FILE = ".torchrun"
"""In a run directory: the torchrun processes whose workers write it, one a line."""


def own_agent(environment: Mapping[str, str] = os.environ, process: int | None = None) -> str | None:
    """The torchrun process that started this one, by a name that no other ever had; None where none did.

    Args:
        environment: of this process.
        process: number of the process that started this one; None: the parent's.
    """
    run_id = environment.get("TORCHELASTIC_RUN_ID")
    if run_id is None:
        return None
    process = os.getppid() if process is None else process
    # The id tells apart two groups of workers that one process starts, by torch's launcher, one after the other.
    return " ".join([socket.gethostname(), str(process), *_beginning(process), *run_id.split()])


def _beginning(process: int) -> tuple[str, ...]:
    """When a process began, and in which boot of the machine: numbers of processes come again, in containers often."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return fields[19], Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except (OSError, IndexError, UnicodeDecodeError):
        return ()  # not on Linux


def agents_of(here: World) -> list[str]:
    """The torchrun processes of this job, on process 0; an empty list elsewhere, or without torchrun. Called by all."""
    return sorted({agent for agent in here.gather(own_agent()) if agent is not None})


def sign(folder: Path, agents: list[str]) -> None:
    """Say in a run directory whose it is; without agents it is nobody's, whatever was said before."""
    if agents:
        write_text_atomically(folder / AGENT_FILE, "".join(f"{agent}\n" for agent in agents))
    else:
        (folder / AGENT_FILE).unlink(missing_ok=True)


def own_checkpoint(root: Path, agents: list[str]) -> Path | None:
    """The last.pth of the newest run below `root` that these agents' workers have saved; None where they have not.

    Args:
        root: holds the numbered run directories of a config.
        agents: of this job, as `agents_of` gives them.
    """
    found = []
    for marker in root.glob(f"[0-9]*/{AGENT_FILE}"):
        try:
            signed = marker.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):  # a run that is being removed, or no file of ours
            continue
        if not set(agents).isdisjoint(signed) and (marker.parent / "last.pth").is_file():
            found.append(marker.parent / "last.pth")
    return max(found, key=lambda path: (len(path.parent.name), path.parent.name), default=None)
