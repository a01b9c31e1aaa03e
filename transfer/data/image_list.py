"""A text file of "path label" lines; and Places365, which comes as such lists.

Source of the layout: Zhou et al. 2017, Places: A 10 Million Image Database for Scene Recognition (TPAMI), and its
archives of small images (256x256): data_256/ for training, val_256/, places365_train_standard.txt, places365_val.txt,
categories_places365.txt. BoT (arXiv 1812.01187, section 6, table 7) trains on it.

What a label says is never guessed: a number is a position in `categories`, and without these it is itself the class's
name ("7"). It is not taken for a position in `class_names`, whose order is that of a checkpoint. Paths cannot lead out
of the root, but for symbolic links that lie in it.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from transfer.data.class_folder import class_root
from transfer.data.class_names import check_class_names, nearest_name
from transfer.data.classification_dataset import ClassBuilder, LabelledImages
from transfer.data.strangers import short, whole_number
from transfer.data.table_builder import Fault, UnusableFile
from transfer.types import UserError

_LOGGER = logging.getLogger(__name__)
_NUMBER = re.compile(r"[+-]?[0-9]+")
_DRIVE = re.compile(r"[A-Za-z]:")
_LOOKED_AT = 10
"""Files of a list that are looked for when it is read, spread over it: a wrong root is noticed at once."""

_PLACES_TRAIN = (("data_256", "data_256_standard"), "places365_train_standard.txt")
_PLACES_VAL = (("val_256",), "places365_val.txt")
_PLACES = {"train": _PLACES_TRAIN, "val": _PLACES_VAL}
_PLACES_LISTS = "filelist_places365-standard"
_PLACES_CATEGORIES = "categories_places365.txt"


class ImageListDataset(LabelledImages):
    """Images that a text file names, each with its class."""

    def __init__(
        self,
        root: str | Path,
        list_file: str | Path,
        *,
        folder: str | Path = "",
        categories: Sequence[str] | str | Path | None = None,
        class_names: Sequence[str] | None = None,
        rename: Mapping[str, str | None] | None = None,
        on_broken: str = "stop",
    ) -> None:
        """Read the list; images are not opened, and only a few are looked for.

        Args:
            root: the folder that folder, list_file and a file of categories are relative to.
            list_file: a path, then white space and the label on each line; of lines with a tab, the label is what
                follows the last one. A leading slash means below the folder of the images. Empty lines and lines that
                begin with "#" are left out.
            folder: that the paths are relative to, below root.
            categories: what the numbers 0, 1, ... stand for: names, or a file with a name, or a name and its number, on
                each line. None: labels are names.
            class_names: order of the labels; None: that of `categories`, or the names found, sorted (numbers by value).
            rename: old name -> new name, which several may share; None leaves the class out.
            on_broken: "stop" raises one error for all lines that cannot be used; "skip" leaves them out, listed in
                `skipped`.

        Raises:
            UserError: missing files, lines that cannot be used, names outside class_names, fewer than two classes.
        """
        base = class_root(Path(root))
        top = class_root(base, folder)
        names = read_categories(base / categories) if isinstance(categories, (str, Path)) else categories
        names = _checked_categories(names)
        path = base / list_file
        builder = ClassBuilder(str(path), on_broken=on_broken, order=names)
        _read_list(builder, path, names)
        if names is None:
            builder.order = _in_order(set(builder.names))
        paths, labels, known = builder.labelled(class_names, rename)
        _look_for_some(top, paths, path)
        super().__init__(top, paths, labels, known, skipped=builder.problems)


class Places365Dataset(ImageListDataset):
    """A split of Places365-Standard, small images (256x256); its classes are called "airfield", "arena/hockey"."""

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        *,
        class_names: Sequence[str] | None = None,
        rename: Mapping[str, str | None] | None = None,
        on_broken: str = "stop",
    ) -> None:
        """Read the split's list; arguments and errors beyond these as in `ImageListDataset`.

        Args:
            root: holds data_256/ and val_256/, and beside them, or in filelist_places365-standard/, the lists.
            split: "train" or "val"; the labels of the test images were not published.
            class_names: order of the labels; None: that of categories_places365.txt.
            rename: old name -> new name, which several may share; None leaves the class out.
            on_broken: "stop" or "skip", for lines that cannot be used.
        """
        if split not in _PLACES:
            raise UserError(f"split is {split!r}: Places365 has {', '.join(_PLACES)}")
        base = class_root(Path(root))
        folders, list_name = _PLACES[split]
        folder = next((name for name in folders if (base / name).is_dir()), None)
        lists = base / _PLACES_LISTS if (base / _PLACES_LISTS).is_dir() else base
        missing = [] if folder else [f"{folders[0]}/"]
        missing += [name for name in (list_name, _PLACES_CATEGORIES) if not (lists / name).is_file()]
        if folder is None or missing:
            raise UserError(
                f"root is {str(root)!r}: Places365 ({split}) needs {', '.join(missing)} there; the lists may be in "
                f"{_PLACES_LISTS}/"
            )
        # "/a/airfield": the letter is the first of the name
        names = [re.sub(r"^/?[a-z]/", "", name) for name in read_categories(lists / _PLACES_CATEGORIES)]
        super().__init__(
            base,
            lists / list_name,
            folder=folder,
            categories=names,
            class_names=class_names,
            rename=rename,
            on_broken=on_broken,
        )


def read_categories(path: Path) -> list[str]:
    """The names of the classes 0, 1, ..., from lines of a name, or of a name and its number.

    Raises:
        UserError: it cannot be read, or its numbers are not 0, 1, ... each once.
    """
    lines = [line.strip() for _, line in _lines(path, "categories")]
    if not lines:
        raise UserError(f"{path}: names no class")
    pairs = [line.rsplit(None, 1) for line in lines]
    if not all(len(pair) == 2 and _NUMBER.fullmatch(pair[1]) for pair in pairs):
        return lines
    numbered = {whole_number(number): name for name, number in pairs}
    if set(numbered) != set(range(len(pairs))):
        missing = [str(number) for number in range(len(pairs)) if number not in numbered]
        raise UserError(
            f"{path}: the numbers of its {len(pairs)} classes must be 0 to {len(pairs) - 1}, each once; missing: "
            f"{', '.join(missing[:_LOOKED_AT])}"
        )
    return [numbered[number] for number in range(len(pairs))]


def _lines(path: Path, argument: str) -> Iterator[tuple[int, str]]:
    """Number and text of the lines that hold something."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip() and not line.startswith("#"):
                    yield number, line
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UnusableFile(
            f"{argument} is {str(path)!r}: cannot be read: {reason}", code="list-unusable", file=str(path)
        ) from None


def _checked_categories(names: Sequence[str] | None) -> tuple[str, ...] | None:
    try:
        checked = check_class_names(names)
    except UserError as error:
        raise UserError(str(error).replace("class_names", "categories")) from None
    # "3" as a name at another place than 3 would make the label 3 mean two things
    places = enumerate(checked or ())
    wrong = [name for place, name in places if _NUMBER.fullmatch(name) and whole_number(name) != place]
    if wrong:
        raise UserError(
            f"categories holds {short(wrong[0])} at another place than {wrong[0]:.40}: such a label would mean two "
            "classes; give such classes other names"
        )
    return checked


def _in_order(names: set[str]) -> list[str]:
    """Sorted; numbers by their value."""
    if all(_NUMBER.fullmatch(name) for name in names):
        return sorted(names, key=int)
    return sorted(names)


def _read_list(builder: ClassBuilder, path: Path, categories: Sequence[str] | None) -> None:
    """All lines of the list into the builder; those that cannot be used are faults."""
    known = None if categories is None else set(categories)
    taken: dict[str, str] = {}
    entries = 0
    for number, line in _lines(path, "list_file"):
        entries += 1
        entry, _, label = line.strip().rpartition("\t") if "\t" in line.strip() else _split(line)
        entry, label = entry.strip(), label.strip()
        if not entry:
            problem: str | None = f"is {line.strip()!r:.120}: write a path and its label"
        else:
            entry, problem = _below_root(entry)
            name, wrong = _class_of(label, categories, known)
            problem = problem or wrong
            if problem is None and taken.get(entry, name) != name:
                problem = f"{entry!r:.120} is {name!r} here and {taken[entry]!r} before"
        if problem is not None:
            builder.fault("list-line-faulty", str(path), f"line {number}: {problem}", line=f"line {number}: {problem}")
        elif entry not in taken:
            taken[entry] = name
            builder.take(entry, name)
    repeated = entries - len(builder.problems) - len(taken)
    if repeated:
        reason = f"{repeated} of its {entries} lines are repeated; each image counts once"
        builder.remarks.append(Fault("list-entry-repeated", str(path), reason))
        _LOGGER.warning("%s: %s", path, reason)
    if not entries:
        raise UnusableFile(f"{path}: the list names no images", code="list-unusable", file=str(path))


def _split(line: str) -> tuple[str, str, str]:
    """Path, white space, label; the path is empty where there is one word only."""
    words = line.rsplit(None, 1)
    return (words[0], " ", words[1]) if len(words) == 2 else ("", "", words[0])


def _below_root(entry: str) -> tuple[str, str | None]:
    """The path below the root, and what is wrong with it."""
    path = entry.replace("\\", "/")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts or _DRIVE.match(path) or "\0" in path or not parts:
        return entry, f"{entry!r:.120} may lead out of root: write a path below it, without '..' or a drive"
    return "/".join(parts), None


def _class_of(label: str, categories: Sequence[str] | None, known: set[str] | None) -> tuple[str, str | None]:
    """The class's name, and what is wrong with the label."""
    number = whole_number(label) if _NUMBER.fullmatch(label) else None
    if number is None and _NUMBER.fullmatch(label):
        return label, f"label {label:.40} has {len(label)} digits: it is the number of no class"
    if number is not None and number < 0:
        return label, f"label {label}: numbers of classes begin at 0"
    if categories is None:
        return (label if number is None else str(number)), None
    if number is not None:
        if number >= len(categories):
            return label, f"label {label}: categories has {len(categories)} classes, 0 to {len(categories) - 1}"
        return categories[number], None
    if known is not None and label not in known:
        nearest = nearest_name(label, categories)
        hint = f" (nearest: {nearest!r})" if nearest else ""
        return label, f"label {label!r:.120} is not in categories{hint}"
    return label, None


def _look_for_some(top: Path, paths: Sequence[str], list_file: Path) -> None:
    """Raises: UserError where none of a few images is there."""
    step = max(1, len(paths) // _LOOKED_AT)
    looked_for = [os.path.join(top, path) for path in paths[::step][:_LOOKED_AT]]
    if not any(os.path.lexists(path) for path in looked_for):
        raise UserError(
            f"{list_file}: none of {len(looked_for)} of its images that were looked for is there, such as "
            f"{looked_for[0]}: set root, or folder, to what the list's paths are relative to"
        )
