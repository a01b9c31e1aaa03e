"""A script that submits the runs of a grid to Slurm: an array for each stage, which begins when the one before ended.

Source: sbatch(1), --array, --dependency=afterany, --parsable, --wrap. Task i makes run i of the grid (`--only i`) and
ends at once where that is done already; a run that failed fails its task alone. The last job reports.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence


def slurm_script(command: Sequence[str], stages: Sequence[tuple[str, int, int]]) -> str:
    """The text of the script.

    Args:
        command: of the ranking, without --only and --slurm-script.
        stages: name, first run and last run of each, in their order; those without runs are left out.
    """
    words = shlex.join(command)
    lines = [
        "#!/bin/sh",
        f"# Submits the runs of: {words}",
        "#     sh THIS_FILE [options of sbatch, as --gpus=1 --cpus-per-task=8 --time=8:00:00]",
        "# Work directory, code, environment and data are on file systems that all nodes see; the work directory's has",
        "# locks that work across nodes (SQLite). The same script again makes what is missing.",
        "set -eu",
    ]
    after = ""
    for name, first, last in stages:
        wrapped = shlex.quote(f"{words} --only $SLURM_ARRAY_TASK_ID")
        lines.append(
            f'{name}=$(sbatch --parsable{after} --array={first}-{last} --job-name={name} "$@" --wrap={wrapped})'
        )
        after = f' --dependency=afterany:"${{{name}%%;*}}"'  # with clusters, --parsable gives "id;cluster"
    lines.append(f'sbatch{after} --job-name=report "$@" --wrap={shlex.quote(words)}')
    return "\n".join(lines) + "\n"
