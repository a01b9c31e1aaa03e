"""Which image is in which split: the source's own kept, or all images shared out anew, to splits or to folds.

Sharing out is stratified (stratify.py) over units of equal bytes: exact duplicates stay together. It does not depend on
the order in which a file system lists the images: they are sorted by name first.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from transfer.convert.annotated import AnnotatedImage, AnnotatedSet
from transfer.convert.stratify import stratify
from transfer.data.class_names import nearest_name
from transfer.types import UserError


def chosen_splits(source: Path, splits: Collection[str], only: Sequence[str]) -> list[str]:
    """The splits to read.

    Raises:
        UserError: `only` names one that does not exist.
    """
    _check_known(f"{source}: --only", only, splits)
    return [split for split in splits if not only or split in only]


def check_shares(shares: Mapping[str, float], keep: Sequence[str]) -> None:
    """Raises: UserError for names and shares that cannot be used, all of them."""
    problems = []
    for name, share in shares.items():
        if not re.fullmatch(r"\w[\w.-]*", name):
            problems.append(f"--split: the name {name!r} must be of letters, digits, '_', '-' and '.'")
        if not 0 < share <= 1:
            problems.append(f"--split {name}={share:g}: a share lies between 0 and 1")
        if name in keep:
            problems.append(f"--split {name}: --keep keeps a split of this name")
    total = sum(shares.values())
    if abs(total - 1) > 1e-6:
        problems.append(f"--split: the shares add up to {total:g}; they must to 1")
    if problems:
        raise UserError("\n".join(problems))


def assign_splits(dataset: AnnotatedSet, shares: Mapping[str, float], keep: Sequence[str], seed: int) -> list[str]:
    """Share the images out to new splits, in place.

    Args:
        dataset: its splits are replaced.
        shares: split -> share of the images.
        keep: splits of the source that stay as they are, with the images in them.
        seed: which of the equally good splits.

    Returns:
        What to tell the user.

    Raises:
        UserError: unknown splits in `keep`, or fewer images than splits.
    """
    part, pool, lines = _share_out(dataset, list(shares.values()), keep, seed)
    names = list(shares)
    for image, number in zip(pool, part):
        image.splits = [names[number]]
    dataset.splits = [*names, *keep]
    return [*lines, *_missing(dataset, pool, part, names)]


def assign_folds(dataset: AnnotatedSet, folds: int, keep: Sequence[str], seed: int) -> list[str]:
    """Share the images out to splits fold0_train, fold0_val, fold1_train, ...: each image is in one fold's val.

    Args, Returns, Raises: as `assign_splits`.
    """
    part, pool, lines = _share_out(dataset, [1 / folds] * folds, keep, seed)
    for image, number in zip(pool, part):
        image.splits = [f"fold{fold}_{'val' if fold == number else 'train'}" for fold in range(folds)]
    dataset.splits = [*(f"fold{fold}_{half}" for fold in range(folds) for half in ("train", "val")), *keep]
    return [*lines, *_missing(dataset, pool, part, [f"fold{fold}_val" for fold in range(folds)])]


def _share_out(
    dataset: AnnotatedSet, shares: Sequence[float], keep: Sequence[str], seed: int
) -> tuple[list[int], list[AnnotatedImage], list[str]]:
    """Each pooled image's part, the pooled images, and what to tell."""
    _check_known(f"{dataset.source}: --keep", keep, dataset.splits)
    kept: list[AnnotatedImage] = []
    pool: list[AnnotatedImage] = []
    for image in sorted(dataset.images, key=lambda image: (image.name, image.group)):
        image.splits = [split for split in image.splits if split in keep]
        (kept if image.splits else pool).append(image)
    units: dict[int, list[int]] = defaultdict(list)
    groups = duplicate_groups([image.path for image in [*pool, *kept]])
    for position, group in enumerate(groups[: len(pool)]):
        units[group].append(position)
    if len(units) < len(shares):
        different = "" if len(units) == len(pool) else " different"
        raise UserError(f"{dataset.source}: {len(units)}{different} images cannot be shared out to {len(shares)} parts")
    labels = {name: label for label, name in enumerate(sorted(dataset.names()))}
    present = np.zeros((len(units), len(labels)), bool)
    for unit, positions in enumerate(units.values()):
        present[unit, [labels[item.name] for position in positions for item in pool[position].objects]] = True
    sizes = np.array([len(positions) for positions in units.values()])
    chosen = stratify(present, shares, seed, images=sizes)
    part = [0] * len(pool)
    for number, positions in zip(chosen.tolist(), units.values()):
        for position in positions:
            part[position] = number
    lines = [f"shared out by the classes present in each image (not by numbers of boxes), seed {seed}"]
    if (sizes > 1).any():
        lines.append(f"{sizes[sizes > 1].sum()} images are exact copies of one another; copies stay in one part")
    leaked = sum(group in units for group in groups[len(pool) :])
    if leaked:
        lines.append(f"WARNING: {leaked} images of {', '.join(keep)} are exact copies of images that were shared out")
    return part, pool, lines


def _missing(
    dataset: AnnotatedSet, pool: Sequence[AnnotatedImage], part: Sequence[int], names: Sequence[str]
) -> list[str]:
    """One line for each class that a part lacks."""
    found: dict[str, list[int]] = defaultdict(list)
    for image, number in zip(pool, part):
        for name in {item.name for item in image.objects}:
            found[name].append(number)
    lines = []
    for name in dataset.names():
        lacking = [split for number, split in enumerate(names) if number not in found[name]]
        if lacking and found[name]:
            lines.append(f"WARNING: class {name!r} ({len(found[name])} images) is not in {', '.join(lacking)}")
    return lines


def duplicate_groups(paths: Sequence[str]) -> list[int]:
    """A number for each file, equal where the bytes are; only files of one length are read."""
    by_length: dict[int, list[int]] = defaultdict(list)
    for position, path in enumerate(paths):
        by_length[os.path.getsize(path)].append(position)
    groups = list(range(len(paths)))
    for positions in by_length.values():
        first: dict[bytes, int] = {}
        for position in positions if len(positions) > 1 else ():
            with open(paths[position], "rb") as file:
                digest = hashlib.sha256(file.read()).digest()
            groups[position] = first.setdefault(digest, position)
    return groups


def _check_known(where: str, names: Sequence[str], splits: Collection[str]) -> None:
    problems = []
    for name in names:
        if name not in splits:
            near = nearest_name(name, list(splits))
            hint = f" (nearest: {near!r})" if near else ""
            problems.append(f"{where} {name}: no such split{hint}. Splits that exist: {', '.join(splits) or 'none'}")
    if problems:
        raise UserError("\n".join(problems))
