"""A run that trains nothing: it counts its steps, and leaves what `transfer.training.run` leaves. Imports no torch."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from pathlib import Path
from typing import Any


class UserError(ValueError):
    """Of the name that says: trying again does not help."""


class RefusedCheckpoint(UserError):
    """Of the name that says: from the beginning, it may do."""


class TryAgain(UserError):
    """Of the name that says: from where it was, it may do."""


def run(config: dict[str, Any], *, name: str, work_dir: Path, device: str, resume: str | None) -> bool:
    """Count to config["steps"], config["seconds"] each; the result is config["figure"].

    config["trouble"]: "crash" at half of the steps, always; "crash once"; "full disk" once; "mistake" at once; "hang"
    at the end.
    config["gate"]: a file without which the last step is not taken.
    """
    root = work_dir / name
    root.mkdir(parents=True, exist_ok=True)
    if os.environ.get("RANK", "0") != "0":
        print(f"begins at step 0 world {os.environ['WORLD_SIZE']} rank 1 gpus {os.environ['CUDA_VISIBLE_DEVICES']}")
        (root / "rank 1 is here").touch()
        return True  # leaves writing to rank 0
    while "RANK" in os.environ and not (root / "rank 1 is here").exists():
        time.sleep(0.02)  # as a collective would wait
    stopped: list[int] = []
    former = signal.signal(signal.SIGINT, lambda number, frame: stopped.append(number))
    with open(root / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            (root / "two at once").touch()
        done = _count(config, root, resume, stopped)
    signal.signal(signal.SIGINT, former)
    return done


def _count(config: dict[str, Any], root: Path, resume: str | None, stopped: list[int]) -> bool:
    trouble, crashed = config.get("trouble"), root / "crashed"
    if trouble == "mistake":
        raise UserError("steps: give more")
    begun = sorted(path.parent for path in root.glob("*/last.pth"))
    assert (resume == "latest") == bool(begun)
    folder = begun[-1] if begun else root / f"{len(list(root.glob('[0-9]*'))) + 1:03d}"
    folder.mkdir(exist_ok=True)
    saved = (folder / "last.pth").read_text() if begun else "0"
    if not saved.isdigit():
        raise RefusedCheckpoint(f"{saved!r} is no checkpoint")
    step = int(saved)
    world, rank, gpus = (os.environ.get(name) for name in ("WORLD_SIZE", "RANK", "CUDA_VISIBLE_DEVICES"))
    print(f"begins at step {step} world {world} rank {rank} gpus {gpus}", flush=True)
    while step < config["steps"]:
        time.sleep(config.get("seconds", 0.0))
        if step == config["steps"] - 1:
            while "gate" in config and not Path(config["gate"]).exists() and not stopped:
                time.sleep(0.02)
            if stopped:  # or the step behind the gate would be taken by a mere interrupt
                return False
        if step == config["steps"] // 2 and (trouble == "crash" or (trouble == "crash once" and not crashed.exists())):
            crashed.touch()
            raise RuntimeError("the disk is on fire")
        if step == config["steps"] // 2 and trouble == "full disk" and not crashed.exists():
            crashed.touch()
            raise TryAgain("the disk is full")
        step += 1
        with open(folder / "steps.txt", "a") as file:
            file.write(f"{step}\n")
        _write(folder / "last.pth", str(step))
        if stopped:
            return False
    while trouble == "hang":
        time.sleep(0.1)
    figures = {"protocol": "counted", "main": "steps", "values": {"steps": config["figure"]}}
    _write(folder / "results.json", json.dumps({"measured": "last.pth, test set", "metrics": [figures]}))
    return True


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    os.replace(temporary, path)
