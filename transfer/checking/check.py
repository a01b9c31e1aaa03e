"""Finds every problem of a detector's data: reads all splits, decodes all images, and lists what is wrong at once.

Data with masks have a check of their own (mask_check.py); images.py, duplicates.py, findings.py and the JSON of
report.py do not ask what is annotated.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from transfer.build import Node
from transfer.checking.annotations import box_findings, judged, rotation_finding, size_finding
from transfer.checking.duplicates import Pair, duplicate_findings, same_pictures
from transfer.checking.findings import ERROR, WARNING, Finding, in_order
from transfer.checking.images import ImageFacts, image_finding, inspect_images
from transfer.checking.names import certain_corrections, name_findings, probable_slips
from transfer.checking.orphans import orphan_findings
from transfer.checking.progress import with_progress
from transfer.checking.reading import Part, StatedImage, read_parts
from transfer.checking.statistics import PartStatistics, coverage_findings
from transfer.data.table_builder import UnusableFile
from transfer.types import UserError

_REMEDIES = {
    "annotation-missing": "write its annotation, or take the line out",
    "image-missing": "copy the image there, or remove its annotation",
    "annotation-without-image": "remove it, or add its image",
    "xml-unreadable": "write the file again, or remove it with its image",
    "object-faulty": "mend the object, or remove the file with its image",
    "json-entry-faulty": "mend the entry, or remove it with its image",
    "entry-unusable": "mend or remove it",
}


@dataclass
class Report:
    """What a check found, and what a repair needs of it."""

    findings: list[Finding]
    statistics: list[PartStatistics]
    class_names: tuple[str, ...]
    parts: list[Part]
    facts: dict[str, ImageFacts]
    """By path."""
    pairs: list[Pair[StatedImage]]
    corrections: dict[str, str]
    """Stated class name -> the one that is meant beyond doubt."""

    @property
    def can_be_fixed(self) -> bool:
        """The repair knows the formats that the data has."""
        return all(part.tells_origins for part in self.parts)

    @property
    def is_wrong(self) -> bool:
        """Training would stop, or its figures would be wrong."""
        return any(finding.severity == ERROR for finding in self.findings)


def check_detection(
    config: Node, *, workers: int | None = None, after_reading: Callable[[list[Part]], None] = lambda parts: None
) -> Report:
    """Check the data sets of a detector's config.

    Args:
        config: as `transfer.build.load_config` gives it; of it, `data`, `loader.on_broken` and the seed are used.
        workers: threads that decode, >= 1; None: one a core.
        after_reading: called before the images are decoded, which takes long: may raise.

    Raises:
        UserError: mistakes of the config, or no data set that can be opened.
    """
    workers = number_of_threads(workers)
    parts = read_parts(config)
    after_reading(parts)
    paths = {path: None for part in parts for path in _paths(part)}  # a set in order
    decoded = with_progress(inspect_images(paths, workers=workers), len(paths), "images")
    facts = {fact.path: fact for fact in decoded}
    pairs = same_pictures(parts, facts)
    corrections = certain_corrections(parts)
    statistics: list[PartStatistics] = []
    findings: list[Finding] = []
    for part in parts:
        findings += _reading_findings(part, facts)
        findings += _image_findings(part, facts)
        findings += _annotation_findings(part, facts, statistics)
    statistics.sort(key=lambda each: ("train", "val", "test").index(each.name))
    class_names = parts[0].class_names or ()
    slips = probable_slips(parts, corrections)
    findings += duplicate_findings(pairs, parts, facts)
    findings += name_findings(parts, corrections, slips)
    sure = [name for name in class_names if name not in slips]  # of a slip nothing more needs to be said
    findings += coverage_findings([each for each in statistics if each.images], sure)
    findings += orphan_findings(parts)
    return Report(in_order(findings), statistics, class_names, parts, facts, pairs, corrections)


def number_of_threads(workers: int | None) -> int:
    """As many as asked for; None: one a core. Raises: UserError below 1."""
    if workers is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if workers < 1:
        raise UserError(f"--workers is {workers}: it must be at least 1")
    return workers


def _paths(part: Part) -> Iterator[str]:
    """Every image file of a part, also of annotations that cannot be used."""
    yield from (image.path for image in part.images)
    yield from (fault.image for fault, _ in part.faults if fault.image is not None)


def _reading_findings(part: Part, facts: Mapping[str, ImageFacts]) -> Iterator[Finding]:
    """What the reading met."""
    for error in part.errors:
        if isinstance(error, UnusableFile):
            reason = str(error).removeprefix(f"{error.file}: ")
            yield Finding(ERROR, error.code, part.name, error.file, reason, "write the file again")
        else:
            yield Finding(ERROR, "data-set-unusable", part.name, "", str(error), "mend the config or the folder")
    for fault, skipped in part.faults:
        if fault.code == "image" and fault.image is not None and facts[fault.image].code is not None:
            continue  # said when the image is decoded
        code = "entry-unusable" if fault.code == "image" else fault.code
        severity = WARNING if skipped else ERROR
        yield Finding(severity, code, part.name, fault.file, fault.reason, _REMEDIES[code], fixable=True)
    for builder in part.builders:
        for remark in builder.remarks:
            remedy = "nothing: each image counts once"
            yield Finding(WARNING, remark.code, part.name, remark.file, remark.reason, remedy, fixable=True)


def _image_findings(part: Part, facts: Mapping[str, ImageFacts]) -> Iterator[Finding]:
    left_out = {fault.image for fault, skipped in part.faults if skipped}
    for path in dict.fromkeys(_paths(part)):
        finding = image_finding(facts[path], part.name, skipped=part.skips_broken_images or path in left_out)
        if finding is not None:
            yield finding


def _annotation_findings(
    part: Part, facts: Mapping[str, ImageFacts], statistics: list[PartStatistics]
) -> Iterator[Finding]:
    """Sizes and boxes of every image; the counts are appended to `statistics`."""
    counts = PartStatistics(part.name)
    held_out = PartStatistics("val", held_out=True)
    for image in part.images:
        judgements = judged(image)
        (held_out if image.path in part.held_out else counts).add(image, judgements)
        fact = facts[image.path]
        if fact.code is None:
            about = (size_finding(image, part, fact), rotation_finding(image, part.name, fact))
            yield from (finding for finding in about if finding is not None)
        yield from box_findings(image, part.name, judgements)
    statistics.append(counts)
    if part.held_out:
        statistics.append(held_out)
