"""The first losses: are they those of an untrained head, does each teach the maps, is any of them drowned.

A criterion may say what an untrained head's losses are: `expected_first_losses`. With all logits equal the softmax over
K classes and the background costs ln(K + 1), a sigmoid ln 2; a head that begins at a prior costs less; a box loss is
that of deltas of zero. A new head is not quite untrained: its logits have a standard deviation below 0.5 by its random
weights, and on one batch they may all lean the same way. So from half the expected value (less 0.1) to 1.5 times it
(and 0.3 more) is well, which are logits of a standard deviation of up to about 2. Beyond that it is a warning: a head
that begins too wide, a wrong number of classes, labels that do not arrive, a sum in place of a mean. Above 10 times the
expected value (and 3 more), or not finite, it is an error.

The terms should be of one magnitude, as the largest alone is learnt otherwise: a term above 100 times the sum of the
others, or below a hundredth of another, is a warning. A small one is none where the criterion expects just that: the
box loss of a two-stage head begins near zero, because most of its first regions are background.

"Pull" is the norm of a term's gradient with respect to the maps that the head is given.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from transfer.preflight.findings import Outcome
from transfer.preflight.watching import Watched
from transfer.types import Batch, Target

DROWNED = 100.0


@runtime_checkable
class ExpectsFirstLosses(Protocol):
    """A criterion that knows the losses of an untrained head."""

    def expected_first_losses(self, model: nn.Module, output: Any, targets: Sequence[Target]) -> Mapping[str, float]:
        """What the losses of this output's batch would be if the head knew nothing.

        Args:
            model: that gave the output.
            output: of the model, in training.
            targets: of the batch.
        Returns:
            Name of a loss -> its value; a loss that is left out is not stated.
        """
        ...


def check_first_losses(
    criterion: Any, model: nn.Module, watched: Watched, losses: Mapping[str, Tensor], batch: Batch
) -> Outcome:
    """The losses of the first pass.

    Args:
        criterion: whose losses they are.
        model: the copy.
        watched: the pass.
        losses: with their graph, which is kept.
        batch: on the device.
    """
    outcome = Outcome("first_loss")
    values = {name: float(loss.detach()) for name, loss in losses.items()}
    expected: Mapping[str, float] = {}
    if isinstance(criterion, ExpectsFirstLosses):
        with torch.no_grad():
            expected = criterion.expected_first_losses(model, watched.output, batch.targets)
    pulls = _pulls(watched, losses)
    for name, value in values.items():
        _check_value(outcome, name, value, expected.get(name))
        if not losses[name].requires_grad:
            remedy = "look for detach(), no_grad or .item() on its way"
            outcome.error("loss-without-gradient", f"{name} depends on no parameter", remedy)
        elif pulls and pulls[name] is None and value != 0:
            remedy = "look for detach() between maps and head; right only where the head has inputs of its own"
            outcome.warning("loss-without-gradient", f"{name} does not depend on the maps of the network", remedy)
    if all(map(math.isfinite, values.values())):
        _check_magnitudes(outcome, values, expected)
    outcome.facts = {
        name: {"value": value, "expected": expected.get(name), "pull": pulls.get(name)}
        for name, value in values.items()
    }
    outcome.lines = _table(values, expected, pulls)
    return outcome


def _pulls(watched: Watched, losses: Mapping[str, Tensor]) -> dict[str, float | None]:
    """Norm of each term's gradient on the maps, None where it does not depend on them; empty where none is taught."""
    maps = [x for x in watched.maps.get("neck") or watched.maps.get("backbone", []) if x.requires_grad]
    if not maps:
        return {}
    pulls: dict[str, float | None] = {}
    for name, loss in losses.items():
        gradients = torch.autograd.grad(loss, maps, retain_graph=True, allow_unused=True) if loss.requires_grad else ()
        norms = [gradient.float().norm() for gradient in gradients if gradient is not None]
        pulls[name] = float(torch.stack(norms).norm()) if norms else None
    return pulls


def _check_value(outcome: Outcome, name: str, value: float, expected: float | None) -> None:
    if not math.isfinite(value):
        remedy = "look at preflight.jpg for boxes without area, and at the maps' scale"
        outcome.error("loss-not-finite", f"{name} is {value} at the first step", remedy)
    elif expected is not None and not is_near(value, expected):
        report = outcome.error if value > 10 * expected + 3 else outcome.warning
        report(
            "loss-unexpected",
            f"{name} is {value:.4g} at the first step; of an untrained head it is {expected:.4g}",
            "look at the head's initial weights, the number of classes, the labels and the maps' scale",
        )


def is_near(value: float, expected: float) -> bool:
    """Whether a first loss is that of a head that is as good as untrained."""
    return 0.5 * expected - 0.1 <= value <= 1.5 * expected + 0.3


def _check_magnitudes(outcome: Outcome, values: Mapping[str, float], expected: Mapping[str, float]) -> None:
    if len(values) < 2:
        return
    largest = max(values, key=lambda name: values[name])
    limit = values[largest] / DROWNED

    def begins_small(name: str) -> bool:
        stated = expected.get(name)
        return stated is not None and is_near(values[name], stated) and stated <= 2 * limit

    small = [name for name, value in values.items() if value < limit and not begins_small(name)]
    others = sum(value for name, value in values.items() if name != largest)
    remedy = "weigh the terms of the criterion, or let the head begin at a prior"
    if small and others < limit:
        shown = f"{largest} is {values[largest]:.4g}, all others together are {others:.3g}"
        outcome.warning("loss-drowns-others", shown, remedy)
        return
    for name in small:
        shown = f"{name} is {values[name]:.3g}, {largest} {values[largest]:.4g}: little is learnt from it"
        outcome.warning("loss-drowned", shown, remedy)


def _table(values: Mapping[str, float], expected: Mapping[str, float], pulls: Mapping[str, float | None]) -> list[str]:
    rows = [["loss", "first", "untrained", "pull"]]
    for name, value in values.items():
        pull = pulls.get(name)
        stated = f"{expected[name]:.4g}" if name in expected else "not stated"
        rows.append([name, f"{value:.4g}", stated, "-" if pull is None else f"{pull:.2g}"])
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))])
        for row in rows
    ]
