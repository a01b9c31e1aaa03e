"""Whether a process is still the one that was meant: a number alone may belong to another one by now."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")


def process_start(pid: int) -> str | None:
    """When a process started, as text to be compared: boot and clock ticks on Linux, `ps` elsewhere.

    Returns:
        None where there is no such process, or only what is left of one that ended (a zombie).
    """
    if PROC.is_dir():
        try:
            # "pid (name) state ...": a name may hold spaces and brackets, so count from the last bracket
            fields = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            boot = (PROC / "sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        except OSError:
            return None
        return None if fields[0] in "ZX" else f"{boot}:{fields[19]}"  # field 22 of proc(5): starttime
    shown = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, start = shown.stdout.strip().partition(" ")
    return None if not start or state.startswith("Z") else start.strip()


def process_is_alive(pid: int, start: str | None) -> bool:
    """Whether the process of this number that began at `start` is there."""
    return start is not None and process_start(pid) == start


def kill_group(pid: int) -> None:
    """Kill what is left of the process group that a worker leads: itself, and its loader's workers."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
