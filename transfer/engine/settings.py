"""The config's `training`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from transfer.types import UserError


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """The config's `training`: how long, in which numbers, and what is kept when."""

    epochs: float | None = None
    """Length of the run; give this or `iterations`."""
    iterations: int | None = None
    """Optimizer steps."""
    seed: int = 0
    precision: str = "float32"
    """"float32", "bfloat16" or "float16" (with a gradient scaler)."""
    accumulate: int = 1
    """Micro-batches that make one optimizer step; the loader's batch_size is divided by it."""
    clip_norm: float | None = None
    """Largest norm of all gradients together."""
    flooding: float | None = None
    """Level b below which the total loss of a micro-batch is pushed up again: |loss - b| + b (Ishida et al. 2020,
    arXiv 2002.08709). Logged losses are those before. None: no flooding."""
    l1: float | None = None
    """Strength of the L1 penalty on weights of convolutions and linear layers, added to the total loss. None: none."""
    early_stopping: dict[str, Any] | None = None
    """Arguments of `transfer.engine.early_stopping.EarlyStopping`, which listens to validation data. None: none."""
    dropblock: dict[str, Any] | None = None
    """Arguments of `backbones.dropblock.DropBlock`, which acts on the backbone's maps in training. None: none."""
    ema: dict[str, Any] | None = None
    """Arguments of `transfer.optim.ema.EMA`; the average is what is evaluated. None: no average."""
    evaluate_every: float = 1
    """Epochs between evaluations; the last step always has one. 0: at the end only."""
    checkpoint_every: float = 1
    """Epochs between checkpoints, besides one at each evaluation. 0: none besides."""
    log_every: int = 20
    """Iterations between log lines."""
    pictures: int = 12
    """Images on the page of predictions."""
    deterministic: bool = False
    """Only algorithms that give the same bits every time; slower on a GPU, without effect on a CPU."""
    channels_last: bool = False
    """Maps and the weights of convolutions lie in memory pixel by pixel (torch.channels_last), which makes the steps of
    light networks a fifth shorter on a CPU. Results differ by rounding, and by what dropout draws for maps."""
    preflight: bool = True
    """Check data, model and lr for seconds before a new run begins (tools/preflight.py); an error stops it."""

    def __post_init__(self) -> None:
        problems = []
        if (self.epochs is None) == (self.iterations is None):
            problems.append(f"give either epochs ({self.epochs}) or iterations ({self.iterations})")
        whole = ("iterations", "accumulate", "log_every", "seed", "pictures")
        may_be_zero = ("seed", "pictures", "evaluate_every", "checkpoint_every")
        may_be_none = ("epochs", "iterations", "clip_norm", "flooding", "l1")
        for name in dict.fromkeys((*whole, *may_be_zero, *may_be_none)):
            value = getattr(self, name)
            if value is None and name in may_be_none:
                continue
            fits = isinstance(value, int if name in whole else (int, float)) and not isinstance(value, bool)
            if not fits or not (value > 0 or (value == 0 and name in may_be_zero)):
                kind = "whole number" if name in whole else "number"
                problems.append(
                    f"{name}={value!r} must be a {kind}, {'0 or more' if name in may_be_zero else 'above 0'}"
                )
        examples = (
            ("ema", "dict(decay=0.9998)"),
            ("dropblock", "dict(keep=0.9)"),
            ("early_stopping", "dict(patience=5)"),
        )
        for name, example in examples:
            if getattr(self, name) is not None and not isinstance(getattr(self, name), dict):
                problems.append(f"{name}={getattr(self, name)!r} must be None or a dict, such as {example}")
        problems += [
            f"{name}={getattr(self, name)!r} must be True or False"
            for name in ("preflight", "deterministic", "channels_last")
            if not isinstance(getattr(self, name), bool)
        ]
        if problems:
            raise UserError("training: " + "; ".join(problems))

    def flooded(self, loss: Tensor) -> Tensor:
        """The total loss as the backward pass takes it: below the level of flooding, its gradient is turned round."""
        return loss if self.flooding is None else (loss - self.flooding).abs() + self.flooding

    def total(self, per_epoch: int) -> int:
        """Optimizer steps of the whole run."""
        return self.iterations or max(1, round((self.epochs or 0) * per_epoch))
