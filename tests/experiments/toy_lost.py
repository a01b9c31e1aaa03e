"""A run in a Ray task whose process is killed under it, once."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import toy_runner


def run(config: dict[str, Any], *, name: str, work_dir: Path, device: str, resume: str | None) -> bool:
    """As `toy_runner.run`, after the first start has killed the process that the pool is in."""
    lost = work_dir / "lost"
    if not lost.exists():
        lost.touch()
        pool = (Path("/proc") / str(os.getppid()) / "stat").read_text().rpartition(")")[2].split()[1]  # its parent's
        os.kill(int(pool), signal.SIGKILL)
    return toy_runner.run(config, name=name, work_dir=work_dir, device=device, resume=resume)
