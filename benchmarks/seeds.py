"""Runs the arms of an experiment over seeds, one after another, and states means and paired differences.

Going on after a kill is by the same command: a run whose results.json is there is not made again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Arm:
    """A config with what is changed in it."""

    name: str
    config: str
    overrides: Sequence[str] = field(default_factory=tuple)
    data: str | None = None


def options_parser(description: str) -> argparse.ArgumentParser:
    """The options that every experiment has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--work-dir", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--arms", nargs="+", help="only these")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="for every arm")
    return parser


def run_arms(arms: Sequence[Arm], options: argparse.Namespace) -> dict[str, dict[int, dict[str, float]]]:
    """Every arm at every seed.

    Args:
        arms: what to compare.
        options: as `options_parser` gives them.
    Returns:
        Arm -> seed -> the figures of all metrics (the first one's, where two share a name), and "minutes".
    """
    from transfer import training
    from transfer.assemble import set_data_root
    from transfer.build import load_config
    from transfer.cli import configure_logging

    configure_logging()
    figures: dict[str, dict[int, dict[str, float]]] = {}
    for seed in options.seeds:
        for arm in arms:
            if options.arms and arm.name not in options.arms:
                continue
            root = options.work_dir / arm.name / f"seed{seed}"
            config = load_config(arm.config, [*arm.overrides, *options.cfg_options, f"training.seed={seed}"])
            if arm.data is not None:
                set_data_root(config, arm.data)
            if _finished(root, config) is None:
                started = time.perf_counter()
                if not training.run(config, name=f"seed{seed}", work_dir=options.work_dir / arm.name):
                    raise KeyboardInterrupt
                minutes = (time.perf_counter() - started) / 60
                newest = _finished(root, config)
                assert newest is not None, "a finished run leaves results.json"
                results = json.loads(newest.read_text())
                newest.write_text(json.dumps({**results, "minutes": minutes}, indent=1))
            done = _finished(root, config)
            assert done is not None
            results = json.loads(done.read_text())
            values = {key: value for metric in reversed(results["metrics"]) for key, value in metric["values"].items()}
            values["minutes"] = results.get("minutes", float("nan"))
            figures.setdefault(arm.name, {})[seed] = values
    return figures


def _finished(root: Path, config: dict[str, Any]) -> Path | None:
    """The results.json of the latest finished run of exactly this config below `root`."""
    done = [
        path
        for path in root.glob("*/results.json")
        if json.loads((path.parent / "config.json").read_text()) == json.loads(json.dumps(config))
    ]
    return max(done, default=None)


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half width of the 95 % t interval; NaN for one value."""
    from scipy.stats import t

    sample = np.asarray(values, dtype=float)
    if len(sample) < 2:
        return float(sample.mean()), float("nan")
    half = t.ppf(0.975, len(sample) - 1) * sample.std(ddof=1) / np.sqrt(len(sample))
    return float(sample.mean()), float(half)


def report(figures: dict[str, dict[int, dict[str, float]]], key: str = "mAP50") -> str:
    """A Markdown table of each arm, and the paired difference of each arm to the first."""
    lines = [f"| arm | {key} by seed | mean | 95 % t interval | minutes a run |", "|---|---|---|---|---|"]
    for name, by_seed in figures.items():
        values = [100 * by_seed[seed][key] for seed in sorted(by_seed)]
        mean, half = t_interval(values)
        minutes = np.mean([by_seed[seed]["minutes"] for seed in by_seed])
        lines.append(f"| {name} | {', '.join(f'{v:.1f}' for v in values)} | {mean:.1f} | ±{half:.1f} | {minutes:.1f} |")
    first, *others = figures
    for name in others:
        seeds = sorted(set(figures[first]) & set(figures[name]))
        if seeds:
            mean, half = t_interval([100 * (figures[first][s][key] - figures[name][s][key]) for s in seeds])
            verdict = (
                "above zero" if mean - half > 0 else "below zero" if mean + half < 0 else "no evidence: covers zero"
            )
            lines.append(f"\n{first} - {name}, paired over {len(seeds)} seeds: {mean:+.1f} ± {half:.1f} ({verdict})")
    return "\n".join(lines)
