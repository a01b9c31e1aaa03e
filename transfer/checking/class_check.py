"""Finds every problem of a classifier's data: reads all splits, decodes all images, and lists what is wrong at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from transfer.build import Node
from transfer.checking.check import number_of_threads
from transfer.checking.class_reading import ClassedImage, ClassPart, read_class_parts
from transfer.checking.class_statistics import ClassStatistics, class_findings, size_findings
from transfer.checking.duplicates import Pair, duplicate_findings, same_pictures
from transfer.checking.findings import ERROR, WARNING, Finding, in_order
from transfer.checking.images import ImageFacts, image_finding, inspect_images
from transfer.checking.progress import with_progress
from transfer.checking.reading import PARTS
from transfer.data.table_builder import UnusableFile

_REMEDIES = {
    "image-missing": "copy it there, or take it out of the list",
    "image-unreadable": "save it again as JPEG or PNG, or remove it",
    "image-truncated": "copy it again from its source, or remove it",
    "image-too-large": "make it smaller, or remove it",
    "list-line-faulty": "mend the line, or remove it",
    "folder-unreadable": "give the right to read it, or remove it",
    "class-empty": "remove it, take it out by rename={...: None}, or name it in class_names",
    "class-missing": "add it to the file that tells the classes, or remove it",
}


@dataclass
class ClassReport:
    """What a check found."""

    findings: list[Finding]
    statistics: list[ClassStatistics]
    class_names: tuple[str, ...]
    parts: list[ClassPart]
    facts: dict[str, ImageFacts]
    """By path."""
    pairs: list[Pair[ClassedImage]]

    @property
    def is_wrong(self) -> bool:
        """Training would stop, or its figures would be wrong."""
        return any(finding.severity == ERROR for finding in self.findings)


def check_classification(config: Node, *, workers: int | None = None) -> ClassReport:
    """Check the data sets of a classifier's config.

    Args:
        config: as `transfer.build.load_config` gives it; of it, `task`, `data`, `loader.on_broken` and the seed are
            used.
        workers: threads that decode, >= 1; None: one a core.

    Raises:
        UserError: mistakes of the config, or no data set that can be opened.
    """
    workers = number_of_threads(workers)
    parts = read_class_parts(config)
    paths = {image.path: None for part in parts for image in part.images}  # a set in order
    decoded = with_progress(inspect_images(paths, workers=workers), len(paths), "images")
    facts = {fact.path: fact for fact in decoded}
    pairs = same_pictures(parts, facts)
    findings: list[Finding] = []
    statistics: list[ClassStatistics] = []
    for part in parts:
        counts = _counts(part, facts)
        findings += _reading_findings(part)
        findings += _image_findings(part, facts)
        findings += size_findings(part.name, part.images, facts, counts[0].short_sides())
        statistics += counts
    statistics.sort(key=lambda each: PARTS.index(each.name))
    findings += _duplicate_findings(pairs, parts, facts)
    class_names = next((part.class_names for part in parts if part.class_names), ())
    findings += class_findings([each for each in statistics if each.images], class_names)
    findings = [dataclasses.replace(finding, fixable=False) for finding in in_order(findings)]  # there is no repair
    return ClassReport(findings, statistics, class_names, parts, facts, pairs)


def _counts(part: ClassPart, facts: Mapping[str, ImageFacts]) -> list[ClassStatistics]:
    """The counts of a part, and of what is held out of it."""
    counts, held_out = ClassStatistics(part.name), ClassStatistics("val", held_out=True)
    for image in part.images:
        (held_out if image.path in part.held_out else counts).add(image, facts[image.path])
    return [counts, held_out] if part.held_out else [counts]


def _reading_findings(part: ClassPart) -> Iterator[Finding]:
    """What the reading met."""
    for error in part.errors:
        if isinstance(error, UnusableFile):
            reason = str(error).removeprefix(f"{error.file}: ")
            yield Finding(ERROR, error.code, part.name, error.file, reason, "write the file again")
        elif not part.faults:  # otherwise they are what left no usable image
            yield Finding(ERROR, "data-set-unusable", part.name, "", str(error), "mend the config or the folder")
    for fault, skipped in part.faults:
        severity = WARNING if skipped else ERROR
        yield Finding(severity, fault.code, part.name, fault.file, fault.reason, _REMEDIES[fault.code])
    for builder in part.builders:
        for remark in builder.remarks:
            remedy = "nothing: each image counts once"
            yield Finding(WARNING, remark.code, part.name, remark.file, remark.reason, remedy)
    if part.classes_differ:
        remedy = "give all data sets the same classes, or map them by class_names=[...] and rename={...}"
        yield Finding(ERROR, "classes-differ", part.name, "", part.classes_differ, remedy)


def _image_findings(part: ClassPart, facts: Mapping[str, ImageFacts]) -> Iterator[Finding]:
    for path in dict.fromkeys(image.path for image in part.images):
        finding = image_finding(facts[path], part.name, skipped=part.skips_broken_images)
        if finding is not None:
            yield dataclasses.replace(finding, remedy=_REMEDIES[finding.code])


def _duplicate_findings(
    pairs: Sequence[Pair[ClassedImage]], parts: Sequence[ClassPart], facts: Mapping[str, ImageFacts]
) -> Iterator[Finding]:
    """The same picture twice; within a split, under two classes it is another fault than under one."""
    for pair in pairs:
        kept, again = pair.kept.image, pair.again.image
        if pair.is_leak or kept.name == again.name:
            yield from duplicate_findings([pair], parts, facts, remedy_within="remove one")
        else:
            yield Finding(
                WARNING, "image-in-two-classes", pair.again.part, again.path,
                f"is {again.name!r} here and {kept.name!r} as {kept.path}",
                "decide which it is, and remove the other", kept.path,
            )  # fmt: skip
