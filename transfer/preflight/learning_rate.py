"""Whether the learning rate is of a size that can work, from a few steps at the schedule's largest lr.

Two signs of one that is far too high: the loss is not a number or rises to more than 3 times the first within 4 steps;
or the first step changes a tenth of the layers by more than 0.5, where a usual layer has a weight of about 1 (root mean
square times the root of its inputs, so that the layer's output changes by half the size of its input). The second is
what shows with Adam, whose first steps are of the same size whatever the loss. From 0.1 on it is a warning.

Measured with the light configs on four data sets: 0.013 to 0.017 at their lr, 0.13 to 0.17 at 10 times, 1.3 to 1.7 at
100 times it; the loss of Faster R-CNN rises 35-fold and more at 100 times.

What cannot be seen: an lr too low, and one that diverges only later.
"""

from __future__ import annotations

import math

from transfer.engine.train import Run
from transfer.preflight.findings import Outcome
from transfer.preflight.steps import Steps

RISE = 3.0
"""Of the loss, over the first."""
DESTROYS, HIGH = 0.5, 0.1
"""Change of a layer in one step."""
_TENTH = 0.9
_POINTS = 500


def peak_factor(run: Run) -> float:
    """The schedule's largest factor on the lr."""
    total = run.total
    points = {round(i * (total - 1) / (_POINTS - 1)) for i in range(_POINTS)} | set(range(min(total, _POINTS)))
    return max(run.schedule.factor(point, total=total, per_epoch=run.per_epoch) for point in points)


def check_lr(steps: Steps, *, lr: float, grown: bool = False) -> Outcome:
    """What the steps say about the lr.

    Args:
        steps: taken at the schedule's largest lr; the first loss is finite.
        lr: the largest of the groups' at that point, for messages.
        grown: a classifier that begins from random values, at an lr for batches of hundreds: on two images its loss may
            rise and its layers change much without harm, which is then a warning.
    """
    outcome = Outcome("learning_rate")
    totals = steps.totals
    changes = sorted(steps.changes.values())
    change = changes[min(len(changes) - 1, int(_TENTH * len(changes)))] if changes else 0.0
    outcome.facts = {"lr": lr, "totals": totals, "layer_change": change, "gradient_norms": steps.gradient_norms}
    shown = ", ".join(f"{total:.3g}" for total in totals)
    outcome.lines = [f"at lr {lr:g} the loss goes {shown}; a step changes the layers by up to {change:.2g} (of 1)"]
    report = outcome.warning if grown else outcome.error
    remedy = "lower optimizer.lr; look at optimizer.base_batch and scaling, which multiply it"
    if steps.infinite_gradient and all(map(math.isfinite, totals)):
        outcome.error(
            "lr-too-high",
            f"at lr {lr:g} gradients become infinite, of {len(steps.infinite_gradient)} parameters, such as "
            f"{min(steps.infinite_gradient)}",
            remedy,
        )
    elif not all(map(math.isfinite, totals)):
        outcome.error("lr-too-high", f"at lr {lr:g} the loss goes {shown} in {len(totals) - 1} steps", remedy)
    elif max(totals) > RISE * totals[0] > 0:
        report("lr-too-high", f"at lr {lr:g} the loss goes {shown} in {len(totals) - 1} steps", remedy)
    elif change > DESTROYS:
        report(
            "lr-too-high",
            f"at lr {lr:g} one step changes a tenth of the layers by {change:.2g} and more, where a usual weight is "
            "about 1: what they were trained to is lost",
            remedy,
        )
    elif change > HIGH:
        outcome.warning(
            "lr-high",
            f"at lr {lr:g} one step changes a tenth of the layers by {change:.2g} and more, where a usual weight is "
            f"about 1 and {HIGH} is much",
            "a tenth of this lr is safer; lengthen the warm-up otherwise",
        )
    return outcome
