"""What the runs of an ablation say: a table, the same as JSON, and how sure one may be of it.

A figure is the main one of a run's first metric, on the test set, in percent; a gain is a difference of two, in points.
A gain is called one only where its own interval leaves zero out and it is still below 0.05 after Holm's correction over
all gains of the table. Everything else is "no evidence", which is not evidence of no gain: the table says how large a
gain these seeds could have shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from transfer.experiments.ladder import Arm, Comparison, Plan
from transfer.experiments.ledger import Row
from transfer.experiments.statistics import (
    Gain,
    holm,
    paired_gain,
    pooled_sd,
    seeds_needed,
    smallest_gain,
    t_interval,
)

SIGNIFICANT = 0.05
SAME_EVERYWHERE = ("code", "torch", "torchvision", "timm", "albumentations", "numpy", "device", "processor", "threads")
"""Facts of a run; where the runs of a table differ in one, the report says so."""


@dataclass
class ArmFigures:
    """One arm."""

    name: str
    processes: int
    changes: Sequence[str]
    figures: dict[int, float]
    """Seed -> percent."""
    missing: dict[int, str]
    """Seed -> why it has none."""
    mean: float
    interval: tuple[float, float]
    minutes: float
    """Of a run, mean; NaN where none is done."""
    directories: list[str]


@dataclass
class RungGain:
    """What a rung gave."""

    comparison: Comparison
    gain: Gain | None
    """None: no seed is done in both arms."""
    p_holm: float
    verdict: str
    smallest: float
    """Gain that these seeds would find with 80 % power."""


@dataclass
class Report:
    """Everything that is said of an ablation."""

    title: str
    about: dict[str, str]
    """What it was made by and from: the command, the base config, ..."""
    seeds: list[int]
    metric: str
    arms: list[ArmFigures]
    gains: list[RungGain]
    total: Gain | None
    """Of the last arm over the first, for a ladder."""
    not_applicable: dict[str, str]
    source: str | None
    """Of the published gains."""
    notes: list[str] = field(default_factory=list)


def summarize(
    title: str,
    about: dict[str, str],
    planned: Plan,
    rows: Mapping[tuple[str, int], Row],
    seeds: Sequence[int],
    *,
    source: str | None = None,
    is_ladder: bool = False,
) -> Report:
    """The report of what is in the ledger.

    Args:
        title: of the report.
        about: shown below it.
        planned: the arms and comparisons.
        rows: (arm, seed) -> run; those that are not done are shown as missing.
        seeds: to look at.
        source: of the published gains.
        is_ladder: also compare the last arm with the first.
    """
    arms = [_arm_figures(arm, rows, seeds) for arm in planned.arms]
    by_name = {arm.name: arm for arm in arms}
    pairs = [_paired(by_name[c.better], by_name[c.reference]) for c in planned.comparisons]
    adjusted = holm([math.nan if gain is None else gain.p for gain in pairs])
    gains = [
        RungGain(comparison, gain, p, verdict(gain, p), _smallest(gain))
        for comparison, gain, p in zip(planned.comparisons, pairs, adjusted)
    ]
    done = [row for arm in planned.arms for seed in seeds if (row := rows.get((arm.name, seed))) and row.result]
    results = [row.result for row in done if row.result]
    mains = sorted({str(result["metrics"][0]["main"]) for result in results})
    compared = {(c.better, c.reference) for c in planned.comparisons}
    whole = is_ladder and len(arms) > 1 and (arms[-1].name, arms[0].name) not in compared
    total = _paired(arms[-1], arms[0]) if whole else None
    protocols = sorted({f"{result['metrics'][0]['protocol']}; of {result['measured']}" for result in results})
    facts = _facts(done)
    measured = {"measured": " / ".join(protocols), "made on": facts.pop("made on", "")}
    notes = [f"the runs differ in {name}: {found}" for name, found in facts.items()]
    if len(protocols) > 1:
        notes.insert(0, "the arms were not measured in one way, so their figures cannot be compared")
    return Report(
        title,
        {**about, **{key: text for key, text in measured.items() if text}},
        list(seeds),
        " / ".join(mains) or "figure",
        arms,
        gains,
        total,
        planned.not_applicable,
        source,
        notes,
    )


def _arm_figures(arm: Arm, rows: Mapping[tuple[str, int], Row], seeds: Sequence[int]) -> ArmFigures:
    figures, missing, minutes, directories = {}, {}, [], []
    for seed in seeds:
        row = rows.get((arm.name, seed))
        if row is None or row.result is None:
            missing[seed] = _why_missing(row)
            continue
        metric = row.result["metrics"][0]
        value = metric["values"][metric["main"]]
        minutes.append(row.seconds / 60)
        directories.append(str(row.result.get("directory", "")))
        if value is None:
            missing[seed] = f"{metric['main']} is undefined: nothing to be found in the test set"
        else:
            figures[seed] = 100 * value
    values = list(figures.values())
    return ArmFigures(
        arm.name,
        arm.processes,
        arm.changes,
        figures,
        missing,
        sum(values) / len(values) if values else math.nan,
        t_interval(values) if values else (math.nan, math.nan),
        sum(minutes) / len(minutes) if minutes else math.nan,
        directories,
    )


def _why_missing(row: Row | None) -> str:
    if row is None or row.state in ("waiting", "running"):
        return "being made" if row is not None and row.state == "running" else "not made yet"
    last = (row.error or "").strip().splitlines()[-1:]
    return f"failed: {last[0] if last else 'no message'} (runs/{row.description.directory}/console.txt)"


def _paired(better: ArmFigures, reference: ArmFigures) -> Gain | None:
    shared = [seed for seed in better.figures if seed in reference.figures]
    if not shared:
        return None
    return paired_gain([better.figures[s] for s in shared], [reference.figures[s] for s in shared])


def _smallest(gain: Gain | None) -> float:
    return math.nan if gain is None else smallest_gain(gain.sd, len(gain.differences))


def verdict(gain: Gain | None, p_holm: float) -> str:
    """In words, from the gain and its p value after Holm's correction."""
    if gain is None:
        return "no runs"
    if len(gain.differences) < 2:
        return "no evidence (one seed)"
    if not gain.is_evident:
        return "no evidence"
    if not p_holm < SIGNIFICANT:
        return "no evidence after Holm"
    return "gain" if gain.mean > 0 else "loss"


def _facts(done: Sequence[Row]) -> dict[str, str]:
    """In what the runs differ; and under "made on" what they were all made on."""
    found = {
        name: sorted({str((row.facts or {}).get(name, "unknown")) for row in done}) for name in SAME_EVERYWHERE if done
    }
    several = {name: ", ".join(values) for name, values in found.items() if len(values) > 1}
    if done:
        one = {name: values[0] for name, values in found.items() if len(values) == 1}
        several["made on"] = ", ".join(f"{name} {value}" for name, value in one.items())
    return several


def to_markdown(report: Report) -> str:
    """The report as text with a table."""
    lines = [f"# {report.title}", ""]
    lines += [f"- {name}: {text}" for name, text in report.about.items()]
    lines += [f"- **{note}**" for note in report.notes]
    seeds = ", ".join(map(str, report.seeds))
    lines += [
        "",
        f"| arm | {report.metric}, seed {seeds} | mean | 95 % interval | gain | 95 % interval | p (Holm) | verdict "
        "| could have shown | published | minutes |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    gains = {gain.comparison.row: gain for gain in report.gains}
    lines += [_line(arm, report.seeds, gains.get(arm.name)) for arm in report.arms]
    lines += [f"| {name} | not applicable: {why} |" + " |" * 9 for name, why in report.not_applicable.items()]
    lines += ["", *_explanation(report)]
    missing = [f"- {arm.name}, seed {seed}: {why}" for arm in report.arms for seed, why in arm.missing.items()]
    if missing:
        lines += ["", "Without a figure:", "", *missing]
    return "\n".join(lines) + "\n"


def _line(arm: ArmFigures, seeds: Sequence[int], gain: RungGain | None) -> str:
    by_seed = ", ".join(f"{arm.figures[seed]:.2f}" if seed in arm.figures else "-" for seed in seeds)
    low, high = arm.interval
    cells = [arm.name, by_seed, _number(arm.mean), _interval(low, high)]
    if gain is None:
        cells += [""] * 6
    else:
        found = gain.gain
        over = f" over {gain.comparison.reference}" if gain.comparison.row == gain.comparison.better else ""
        over = over or f" of {gain.comparison.rung}"
        cells += [
            "" if found is None else f"{found.mean:+.2f}{over}",
            "" if found is None else _interval(found.low, found.high, "+"),
            "" if math.isnan(gain.p_holm) else f"{gain.p_holm:.3f}",
            gain.verdict,
            _number(gain.smallest),
            "" if gain.comparison.published is None else f"{gain.comparison.published:+.2f}",
        ]
    cells.append(_number(arm.minutes, 1))
    return f"| {' | '.join(cells)} |"


def _number(value: float, digits: int = 2) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def _interval(low: float, high: float, sign: str = "") -> str:
    return "" if math.isnan(low) else f"{low:{sign}.2f} to {high:{sign}.2f}"


def _explanation(report: Report) -> list[str]:
    """What the table's words mean, and what these seeds could show."""
    lines = [
        "Figures in percent, gains in points, paired by seed. Intervals: t, of the mean over seeds. No evidence: the "
        "gain's interval covers zero, or p is not below 0.05 after Holm's correction over the table. Could have shown: "
        "the gain that these seeds find in four of five such experiments, from this row's own spread and before Holm.",
    ]
    known = [gain.gain for gain in report.gains if gain.gain is not None]
    sd = pooled_sd(known)
    seeds = max((len(gain.differences) for gain in known), default=0)
    if math.isnan(sd):
        lines.append("Without two seeds in both arms of a comparison there is no interval: nothing is shown.")
    elif sd == 0:
        lines.append("The figures do not depend on the seed.")
    else:
        pooled = f"pooled over {len(known)} comparisons" if len(known) > 1 else "here"
        lines.append(
            f"Smallest gain that {seeds} seeds could have shown: {smallest_gain(sd, seeds):.2f} points, at 80 % power "
            f"and the standard deviation of the differences {pooled}, {sd:.2f} points."
        )
        needed = [(g.comparison, seeds_needed(g.comparison.published, sd)) for g in report.gains
                  if g.comparison.published is not None and g.comparison.published > 0]  # fmt: skip
        if needed:
            each = ", ".join(f"{c.rung} ({c.published:+.2f}) {count or 'over 10,000'}" for c, count in needed)
            lines.append(f"Seeds that gains as large as the published ones would need: {each}.")
    if report.total is not None:
        interval = _interval(report.total.low, report.total.high, "+") or "no interval"
        lines.append(f"{report.arms[-1].name} over {report.arms[0].name}: {report.total.mean:+.2f} ({interval}).")
    together = [f"{arm.name} by {arm.processes}" for arm in report.arms if arm.processes > 1]
    if together:
        lines.append(f"Made by several processes: {', '.join(together)}.")
    if report.source:
        lines.append(f"Published: {report.source}.")
    return [line for text in lines for line in (text, "")][:-1]


def to_plain(report: Report) -> dict[str, Any]:
    """The report as plain types; figures that there are not are None."""
    needed = {
        gain.comparison.rung: None
        if gain.gain is None or gain.gain.sd != gain.gain.sd or not (gain.comparison.published or 0) > 0
        else seeds_needed(gain.comparison.published or 0.0, gain.gain.sd)
        for gain in report.gains
    }
    plain = asdict(report)
    for gain in plain["gains"]:
        gain["seeds_for_published"] = needed[gain["comparison"]["rung"]]
    return _without_nan(plain)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
