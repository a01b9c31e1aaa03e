"""What a check found: one `Finding` for each fault, under a code that stays the same between versions.

Three severities. An error stops training, or makes its figures wrong (the same photograph in train and test). A warning
costs accuracy or is likely a slip: training goes on. A note is worth knowing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

ERROR, WARNING, NOTE = "error", "warning", "note"
SEVERITIES = (ERROR, WARNING, NOTE)

CODES: dict[str, str] = {
    "data-set-unusable": "a data set of the config cannot be opened",
    "json-unreadable": "no COCO instances file",
    "json-entry-faulty": "entries of the JSON that cannot be used",
    "xml-unreadable": "annotation files that cannot be parsed",
    "object-faulty": "annotation files with objects that cannot be used",
    "list-unusable": "a split list that cannot be used",
    "list-line-faulty": "lines of a list that cannot be used",
    "folder-unreadable": "folders that cannot be listed",
    "class-empty": "folders of classes without images",
    "class-missing": "images whose class no file tells",
    "annotation-missing": "a split list names images without annotation file",
    "image-missing": "annotations whose image is not there",
    "mask-missing": "images whose mask is not there",
    "annotation-without-image": "annotations that belong to no image",
    "image-unreadable": "files that are no image of a known kind",
    "image-truncated": "images that are cut short or damaged",
    "image-too-large": "images above the size limit",
    "mask-unreadable": "masks that cannot be read as classes",
    "mask-value-unknown": "masks with values or colours that stand for no class",
    "mask-size-differs": "masks of another size than their image",
    "entry-unusable": "entries that the data set leaves out or stops at",
    "size-differs": "the stated size is not the image's",
    "size-swapped": "the stated width and height are swapped",
    "image-leak": "the same picture in two splits",
    "class-unknown": "classes that training does not know",
    "classes-differ": "the splits' classes differ",
    "no-boxes": "a split without any box",
    "no-labelled-pixels": "a split without a single pixel of a class",
    "image-in-two-classes": "the same picture under two classes in a split",
    "image-duplicate": "the same picture twice in a split",
    "image-without-annotation": "images that no annotation names",
    "list-entry-repeated": "repeated entries of a split list",
    "class-misspelt": "rare class names that look like a slip",
    "class-without-boxes": "classes without boxes",
    "class-without-pixels": "classes without pixels",
    "class-without-images": "classes without images",
    "image-tiny": "images that are far smaller than the others",
    "mask-empty": "masks of which every pixel is ignored",
    "rename-unused": "rename= names classes that do not occur",
    "size-unknown": "no size stated",
    "rotation-unclear": "EXIF turns the image, and nothing tells whether it was annotated before or after",
    "box-without-area": "boxes that span no area",
    "box-outside": "boxes wholly outside their image",
    "box-partly-outside": "boxes partly outside their image",
    "box-tiny": "boxes with a side below 2 pixels",
    "box-duplicate": "the same box and class twice in an image",
    "box-past-edge": "boxes that pass the edge by one pixel at most",
    "class-imbalance": "classes with far more images than others",
    "image-huge": "images of so many pixels that decoding them is slow",
    "image-cmyk": "images in the colours of printing",
    "size-of-stored-pixels": "the stated size is that before EXIF rotation",
    "annotation-not-listed": "annotations that no split of this config lists",
}
"""Code -> what it means, in the order in which a report shows them within a severity."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault of one file."""

    severity: str
    code: str
    part: str
    """Of the config's data: "train", "val", "test"; joined by ", " where it is in several."""
    file: str
    """Where to look; empty where no single file is at fault."""
    message: str
    """What is wrong, with its value; without the file's name."""
    remedy: str
    other_file: str | None = None
    """The second file of a pair."""
    fixable: bool = False
    """A repair (repair.py) ends it, by mending the entry or by leaving its image out."""

    def __post_init__(self) -> None:
        assert self.severity in SEVERITIES, self.severity
        assert self.code in CODES, self.code


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """The findings by severity, code, and then as they were found."""
    codes = list(CODES)
    return sorted(findings, key=lambda finding: (SEVERITIES.index(finding.severity), codes.index(finding.code)))


def severities(findings: Sequence[Finding]) -> dict[str, int]:
    """How many of each severity; 0 where none."""
    counted = Counter(finding.severity for finding in findings)
    return {severity: counted[severity] for severity in SEVERITIES}


def counted(number: int, thing: str, plural: str | None = None) -> str:
    """(2, "box", "boxes") -> "2 boxes"."""
    return f"{number:,} {thing if number == 1 else plural or thing + 's'}"
