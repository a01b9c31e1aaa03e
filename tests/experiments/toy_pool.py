"""A pool as a program: toy_pool.py WORK_DIR CONFIGS.json SETTINGS, on WORK_DIR/ledger.sqlite; SETTINGS are JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from transfer.experiments.description import Description
from transfer.experiments.ledger import Ledger
from transfer.experiments.pool import Pool, PoolSettings


def descriptions(configs: list[dict[str, Any]]) -> list[Description]:
    """One run a config, its place in the list as the seed."""
    return [
        Description(f"toy {seed}", config, seed, runner="toy_runner.run", processes=config.get("processes", 1))
        for seed, config in enumerate(configs)
    ]


def main(folder: Path, configs: Path, settings: dict[str, Any]) -> int:
    """Enter and make the runs. Returns 0 where all were tried, 130 after an interrupt."""
    assert "torch" not in sys.modules  # it would take seconds
    ledger = Ledger(folder / "ledger.sqlite")
    keys = ledger.enter("toy", [("arm", run) for run in descriptions(json.loads(configs.read_text()))])
    pool = Pool(
        ledger,
        PoolSettings(root=folder / "runs", preload=["toy_runner"], **settings),
        told=lambda event, claim, seconds: print(event, claim.description.name, flush=True),
    )
    return 0 if pool.run(keys) else 130


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])))
