"""An experiment: some configs, each at several seeds, made through the ledger of a work directory.

WORK_DIR/ledger.sqlite            all runs of all experiments; a run that two of them share is made once
WORK_DIR/runs/ARM-seed0-KEY/      a run: console.txt, and a numbered directory for each start
WORK_DIR/EXPERIMENT/              report.md, results.json, gains.png
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from transfer.build import Node, to_json
from transfer.experiments.description import Description, slug
from transfer.experiments.drawing import draw_gains
from transfer.experiments.ladder import changed
from transfer.experiments.ledger import Ledger, Row
from transfer.experiments.pool import Pool, PoolSettings
from transfer.experiments.progress import Progress
from transfer.experiments.report import Report, to_markdown, to_plain
from transfer.types import UserError

logger = logging.getLogger("trickstack")


@dataclass
class Experiment:
    """The runs of an experiment.

    Args:
        name: of its directory.
        work_dir: of all experiments.
        runs: (arm, seed) -> run, in the order to make them in.
    """

    name: str
    work_dir: Path
    runs: Mapping[tuple[str, int], Description]

    @property
    def folder(self) -> Path:
        """Of its report."""
        return self.work_dir / self.name

    @property
    def ledger_path(self) -> Path:
        """Of the work directory's ledger."""
        return self.work_dir / "ledger.sqlite"

    def rows(self) -> dict[tuple[str, int], Row]:
        """(arm, seed) -> what the ledger has of the run, where it has anything; writes nothing."""
        if not self.ledger_path.is_file():
            return {}
        ledger = Ledger(self.ledger_path)
        rows = ledger.rows([run.key for run in self.runs.values()])
        ledger.close()
        return {member: rows[run.key] for member, run in self.runs.items() if run.key in rows}

    def make(
        self, *, jobs: int | None = None, gpus: Sequence[str] = (), device: str = "auto", retries: int = 2
    ) -> bool:
        """Make the runs that are not done.

        Args:
            jobs: runs at a time; None: one, or as many as the GPUs are enough for.
            gpus: see `usable_gpus`.
            device: handed to the runner.
            retries: of a run that crashed. What failed at an earlier start is tried again.
        Returns:
            Whether all were tried to the end (False: interrupted).
        """
        ledger = Ledger(self.ledger_path)
        keys = ledger.enter(self.name, [(arm, run) for (arm, _), run in self.runs.items()])
        if again := ledger.retry_failed(keys):
            logger.info("%d runs failed before and are tried again", again)
        most = max(run.processes for run in self.runs.values())
        jobs = jobs or max(1, len(gpus) // most)
        settings = PoolSettings(root=self.work_dir / "runs", jobs=jobs, gpus=gpus, device=device, attempts=retries + 1)

        def count_over() -> int:
            return sum(row.state in ("done", "failed") for row in ledger.rows(keys).values())

        lasted = [row.seconds for row in ledger.rows(keys).values() if row.state == "done"]
        progress = Progress(len(keys), count_over, lasted, jobs)
        logger.info("%d of %d runs are done; %d at a time", progress.over, len(keys), jobs)
        try:
            finished = Pool(ledger, settings, told=progress.told, tick=progress.tick).run(keys)
        finally:
            progress.close()
            ledger.close()
        if not finished:
            logger.info("stopped; go on with the same command")
        return finished

    def write(self, report: Report) -> str:
        """Leave a report in the experiment's directory; returns its text."""
        self.folder.mkdir(parents=True, exist_ok=True)
        drawn = draw_gains(report, self.folder / "gains.png")
        text = to_markdown(report)
        _write(self.folder / "report.md", text + ("\n![gains](gains.png)\n" if drawn else ""))
        _write(self.folder / "results.json", json.dumps(to_plain(report), indent=1) + "\n")
        return text


def experiment_of(
    parts: Sequence[str],
    work_dir: Path,
    configs: Mapping[str, Node],
    seeds: int,
    *,
    processes: Mapping[str, int] | None = None,
) -> Experiment:
    """The experiment of some arms over seeds 0 to seeds - 1.

    Args:
        parts: of its name; what tells it apart from one of the same name with other configs is added.
        work_dir: of all experiments.
        configs: arm -> config; its training.seed is set.
        seeds: how many.
        processes: arm -> how many make its runs; 1 where it is not named.
    Returns:
        The experiment, all arms at one seed before the next, so that an early report compares something.
    """
    digest = hashlib.sha256(to_json(dict(configs)).encode()).hexdigest()[:6]
    runs = {}
    for seed in range(seeds):
        for arm, config in configs.items():
            seeded = changed(config, [f"training.seed={seed}"], arm)
            runs[arm, seed] = Description(arm, seeded, seed, processes=(processes or {}).get(arm, 1))
    return Experiment("-".join(slug(part) for part in [*parts, digest]), work_dir, runs)


def usable_gpus(device: str) -> list[str]:
    """The GPUs, as CUDA_VISIBLE_DEVICES names them; none for device "cpu".

    Raises:
        UserError: "cuda" where there is none.
    """
    import torch

    count = 0 if device == "cpu" else torch.cuda.device_count()
    if device == "cuda" and not count:
        raise UserError("--device cuda: there is no CUDA device here; give cpu")
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return named[:count] if named else [str(number) for number in range(count)]


def _write(path: Path, text: str) -> None:
    """A whole file or none."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
