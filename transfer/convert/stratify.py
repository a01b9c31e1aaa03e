"""Shares images out to parts so that each part has each class in its share of the images.

Source: Sechidis, Tsoumakas and Vlahavas 2011, On the Stratification of Multi-Label Data, algorithm 1 (iterative
stratification). An image's labels are the classes present in it, however many boxes of them it has. Deviations:

- The parts' sizes are exact where no two images are duplicates: a full part takes no more. Images without objects,
  which the paper leaves for the end, are shared out first: they are in no class's way, and no part gets them all.
- What a part wants of a class is a whole number, at least one where the class has as many images as there are parts:
  by the paper's fractions three images of a class and parts of 0.8, 0.1 and 0.1 end in the first part, all of them.
- Afterwards images are swapped between parts while that puts a class into a part that lacks it. The paper's greedy
  order cannot promise this; nor can anyone in every case (three images with the classes AB, BC and CA and two parts).
- No part stays empty.
- Ties are broken by one shuffle drawn beforehand, so the result is a function of the arguments alone.
- Images can be bound together (duplicates): they are one unit that counts once in a class and as several in a size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def stratify(
    present: np.ndarray, shares: Sequence[float], seed: int, *, images: np.ndarray | None = None
) -> np.ndarray:
    """Choose a part for every unit.

    Args:
        present: [N, K] bool, the classes in each unit; N is at least the number of parts.
        shares: each part's share of the images, positive, with sum 1.
        seed: which of the equally good results.
        images: [N] int64, images in each unit; None: one.

    Returns:
        [N] int64, each unit's part.
    """
    count = len(present)
    images = np.ones(count, np.int64) if images is None else images
    assert count >= len(shares) >= 1
    rng = np.random.default_rng(seed)
    labels = np.concatenate([~present.any(1, keepdims=True), present], 1)  # [N, K + 1], the first one: no objects
    part = _greedy(labels, np.asarray(shares, np.float64), images, rng.permutation(count))
    return _repair(present, images, part, len(shares))


def whole_shares(total: int, shares: np.ndarray) -> np.ndarray:
    """`total` things in whole numbers by largest remainders; at least one for each share where there are enough."""
    exact = total * shares
    whole = np.floor(exact + 1e-9).astype(np.int64)
    for part in np.argsort(-(exact - whole), kind="stable")[: total - whole.sum()]:
        whole[part] += 1
    if total >= len(shares):
        while (whole == 0).any():
            whole[whole.argmax()] -= 1
            whole[(whole == 0).argmax()] += 1
    return whole


def _greedy(labels: np.ndarray, shares: np.ndarray, images: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The rarest class first, each of its units to the part that wants it most; before all, units without objects."""
    places = whole_shares(int(images.sum()), shares)
    wishes = np.stack([whole_shares(int(total), shares) for total in labels.sum(0)], 1)  # [parts, K + 1]
    part = np.full(len(labels), -1, np.int64)
    units = np.zeros(len(shares), np.int64)
    # large units first within a class: they find a place while there is room
    order = order[np.argsort(-images[order], kind="stable")]
    while (still := part < 0).any():
        left = labels[still].sum(0)
        rarest = 0 if left[0] else int(np.where(left > 0, left, len(labels) + 1).argmin())
        for unit in order[still[order] & labels[order, rarest]]:
            room = places >= images[unit]
            if len(labels) - units.sum() <= (units == 0).sum():  # the last ones go where there is nothing yet
                room = units == 0
            elif not room.any():
                room = places == places.max()
            # the part with room that wants it most, of equals the emptiest for its share
            ranking = [(room[k], wishes[k, rarest], places[k] / shares[k], -k) for k in range(len(shares))]
            chosen = ranking.index(max(ranking))
            part[unit] = chosen
            units[chosen] += 1
            places[chosen] -= images[unit]
            wishes[chosen, labels[unit]] -= 1
    return part


def _repair(present: np.ndarray, images: np.ndarray, part: np.ndarray, parts: int) -> np.ndarray:
    """Swap units between parts, of one size if possible, while fewer classes are then missing in a part."""
    owed = present[:, present.sum(0) >= parts].astype(np.int64)  # [N, classes with enough units]
    has = np.stack([owed[part == side].sum(0) for side in range(parts)])  # [parts, classes]
    improved = True
    while improved and (has == 0).any():
        improved = False
        for side, label in zip(*np.nonzero(has == 0)):
            for unit in np.flatnonzero(owed[:, label]):
                giver = part[unit]
                others = np.flatnonzero(part == side)
                change = owed[unit] - owed[others]  # [M, classes]: what `side` gains, and `giver` loses
                missing = (has[side] + change <= 0).sum(1) + (has[giver] - change <= 0).sum(1)
                before = (has[side] <= 0).sum() + (has[giver] <= 0).sum()
                helps = missing < before
                if helps.any():
                    apart = np.where(helps, np.abs(images[others] - images[unit]), images.sum())
                    best = int(np.lexsort((missing, apart))[0])
                    part[unit], part[others[best]] = side, giver
                    has[side] += change[best]
                    has[giver] -= change[best]
                    improved = True
                    break
            if improved:
                break
    return part
