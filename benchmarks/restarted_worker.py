#!/usr/bin/env python
"""Workers of torchrun killed in the middle of a run: the job ends with the weights of one that nobody disturbed.

OMP_NUM_THREADS=1 python benchmarks/restarted_worker.py

A small YOLOv3 on the embedded sample, two processes (gloo, CPU), with synchronized batch norm, accumulation, clipping,
moving average, validation data and a checkpoint at every second step. Once undisturbed on one "node" (one torchrun of
two workers); then with SIGKILL to worker 1, and to worker 0; then on two "nodes" (two torchrun of one worker each that
find each other by the c10d rendezvous on this machine), undisturbed and with a worker killed on either. What is
compared with the first run: last.pth and best.pth bit for bit, metrics.jsonl but for its times, results.json.

Needs /proc (Linux). Exit code 1 where something differs.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from killed_runs import compared

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIG = '''"""A detector of seconds."""

from backbones.timm_backbone import TimmBackbone
from transfer.augment.presets import one_stage_train, square_test
from transfer.data.sample_dataset import SampleDetection
from transfer.data.subset import SubsetDataset
from transfer.heads.yolov3 import yolov3
from transfer.heads.yolov3_criterion import YOLOv3Criterion
from transfer.heads.yolov3_postprocess import YOLOv3Postprocess
from transfer.metrics.voc_map import VOCMeanAP
from transfer.optim.optimizers import SGD
from transfer.optim.schedules import Cosine, WarmUp

_small = dict(layers=[1, 1, 1, 1], channels=[8, 16, 32, 64])
model = dict(
    type=yolov3,
    backbone=dict(type=TimmBackbone, name="resnet26d", weights=None, norm="synchronized", model_options=_small),
    width=0.125,
    depth=1,
)
criterion = dict(type=YOLOv3Criterion)
postprocess = dict(type=YOLOv3Postprocess)
data = dict(
    train=dict(type=SubsetDataset, dataset=dict(type=SampleDetection, split="trainval"), limit=64),
    val=0.25,
    test=dict(type=SubsetDataset, dataset=dict(type=SampleDetection, split="test"), limit=9),
)
augment = dict(train=dict(type=one_stage_train, size=96), test=dict(type=square_test, size=96))
loader = dict(batch_size=8, test_batch_size=2, workers=0)
optimizer = dict(type=SGD, lr=0.003, base_batch=8, momentum=0.9, nesterov=True, weight_decay=1e-4)
schedule = dict(type=WarmUp, iterations=6, then=dict(type=Cosine))
training = dict(
    epochs=10, seed=0, accumulate=2, clip_norm=10.0, ema=dict(decay=0.9), evaluate_every=2, checkpoint_every=0.34,
    log_every=6, pictures=0, preflight=False,
)
metrics = [dict(type=VOCMeanAP, protocol="voc_area")]
'''
STEPS, KILL_AT = 60, 25
FIRST = "one node"


@dataclass(frozen=True)
class Arm:
    """A way to run the config."""

    name: str
    nodes: int = 1
    kill: int | None = None
    """Rank of the process that is killed; None: nobody is disturbed."""


ARMS = (
    Arm(FIRST),
    Arm("one node, worker 1 killed", kill=1),
    Arm("one node, worker 0 killed", kill=0),
    Arm("two nodes", nodes=2),
    Arm("two nodes, worker of node 1 killed", nodes=2, kill=1),
    Arm("two nodes, worker of node 0 killed", nodes=2, kill=0),
)


@dataclass
class Outcome:
    """What became of a run."""

    killed_at: int | None
    """Steps that were logged when the worker was killed."""
    resumed: list[str]
    """The iterations that it went on from."""
    seconds: float
    problem: str
    """Empty where all agents ended with exit code 0."""


def run_arm(arm: Arm, folder: Path, limit: float) -> Outcome:
    """Start torchrun on each node, kill a worker where the arm says so, and wait for the end.

    Args:
        arm: what to do.
        folder: gets config.py, the agents' output and the run directory config/001.
        limit: seconds after which the job counts as hanging.
    """
    folder.mkdir(parents=True)
    (folder / "config.py").write_text(CONFIG, encoding="utf-8")
    started, killed_at = time.monotonic(), None
    agents = _start(arm, folder)
    try:
        while any(agent.poll() is None for agent in agents):
            if time.monotonic() - started > limit:
                return Outcome(killed_at, _resumed(folder), limit, f"hangs: not at its end after {limit:.0f} s")
            done = _steps(folder)
            if arm.kill is not None and killed_at is None and done >= KILL_AT and _kill(arm.kill, agents):
                killed_at = done
            time.sleep(0.05)
    finally:
        for agent in agents:
            if agent.poll() is None:
                os.killpg(agent.pid, signal.SIGKILL)  # its own session: its workers with it
                agent.wait()
    codes = [agent.returncode for agent in agents]
    problem = f"exit codes {codes}, see {folder}" if any(codes) else ""
    return Outcome(killed_at, _resumed(folder), time.monotonic() - started, problem)


def _start(arm: Arm, folder: Path) -> list[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "torch.distributed.run", "--max-restarts", "2"]
    if arm.nodes == 1:
        command += ["--nproc-per-node", "2"]
    else:
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            port = probe.getsockname()[1]
        command += ["--nnodes", str(arm.nodes), "--nproc-per-node", "1", "--rdzv-id", uuid.uuid4().hex]
        command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{port}"]
    command += [str(REPOSITORY / "tools" / "train_det.py"), str(folder / "config.py"), "--device", "cpu"]
    agents = []
    for node in range(arm.nodes):
        with open(folder / f"node{node}.txt", "wb") as output:
            agents.append(
                subprocess.Popen(
                    [*command, "--work-dir", str(folder)],
                    cwd=REPOSITORY,
                    env={**os.environ, "OMP_NUM_THREADS": "1"},
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )
    return agents


def _steps(folder: Path) -> int:
    """Steps in the log of the run; 0 where it has none yet."""
    file = folder / "config" / "001" / "metrics.jsonl"
    return file.read_bytes().count(b'"lr"') if file.is_file() else 0


def _kill(rank: int, agents: list[subprocess.Popen[bytes]]) -> bool:
    """SIGKILL to the process of that rank, found among the agents' children; whether it was there."""
    for agent in agents:
        for child in Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text(encoding="utf-8").split():
            environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
            if f"RANK={rank}".encode() in environment:
                os.kill(int(child), signal.SIGKILL)
                return True
    return False


def _resumed(folder: Path) -> list[str]:
    logs = sorted((folder / "config").glob("*/log.txt")) if (folder / "config").is_dir() else []
    lines = [line for log in logs for line in log.read_text(encoding="utf-8").splitlines()]
    return [line.rpartition("iteration ")[2].split()[0] for line in lines if "going on from iteration" in line]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", choices=[arm.name for arm in ARMS], help="besides the first; all")
    parser.add_argument("--limit", type=float, default=900, help="seconds after which a job counts as hanging")
    parser.add_argument("--work-dir", type=Path, help="new folder to keep the runs in; a temporary one otherwise")
    options = parser.parse_args()
    print(f"| two processes on | killed after step (of {STEPS}) | went on from | seconds | differs from the first |")
    print("|---|---|---|---|---|", flush=True)
    equal = True
    with tempfile.TemporaryDirectory() as temporary:
        work_dir = options.work_dir or Path(temporary)
        for arm in ARMS:
            if options.arms and arm.name not in (FIRST, *options.arms):
                continue
            folder = work_dir / arm.name.replace(" ", "_").replace(",", "")
            outcome = run_arm(arm, folder, options.limit)
            differences = [outcome.problem] if outcome.problem else []
            if arm.kill is not None and not outcome.resumed:
                differences.append("no worker was restarted from a checkpoint")
            if not outcome.problem and arm.name != FIRST:
                runs = [work_dir / FIRST.replace(" ", "_"), folder]
                differences += compared(*(run / "config" / "001" for run in runs))
            equal = equal and not differences
            print(
                f"| {arm.name} | {outcome.killed_at or '-'} | {', '.join(outcome.resumed) or '-'} | "
                f"{outcome.seconds:.0f} | {'; '.join(differences) or ('-' if arm.name == FIRST else 'in nothing')} |",
                flush=True,
            )
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
