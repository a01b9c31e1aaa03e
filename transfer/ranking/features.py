"""Features that a backbone has before it is trained on a task, with what they are to tell: here of whole images.

Of boxes: `box_features.py`; of pixels: `pixel_features.py`. The batches are those a task is tested with (see
`transfer.loading.test_loader`), so that the backbone sees images resized as after its training. What is drawn hangs on
the seed and an image's index alone, not on order or batches: all backbones are asked about the same rows. A batch of
which nothing is wanted any more is not run, but it is read: of a large data set, hand over a part.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from backbones.contract import Backbone
from transfer.ranking.reservoir import ClassReservoir, Row
from transfer.types import Batch, Target, UserError


@dataclass(frozen=True)
class TaskFeatures:
    """What a backbone, as it is, knows of a task."""

    features: np.ndarray
    """[N, D] float32."""
    labels: np.ndarray
    """[N] int64."""
    groups: np.ndarray
    """[N] int64: the image's index in its data set."""
    source_probabilities: np.ndarray | None
    """[N, Z] float32 of the source's classes; None: the backbone has no `source_head` that reads such features."""


def image_features(
    backbone: Backbone, batches: Iterable[Batch], *, per_class: int = 200, total: int = 1000, seed: int = 0
) -> TaskFeatures:
    """The pooled features of whole images, for classification.

    Args:
        backbone: any; an attribute `source_head`, a module from `pooled` to logits, gives the source's probabilities.
        batches: each image once, of one class each.
        per_class: images of a class at the most.
        total: images at the most.
        seed: of the draw.

    Raises:
        UserError: limits out of range, an image without a class or of several, no images.
    """
    kept = ClassReservoir(per_class=per_class, total=total)
    head = getattr(backbone, "source_head", None)
    with evaluating(backbone, head) as device:
        for batch in batches:
            labels = [_class_of(target) for target in batch.targets]
            priorities = [float(draw(seed, target).random()) for target in batch.targets]
            if not any(map(kept.wants, labels, priorities)):
                continue
            pooled = backbone.pooled(batch.images.to(device))  # [B, D]
            rows = as_rows(batch.targets, pooled, source_probabilities(head, pooled))
            for label, priority, row in zip(labels, priorities, rows, strict=True):
                kept.add(label, priority, row)
    return gathered(kept, f"{backbone.name}: there are no images to compute features of")


def draw(seed: int, target: Target) -> np.random.Generator:
    """The random stream of one image."""
    return np.random.default_rng([seed, target.index])


@contextmanager
def evaluating(backbone: Backbone, head: nn.Module | None = None) -> Iterator[torch.device]:
    """Eval mode without gradients inside, the former mode afterwards; gives the backbone's device."""
    before = [(module, module.training) for module in (backbone, head) if module is not None]
    for module, _ in before:
        module.eval()
    try:
        with torch.no_grad():
            yield backbone.pixel_mean.device
    finally:
        for module, training in before:
            module.train(training)


def level_of(backbone: Backbone, max_stride: int | None) -> int:
    """Which of a backbone's maps to read: the last of at most this stride, or the last of all.

    Raises:
        UserError: it has none, or no maps at all.
    """
    check_maps(backbone)
    levels = [level for level, stride in enumerate(backbone.strides) if max_stride is None or stride <= max_stride]
    if not levels:
        strides = ", ".join(map(str, backbone.strides))
        raise UserError(
            f"max_stride={max_stride}: the maps of {backbone.name} have strides {strides}: give "
            f"{min(backbone.strides)} or more, or build it with a smaller output_stride"
        )
    return levels[-1]


def check_maps(backbone: Backbone) -> None:
    """Raises: UserError for a network that gives tokens and no maps."""
    if not backbone.has_map:
        raise UserError(
            f"{backbone.name} gives tokens, no map to look boxes or pixels up in: graft it by "
            "backbones.timm_backbone.TimmBackbone"
        )


def head_on_map(backbone: Backbone) -> nn.Module | None:
    """The source's classifier where it reads vectors of the last map, so that it can look at boxes and pixels, too."""
    plain = type(backbone).pooled is Backbone.pooled  # else layers of the network's own stand in between
    return getattr(backbone, "source_head", None) if plain else None


def source_probabilities(head: nn.Module | None, vectors: Tensor) -> Tensor | None:
    """Softmax of the source head's logits of [N, C]; None without a head."""
    return None if head is None else head(vectors).float().softmax(dim=1)


def as_rows(targets: Sequence[Target], features: Tensor, probabilities: Tensor | None) -> list[Row]:
    """What a reservoir keeps of each vector [N, D]; `targets` are of the images the vectors are from, one a vector."""
    columns = {"features": features.float().cpu().numpy()}
    if probabilities is not None:
        columns["source_probabilities"] = probabilities.cpu().numpy()
    columns["groups"] = np.array([target.index for target in targets], dtype=np.int64)
    # Copies: a view would keep the whole batch's array.
    return [{name: values[row].copy() for name, values in columns.items()} for row in range(len(targets))]


def gathered(kept: ClassReservoir, empty: str) -> TaskFeatures:
    """The rows of a reservoir as arrays. Raises: UserError `empty` where there are none."""
    labels, rows = kept.labels_and_rows()
    if not rows:
        raise UserError(empty)
    columns = stacked(rows)
    return TaskFeatures(columns["features"], labels, columns["groups"], columns.get("source_probabilities"))


def stacked(rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """Rows as one array a name."""
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def _class_of(target: Target) -> int:
    if target.classes is None or len(target.classes) != 1:
        found = "no class" if target.classes is None else f"{len(target.classes)} classes"
        raise UserError(f"{target.path}: has {found}: give test batches of a classification data set, unmixed")
    return int(target.classes[0])
