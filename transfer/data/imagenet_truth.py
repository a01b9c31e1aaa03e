"""The classes of ILSVRC2012's validation images where these lie together: the files that tell, and what they count by.

Files that are read, told by their content, not their name:

- Kaggle's LOC_val_solution.csv: `ImageId,PredictionString`, the second beginning with the wnid of the image;
- lines of an image's name and its class, a wnid or a number (val.txt): numbers count the sorted wnids, from 0, so all
  wnids must be known: from LOC_synset_mapping.txt, or the folders of the training images;
- one wnid on each line, for the images 1, 2, ...;
- one number on each line (the devkit's ILSVRC2012_validation_ground_truth.txt), for the images 1, 2, ...: these count
  the devkit's own order, from 1, which is not sorted. meta.mat beside it tells it, or synsets.txt with a wnid a line in
  that order. A sorted synsets.txt is refused: it would give nearly every image a wrong class, in silence.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from transfer.data.strangers import whole_number
from transfer.types import UserError

_LOGGER = logging.getLogger(__name__)

WNID = re.compile(r"n\d{8}")
_IMAGE = re.compile(r"ILSVRC2012_val_(\d{8})")
_KAGGLE = "LOC_val_solution.csv"
_DEVKIT = "ILSVRC2012_validation_ground_truth.txt"
_LIST = "val.txt"
_MAPPING = "LOC_synset_mapping.txt"
_META, _SYNSETS = "meta.mat", "synsets.txt"
_DEVKIT_FOLDERS = ("", "data", "ILSVRC2012_devkit_t12/data")
_SHOWN = 10


@dataclass(frozen=True)
class Truth:
    """What a truth file says."""

    path: Path
    by_stem: Mapping[str, str]
    """Name of an image without ending -> wnid."""
    by_number: Sequence[str] = ()
    """Wnids of the images 1, 2, ..., instead."""

    def wnid_of(self, name: str) -> str | None:
        """The class of an image, None where the file does not tell; `name` is that of its file."""
        stem = name.rpartition(".")[0] or name
        if not self.by_number:
            return self.by_stem.get(stem)
        match = _IMAGE.fullmatch(stem)
        number = int(match.group(1)) if match else 0
        return self.by_number[number - 1] if 1 <= number <= len(self.by_number) else None

    def warn_of_missing(self, found: int) -> None:
        """Say in the log that some of its images are not there: figures of a part do not compare with others'."""
        total = len(self.by_number) or len(self.by_stem)
        if found < total:
            _LOGGER.warning("%s: %d of its %d images are missing", self.path, total - found, total)


def find_truth(root: Path, given: str | Path | None, wnids: Callable[[], Sequence[str]]) -> Truth:
    """Read the file that tells the classes.

    Args:
        root: of the data.
        given: the file, relative to root; None: the first of those that are usual.
        wnids: gives all wnids, sorted, for files that count by them; may raise a UserError.

    Raises:
        UserError: no such file, or none that can be used.
    """
    usual = [root / _KAGGLE, root / _LIST, *(root / folder / _DEVKIT for folder in _DEVKIT_FOLDERS)]
    path = next((path for path in usual if path.is_file()), None) if given is None else root / given
    if path is None:
        raise UserError(
            f"{root}: the validation images lie together, and no file tells their classes. Any of these in root would "
            f"do: {_KAGGLE} (Kaggle); {_DEVKIT} with {_META} or {_SYNSETS} (the devkit's data folder); {_LIST} (lines "
            "of an image and its class); or give truth_file=; or sort the images into val/<wnid>/"
        )
    lines = _lines(path)
    if lines[0].replace(" ", "").lower() == "imageid,predictionstring":
        return Truth(path, _from_pairs(path, [line.replace(",", " ", 1).split()[:2] for line in lines[1:]], wnids))
    words = [line.split() for line in lines]
    if all(len(each) == 1 for each in words):
        return Truth(path, {}, _from_column(path, [each[0] for each in words], root))
    return Truth(path, _from_pairs(path, words, wnids))


def wnids_by_place(root: Path, folders: Sequence[str]) -> list[str]:
    """All wnids, sorted.

    Args:
        root: of the data.
        folders: of the training images.

    Raises:
        UserError: nothing tells them.
    """
    wnids = sorted(read_readable_names(root)) or sorted(folders)
    if not wnids:
        raise UserError(
            f"{root}: the truth file counts the classes by number; what tells their order is missing: {_MAPPING}, or "
            "the folders of train/"
        )
    return wnids


def read_readable_names(root: Path) -> dict[str, str]:
    """Wnid -> what people call the class, from LOC_synset_mapping.txt; nothing where it is not there.

    Raises:
        UserError: lines that do not begin with a wnid.
    """
    path = root / _MAPPING
    if not path.is_file():
        return {}
    names = {}
    for line in _lines(path):
        wnid, _, name = line.partition(" ")
        if not WNID.fullmatch(wnid):
            raise UserError(f"{path}: {line!r:.80} does not begin with a wnid such as n01440764")
        names[wnid] = name.strip() or wnid
    return names


def _lines(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    lines = [line for line in lines if line]
    if not lines:
        raise UserError(f"{path}: holds nothing")
    return lines


def _from_pairs(path: Path, pairs: Sequence[Sequence[str]], wnids: Callable[[], Sequence[str]]) -> dict[str, str]:
    """Name without ending -> wnid, of lines of a name and a class."""
    known: Sequence[str] | None = None
    found: dict[str, str] = {}
    problems = []
    for pair in pairs:
        if len(pair) != 2:
            problems.append(f"{' '.join(pair)!r:.80} is no image and its class")
            continue
        name, label = pair[0].replace("\\", "/").rpartition("/")[2], pair[1]
        if label.isdecimal():
            known = wnids() if known is None else known
            number = whole_number(label)
            if number is None or number >= len(known):
                problems.append(f"{name:.80} {label:.40}: there are {len(known)} classes, which count from 0")
                continue
            label = known[number]
        elif not WNID.fullmatch(label):
            problems.append(f"{name} {label!r:.40}: neither a wnid nor a number")
            continue
        stem = name.rpartition(".")[0] or name
        if found.setdefault(stem, label) != label:
            problems.append(f"{name} is {found[stem]} and {label}")
    if problems:
        raise UserError(_told(path, problems))
    return found


def _from_column(path: Path, column: Sequence[str], root: Path) -> list[str]:
    """Wnids of the images 1, 2, ..., of a file with one wnid or number a line."""
    if all(WNID.fullmatch(each) for each in column):
        return list(column)
    wrong = [
        f"line {number}: {each!r:.40} is no number" for number, each in enumerate(column, 1) if not each.isdecimal()
    ]
    if wrong:
        raise UserError(_told(path, wrong))
    synsets = _devkit_order(path, root)
    wrong = [
        f"line {number}: class {each:.40} is not in the devkit's order"
        for number, each in enumerate(column, 1)
        if whole_number(each) not in synsets
    ]
    if wrong:
        raise UserError(_told(path, wrong))
    return [synsets[int(each)] for each in column]


def _devkit_order(path: Path, root: Path) -> dict[int, str]:
    """The devkit's number of a class, from 1 -> wnid."""
    places = [path.parent, *(root / folder for folder in _DEVKIT_FOLDERS)]
    meta = next((place / _META for place in places if (place / _META).is_file()), None)
    if meta is not None:
        return _read_meta(meta)
    synsets = next((place / _SYNSETS for place in places if (place / _SYNSETS).is_file()), None)
    if synsets is None:
        raise UserError(
            f"{path}: it counts the classes in the devkit's own order; what tells that order is missing: the devkit's "
            f"{_META} beside it, or {_SYNSETS} with the wnid of class 1, 2, ... on each line"
        )
    wnids = [line.split()[0] for line in _lines(synsets)]
    wrong = [f"line {number}: {wnid!r:.40}" for number, wnid in enumerate(wnids, 1) if not WNID.fullmatch(wnid)]
    if wrong:
        raise UserError(_told(synsets, [f"{line} is no wnid" for line in wrong]))
    if wnids == sorted(wnids) and len(wnids) > 2:
        raise UserError(
            f"{synsets}: its wnids are sorted, which is not the devkit's order, by which {path.name} counts: put the "
            f"devkit's {_META} there instead"
        )
    return dict(enumerate(wnids, 1))


def _read_meta(path: Path) -> dict[int, str]:
    """The same from the devkit's meta.mat, a MATLAB file of records with ILSVRC2012_ID and WNID."""
    from scipy.io import loadmat

    try:
        synsets = loadmat(path, squeeze_me=True)["synsets"]
        return {int(number): str(wnid) for number, wnid in zip(synsets["ILSVRC2012_ID"], synsets["WNID"])}
    except Exception as error:  # a foreign file: scipy raises of many kinds
        raise UserError(f"{path}: is not the devkit's: {type(error).__name__}: {error}") from None


def _told(path: Path, problems: Sequence[str]) -> str:
    shown = "\n".join(f"  {problem}" for problem in problems[:_SHOWN])
    more = f"\n  and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    return f"{path}: {len(problems)} lines that cannot be used:\n{shown}{more}"
