"""Whether every trained parameter is taught: named by the largest module of which nothing has a gradient.

"No gradient" means that no loss depends on the parameter in any of the steps: a head that is not connected, a loss that
leaves an output out, features that were detached. It is an error outside the backbone, and where it is the whole
backbone; DistributedDataParallel would stop at it in any case. Inside the backbone it is a warning: own networks may
have layers that only other uses need.

"Zero gradient" means that there is a path, and every number of the gradient was zero in every step. It is an error for
a whole part of the model, and a warning in backbone and neck: where a norm starts with gamma zero and is frozen, what
is before it stays as it is forever. In a head it is a note: a level that no object of the few images belongs to has
none.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from transfer.checking.findings import counted
from transfer.preflight.findings import Outcome
from transfer.preflight.steps import Steps

_SHOWN = 6
_BODY = ("backbone", "neck")


def whole_modules(names: Iterable[str], trained: Iterable[str]) -> dict[str, int]:
    """The largest modules all of whose trained parameters are among some; a parameter by its own name otherwise.

    Args:
        names: dotted names of the parameters in question.
        trained: those of all trained parameters.
    Returns:
        Module (or parameter) -> how many of `names` it has, in the order of `trained`; "" is the whole model.
    """
    chosen, others = set(names), set[str]()
    for name in trained:
        if name not in chosen:
            parts = name.split(".")
            others.update(".".join(parts[:depth]) for depth in range(len(parts) + 1))
    found: dict[str, int] = {}
    for name in trained:
        if name in chosen:
            parts = name.split(".")
            largest = next(p for depth in range(len(parts) + 1) if (p := ".".join(parts[:depth])) not in others)
            found[largest] = found.get(largest, 0) + 1
    return found


def check_gradients(model: nn.Module, steps: Steps) -> Outcome:
    """Which parameters the steps gave no gradient.

    Args:
        model: that the steps were taken on.
        steps: with at least one backward pass.
    """
    outcome = Outcome("gradients")
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    frozen = sum(1 for parameter in model.parameters() if not parameter.requires_grad)
    missing = whole_modules(steps.without_gradient, trained)
    zero = whole_modules(steps.zero_gradient - steps.without_gradient, trained)
    outcome.facts = {
        "trained": len(trained),
        "frozen": frozen,
        "without_gradient": sorted(steps.without_gradient),
        "zero_gradient": sorted(steps.zero_gradient - steps.without_gradient),
    }
    taught = len(trained) - len(steps.zero_gradient | steps.without_gradient)
    outcome.lines = [f"{taught} of {len(trained)} trained tensors have a gradient, {frozen} are frozen"]
    parts = {name for name, _ in model.named_children()}
    wrong = {name: count for name, count in missing.items() if name == "backbone" or not name.startswith("backbone.")}
    rest = {name: count for name, count in missing.items() if name not in wrong}
    if wrong:
        remedy = "connect them in the model's forward, use their output in the criterion, or freeze them"
        outcome.error("gradient-missing", f"no loss depends on {_listed(wrong)}", remedy)
    if rest:
        remedy = "harmless in one process; with several, DistributedDataParallel stops at it: freeze or remove them"
        outcome.warning("gradient-missing", f"no loss depends on {_listed(rest)}", remedy)
    whole = {name: count for name, count in zero.items() if name in parts or not name}
    if whole:
        remedy = "look for a factor of zero, a dead activation or a frozen gamma of zero on its way to the loss"
        outcome.error("gradient-zero", f"every gradient is exactly zero in {_listed(whole)}", remedy)
    some = {name: count for name, count in zero.items() if name not in whole}
    in_body = {name: count for name, count in some.items() if name.split(".")[0] in _BODY}
    in_head = {name: count for name, count in some.items() if name not in in_body}
    for modules, report in ((in_body, outcome.warning), (in_head, outcome.note)):
        if modules:
            report(
                "gradient-zero",
                f"every gradient is exactly zero in {_listed(modules)}, in {len(steps.gradient_norms)} steps",
                "right for what no object of these few images reaches; else look for dead layers or a frozen gamma of "
                "zero",
            )
    return outcome


def _listed(modules: dict[str, int]) -> str:
    shown = [f"{name or 'the whole model'} ({counted(count, 'tensor')})" for name, count in modules.items()]
    more = f" and {len(shown) - _SHOWN} others" if len(shown) > _SHOWN else ""
    return ", ".join(shown[:_SHOWN]) + more
