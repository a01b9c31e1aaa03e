"""A balanced draw of positives and negatives.

Source: Faster R-CNN (Ren et al. 2015, section 3.1.3) and Fast R-CNN (Girshick 2015, section 2.3). The draw comes from a
seed of the image's own, so it is the same for any batch or process the image falls in.
"""

from __future__ import annotations

import torch
from torch import Tensor

from transfer.ops.matching import NEGATIVE


def _draw(candidates: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` of the candidates without replacement; all of them, in order, where there are no more."""
    if len(candidates) <= count:
        return candidates
    chosen = torch.randperm(len(candidates), generator=generator)[:count]
    return candidates[chosen.to(candidates.device)]


def sample_balanced(matches: Tensor, *, count: int, positive_fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of the references to learn from.

    Args:
        matches: [R] int64 from `transfer.ops.matching.match`.
        count: how many at the most; missing positives are made up by negatives.
        positive_fraction: share of positives at the most, in [0, 1].
        seed: of the draw.
    Returns:
        Indices of positives and of negatives, both int64.
    """
    generator = torch.Generator().manual_seed(seed)
    positives = torch.nonzero(matches >= 0).flatten()
    negatives = torch.nonzero(matches == NEGATIVE).flatten()
    positives = _draw(positives, int(count * positive_fraction), generator)
    negatives = _draw(negatives, count - len(positives), generator)
    return positives, negatives
