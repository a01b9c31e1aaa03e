"""The script for Slurm, run with an sbatch that writes down what it is told."""

from __future__ import annotations

import subprocess
from pathlib import Path

from transfer.experiments.slurm_script import slurm_script

SBATCH = """#!/bin/sh
for word in "$@"; do printf '%s\\n' "$word" >> calls; done
echo -- >> calls
echo "$(grep -c '^--$' calls);cluster"
"""


def test_each_stage_waits_for_the_one_before(tmp_path: Path) -> None:
    (tmp_path / "sbatch").write_text(SBATCH)
    (tmp_path / "sbatch").chmod(0o755)
    command = ["tools/rank_backbones.py", "mine.py", "--data", "boxes=my data"]
    (tmp_path / "grid.sh").write_text(slurm_script(command, [("search", 0, 5), ("runs_to_3", 6, 11)]))
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    subprocess.run(["sh", "grid.sh", "--gpus=1"], cwd=tmp_path, env=environment, check=True)
    calls = [call.split("\n") for call in (tmp_path / "calls").read_text().split("\n--\n") if call]
    words = "tools/rank_backbones.py mine.py --data 'boxes=my data'"
    only = f"--wrap={words} --only $SLURM_ARRAY_TASK_ID"  # left to the job's own shell
    assert calls == [
        ["--parsable", "--array=0-5", "--job-name=search", "--gpus=1", only],
        ["--parsable", "--dependency=afterany:1", "--array=6-11", "--job-name=runs_to_3", "--gpus=1", only],
        ["--dependency=afterany:2", "--job-name=report", "--gpus=1", f"--wrap={words}"],
    ]
