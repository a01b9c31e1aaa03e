"""Labels: how often each occurs, whether each stands for a class, and whether they count from 0.

A label is off by one where 0 never occurs and K, the number of classes, does: data whose labels run from 1 to K, as
COCO's ids and the label maps of several tools do. Every object is then taught as the class before it, and the last
class is out of range: a loss indexes past its classes, on a GPU with a message that names nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from transfer.checking.findings import counted
from transfer.preflight.findings import Outcome
from transfer.preflight.truth import Objects
from transfer.report.pages import spread
from transfer.types import IGNORED_PIXEL, ClassificationDataset, SegmentationDataset, UserError

_MASKS = 24
"""Masks that are read."""
_SHOWN = 12


def check_labels(stated: Objects, decoded: Objects, class_names: Sequence[str]) -> Outcome:
    """The labels of boxes.

    Args:
        stated: of many images, as the data set's records have them.
        decoded: of some images, as its samples bring them.
        class_names: of the labels 0..K-1.
    """
    outcome = Outcome("labels")
    for objects, where in ((stated, "the records"), (decoded, "the decoded samples")):
        counts = Counter(objects.labels.tolist())
        places = dict(zip(reversed(objects.labels.tolist()), reversed(objects.paths)))  # the first image of each
        _out_of_range(outcome, counts, places, class_names, where)
        if outcome.is_wrong:
            break  # the samples bring what the records hold: once is enough
    counts = Counter(stated.labels.tolist())
    if not counts:
        remedy = "look whether data.train reads the annotations of these images"
        outcome.error("no-objects", f"{counted(stated.images, 'image')} without one box", remedy)
    elif not outcome.is_wrong:
        _absent(outcome, counts, class_names, of=stated.images, total=stated.total)
    _report(outcome, counts, class_names, f"boxes of {counted(stated.images, 'image')}")
    return outcome


def check_mask_labels(dataset: SegmentationDataset) -> Outcome:
    """The classes of pixels, over some masks spread over the data set."""
    outcome = Outcome("labels")
    counts: Counter[int] = Counter()
    places: dict[int, str] = {}
    chosen = spread(len(dataset), _MASKS)
    for index in chosen:
        try:
            mask = dataset.mask(index)
        except UserError:  # what cannot be read is left to the loader's own rule
            continue
        values, pixels = np.unique(mask, return_counts=True)
        counts.update(dict(zip(values.tolist(), pixels.tolist())))
        places.update({value: dataset.record(index).path for value in values.tolist() if value not in places})
    ignored = counts.pop(IGNORED_PIXEL, 0)
    _out_of_range(outcome, counts, places, dataset.class_names, "the masks")
    if not counts:
        remedy = "look at reduce_zero_label, ignore and the class names of data.train"
        outcome.error("no-objects", f"every pixel of {counted(len(chosen), 'mask')} is ignored", remedy)
    elif not outcome.is_wrong:
        _absent(outcome, counts, dataset.class_names, of=len(chosen), total=len(dataset))
    _report(outcome, counts, dataset.class_names, f"pixels of {counted(len(chosen), 'mask')}")
    outcome.facts["ignored_pixels"] = ignored
    return outcome


def check_image_labels(dataset: ClassificationDataset) -> Outcome:
    """The classes of all images."""
    outcome = Outcome("labels")
    labels, first, images = np.unique(dataset.labels(), return_index=True, return_counts=True)
    counts = Counter(dict(zip(labels.tolist(), images.tolist())))
    places = {int(label): dataset.record(int(index)).path for label, index in zip(labels, first)}
    _out_of_range(outcome, counts, places, dataset.class_names, "the images")
    if not outcome.is_wrong:
        _absent(outcome, counts, dataset.class_names, of=len(dataset), total=len(dataset))
    _report(outcome, counts, dataset.class_names, counted(len(dataset), "image"))
    return outcome


def _out_of_range(
    outcome: Outcome, counts: Mapping[int, int], places: Mapping[int, str], class_names: Sequence[str], where: str
) -> None:
    """Labels below 0 or from K on."""
    known = len(class_names)
    wrong = sorted(label for label in counts if not 0 <= label < known)
    if wrong == [known] and 0 not in counts:
        outcome.error(
            "labels-off-by-one",
            f"{where} hold the labels {min(counts)} to {known}, never 0: {known} classes have the labels 0 to "
            f"{known - 1}, so each object is taught as the class before its own",
            "subtract 1 where data.train makes its labels",
        )
    elif wrong:
        shown = ", ".join(f"{label} ({counts[label]:,} times, first in {places[label]})" for label in wrong[:3])
        more = f" and {len(wrong) - 3} others" if len(wrong) > 3 else ""
        outcome.error(
            "label-out-of-range",
            f"{where} hold {shown}{more}; {known} classes have the labels 0 to {known - 1}",
            "mend the labels that data.train gives, or its class_names",
        )


def _absent(outcome: Outcome, counts: Mapping[int, int], class_names: Sequence[str], *, of: int, total: int) -> None:
    """Classes that never occur: nothing is learnt of them."""
    absent = [name for label, name in enumerate(class_names) if not counts.get(label)]
    if not absent:
        return
    shown = ", ".join(absent[:_SHOWN]) + (f" and {len(absent) - _SHOWN} others" if len(absent) > _SHOWN else "")
    message = f"{counted(len(absent), 'class', 'classes')} without an object: {shown}"
    if of == total:
        outcome.warning("class-without-objects", message, "add images of them, or take them out of class_names")
    else:
        outcome.note("class-without-objects", f"in the {of:,} images looked at, {message}", "tools/check_data.py knows")


def _report(outcome: Outcome, counts: Mapping[int, int], class_names: Sequence[str], unit: str) -> None:
    """The histogram, most frequent first."""
    names = {label: class_names[label] if 0 <= label < len(class_names) else f"label {label}" for label in counts}
    total = max(1, sum(counts.values()))
    ranked = sorted(counts, key=lambda label: -counts[label])
    outcome.facts = {"counts": {names[label]: counts[label] for label in ranked}}
    shown = ", ".join(f"{names[label]} {counts[label] / total:.0%}" for label in ranked[:_SHOWN])
    rest = f", {len(ranked) - _SHOWN} rarer ones" if len(ranked) > _SHOWN else ""
    outcome.lines = [f"{sum(counts.values()):,} {unit}: {shown}{rest}" if counts else f"no {unit}"]
