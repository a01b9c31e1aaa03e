"""A run so small that its every figure can be worked out by hand: one weight per channel, images of one grey level."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from whole_checkpoint import whole_checkpoint

from transfer.engine.distributed import World
from transfer.engine.settings import TrainingSettings
from transfer.engine.train import Run
from transfer.optim.ema import EMA
from transfer.optim.optimizers import SGD
from transfer.optim.precision import Precision
from transfer.optim.schedules import Constant
from transfer.types import Batch, Target

ALONE = World(0, 1, torch.device("cpu"))


class Weights(nn.Module):
    """Means of the channels, weighted."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))

    def forward(self, images: Tensor) -> Tensor:
        return images.float().mean(dim=(2, 3)) @ self.weight  # [B]


class ToyTask:
    """Loss: mean square of the outputs; `loss_noise` adds the step's own random draw."""

    def __init__(self, scale: Callable[[int], float] = lambda step: 1.0, noise: bool = False) -> None:
        self.model = Weights()
        self.scale, self.noise, self.calls = scale, noise, 0

    def losses(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        self.calls += 1
        outputs = model(batch.images)
        losses = {"loss_square": (outputs**2).mean() * self.scale(self.calls)}
        if self.noise:
            losses["loss_noise"] = (outputs * torch.rand(len(outputs))).mean()
        return losses


def target(index: int) -> Target:
    return Target(
        boxes=torch.zeros(0, 4),
        labels=torch.zeros(0, dtype=torch.int64),
        difficult=torch.zeros(0, dtype=torch.bool),
        weights=torch.zeros(0),
        size=(2, 2),
        index=index,
        image_id=index,
        path=f"folder/image{index}.jpg",
        original_size=(2, 2),
        scale=(1.0, 1.0),
        seed=1000 + index,
    )


def batch(number: int, size: int = 2) -> Batch:
    """The n-th micro-batch: grey levels that differ by channel and position."""
    images = torch.tensor([[(7 * number + 3 * i + c) % 5 for c in range(3)] for i in range(size)])
    return Batch(
        images[:, :, None, None].expand(-1, -1, 2, 2).to(torch.uint8),
        [target(size * number + i) for i in range(size)],
        {"crop": number},
        [f"broken{number}.jpg"] if number == 1 else [],
    )


@dataclass
class Result:
    """A result with one figure."""

    figure: float
    protocol: str = "by hand"
    main: str = "figure"
    values: dict[str, float] = field(init=False)
    per_class: dict[str, dict[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.values = {"figure": self.figure}

    def table(self) -> str:
        return f"figure {self.figure}"


def toy_run(
    task: ToyTask | None = None, *, ema: dict[str, Any] | None = None, track_best: bool = True, **settings: Any
) -> Run:
    """Four optimizer steps an epoch, plain gradient descent with lr 0.01."""
    task = task or ToyTask()
    chosen = TrainingSettings(**{"epochs": None if "iterations" in settings else 2, "ema": ema, **settings})

    def batches(iteration: int) -> Iterable[Batch]:
        return (batch(n) for n in range(iteration * chosen.accumulate, chosen.total(4) * chosen.accumulate))

    optimizer = SGD(lr=0.01, base_batch=None, momentum=0.0, nesterov=False, weight_decay=0.0)
    return Run(
        task=task,  # type: ignore[arg-type]
        batches=batches,
        optimizer=optimizer.build(task.model, global_batch=2),
        schedule=Constant(),
        precision=Precision("float32", "cpu"),
        ema=None if ema is None else EMA(task.model, **ema),
        settings=chosen,
        world=ALONE,
        per_epoch=4,
        track_best=track_best,
        facts=whole_checkpoint(),
    )


def gradient(weight: Tensor, batches: Sequence[Batch]) -> Tensor:
    """Of the mean over the batches of mean((x w)^2), worked out by hand: 2 x^T (x w) / n."""
    gradients = []
    for each in batches:
        x = each.images[:, :, 0, 0].float()
        gradients.append(2 * x.T @ (x @ weight) / len(x))
    return torch.stack(gradients).mean(dim=0)
