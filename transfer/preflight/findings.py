"""What a preflight found and measured: findings under codes that stay the same between versions, and figures.

The severities are those of `transfer.checking.findings`. An error would spoil the run and stops it; a warning is likely
a slip, or costs accuracy; a note says what was not checked, and why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from transfer.checking.findings import ERROR, NOTE, SEVERITIES, WARNING

__all__ = ["CODES", "ERROR", "NOTE", "SEVERITIES", "WARNING", "Finding", "Outcome", "in_order", "severities"]

CODES: dict[str, str] = {
    "labels-off-by-one": "labels count from 1 instead of 0",
    "label-out-of-range": "labels that stand for no class",
    "boxes-normalised": "boxes in shares of the image instead of pixels",
    "box-format": "boxes in another format than (left, top, right, bottom)",
    "boxes-outside": "boxes that do not lie in their image",
    "no-objects": "nothing to learn from",
    "class-without-objects": "classes that never occur",
    "boxes-lost": "the augmentation drops most boxes",
    "images-scaled": "pixels that are not 0 to 255",
    "images-uniform": "images without any contrast",
    "input-unusual": "what the network is fed is far from zero mean and unit spread",
    "normalisation-wrong": "mean and std are not those that the weights were trained with",
    "step-fails": "a training step cannot be taken",
    "channels-differ": "maps with other channels than the backbone declares",
    "stride-differs": "maps of another stride than declared",
    "map-not-finite": "maps with values that are not numbers",
    "map-without-information": "maps that are the same everywhere",
    "map-out-of-scale": "maps far from unit scale",
    "layer-dead": "layers whose channels are hardly ever above zero",
    "parameter-not-finite": "parameters that are not numbers",
    "parameter-out-of-scale": "weights far from any usual scale",
    "loss-not-finite": "a first loss that is not a number",
    "loss-unexpected": "a first loss that is not that of an untrained head",
    "loss-without-gradient": "loss terms that nothing is learnt from",
    "loss-drowns-others": "a loss term more than 100 times all others together",
    "loss-drowned": "a loss term less than a hundredth of another",
    "gradient-missing": "parameters that no loss depends on",
    "gradient-zero": "parameters whose gradient stays zero",
    "lr-too-high": "the learning rate destroys the weights",
    "lr-high": "the learning rate is at the upper end",
    "anchors-do-not-fit": "objects that no anchor fits",
    "receptive-field-small": "objects larger than what a cell sees",
    "not-learnt": "images that were not learnt by heart",
    "not-checked": "what could not be checked",
}
"""Code -> what it means, in the order in which a report shows them within a severity."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault."""

    severity: str
    code: str
    message: str
    """What is wrong, with its value."""
    remedy: str

    def __post_init__(self) -> None:
        assert self.severity in SEVERITIES, self.severity
        assert self.code in CODES, self.code


@dataclass(slots=True)
class Outcome:
    """What one check gives."""

    name: str
    findings: list[Finding] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    """What was measured, in plain types."""
    lines: list[str] = field(default_factory=list)
    """The same for people, where it is worth a line."""

    def error(self, code: str, message: str, remedy: str) -> None:
        """Add an error."""
        self.findings.append(Finding(ERROR, code, message, remedy))

    def warning(self, code: str, message: str, remedy: str) -> None:
        """Add a warning."""
        self.findings.append(Finding(WARNING, code, message, remedy))

    def note(self, code: str, message: str, remedy: str) -> None:
        """Add a note."""
        self.findings.append(Finding(NOTE, code, message, remedy))

    @property
    def is_wrong(self) -> bool:
        """An error is among the findings."""
        return any(finding.severity == ERROR for finding in self.findings)


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """The findings by severity, code, and then as they were found."""
    codes = list(CODES)
    return sorted(findings, key=lambda finding: (SEVERITIES.index(finding.severity), codes.index(finding.code)))


def severities(findings: Sequence[Finding]) -> dict[str, int]:
    """How many of each severity; 0 where none."""
    counted = Counter(finding.severity for finding in findings)
    return {severity: counted[severity] for severity in SEVERITIES}
