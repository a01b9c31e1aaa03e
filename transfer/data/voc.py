"""PASCAL VOC: a devkit with split lists, and folders with the XML beside the images.

Source: the VOC 2007 and 2012 development kits; BoT (arXiv 1812.01187, section 6.1) trains on 2007+2012 trainval and
tests on 2007 test. Difficult objects are kept with their flag: what training makes of them is the detector's choice.
Images without objects stay, as negatives.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from transfer.data.index_cache import Index, cached_index
from transfer.data.listing import ImageFolder, find_name
from transfer.data.strangers import read_bounded
from transfer.data.table import TableDataset
from transfer.data.table_builder import Fault, Origin, TableBuilder, UnusableFile
from transfer.data.voc_xml import MAX_XML_BYTES, BadObject, BadXML, parse_voc_xml
from transfer.types import UserError

VOC_CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
"""The challenge's twenty classes; sorted, so they are also the order found in the full data."""


class VOCDataset(TableDataset):
    """Images of one or several splits of a devkit, as one data set."""

    def __init__(
        self,
        root: str | Path,
        splits: Sequence[str] | str,
        *,
        class_names: Sequence[str] | None = None,
        rename: Mapping[str, str | None] | None = None,
        on_broken: str = "stop",
    ) -> None:
        """Read the split lists and their XML files; image files are looked up but not opened.

        Args:
            root: the folder that holds VOCdevkit, or VOC2007 and the like, or is such a year's folder itself.
            splits: "2007_trainval", ["2007_trainval", "2012_trainval"]; the year may be left out where there is one.
            class_names: order of the labels; None: the names found in these splits, sorted.
            rename: old name -> new name; None drops the class's boxes.
            on_broken: "stop" raises one error for all unusable files; "skip" leaves them out, listed in `skipped`.

        Raises:
            UserError: missing folders or splits, unusable files, names outside class_names.
        """
        root = Path(root)
        wanted = [splits] if isinstance(splits, str) else list(splits)
        if not wanted:
            raise UserError('splits is empty: name one, such as "2007_trainval"')
        source = f"{root} ({' + '.join(map(str, wanted))})"
        lists = [_find_split(root, split) for split in wanted]

        def read() -> Index:
            builder = TableBuilder(source, on_broken, class_names, rename)
            _read_splits(builder, root, lists)
            return Index.of(builder)

        options = {"format": "voc", "lists": [str(each.path) for each in lists], "on_broken": on_broken}
        index = cached_index(root, options, read, class_names=class_names, rename=rename)
        super().__init__(index.table, index.class_names, skipped=index.skipped, counts=index.counts)


class XMLFolderDataset(TableDataset):
    """VOC's XML without split lists: beside its image, or in Annotations/ with the images in JPEGImages/."""

    def __init__(
        self,
        root: str | Path,
        *,
        class_names: Sequence[str] | None = None,
        rename: Mapping[str, str | None] | None = None,
        on_broken: str = "stop",
    ) -> None:
        """Read every XML file of the folder, in the order of their names; images without XML are not part of it.

        Args:
            root: holds the XML files and images, or Annotations/ and JPEGImages/ (or images/).
            class_names: order of the labels; None: the names found, sorted.
            rename: old name -> new name; None drops the class's boxes.
            on_broken: "stop" raises one error for all unusable files; "skip" leaves them out, listed in `skipped`.

        Raises:
            UserError: no XML files, unusable files, names outside class_names.
        """
        root = Path(root)
        annotations, images = _xml_folders(root)

        def read() -> Index:
            builder = TableBuilder(str(root), on_broken, class_names, rename)
            _read_folder(builder, root, annotations, images)
            return Index.of(builder)

        options = {"format": "xml", "folders": [str(annotations), str(images)], "on_broken": on_broken}
        index = cached_index(root, options, read, class_names=class_names, rename=rename)
        super().__init__(index.table, index.class_names, skipped=index.skipped, counts=index.counts)


@dataclass(slots=True, frozen=True)
class _SplitList:
    """One split's list of images in one year's folder."""

    year: str
    folder: Path
    path: Path


def _years(root: Path) -> dict[str, Path]:
    """The folders that hold a year's data, by year; the year is "" where the root is such a folder and does not say."""
    if (root / "ImageSets" / "Main").is_dir():
        match = re.fullmatch(r"VOC(\d{4})", root.resolve().name)
        return {match.group(1) if match else "": root}
    devkit = root / "VOCdevkit" if (root / "VOCdevkit").is_dir() else root
    if not devkit.is_dir():
        raise UserError(f"root is {str(root)!r}: no such folder")
    return {
        folder.name[3:]: folder
        for folder in sorted(devkit.iterdir())
        if re.fullmatch(r"VOC\d{4}", folder.name) and folder.is_dir()
    }


def _find_split(root: Path, split: str) -> _SplitList:
    """Where a split such as "2007_test" or "train" is listed."""
    years = _years(root)
    if not years:
        if (root / "data.yaml").is_file():
            remedy = "its data.yaml says YOLO: take configs/yolo_folder_frcnn_lite0.py or its like"
        else:
            remedy = "for XML files without split lists take configs/xml_folder_frcnn_lite0.py (XMLFolderDataset)"
        raise UserError(f"{root}: no VOC data: expected VOCdevkit/VOC2007, VOC2007 or ImageSets/Main in it; {remedy}")
    match = re.fullmatch(r"(\d{4})_(.+)", split)
    year, name = match.groups() if match else ("", split)
    # a flat folder may have lists that look as if they named a year
    if "" in years and _list_path(years[""], split).is_file():
        year, name = "", split
    if not year and "" not in years:
        if len(years) > 1:
            raise UserError(
                f'split {split!r} names no year and {root} has {", ".join(years)}: write "{max(years)}_{name}"'
            )
        year = next(iter(years))
    if year not in years:
        raise UserError(f"split {split!r}: {root} has no year {year}. Splits that exist: {_existing(years)}")
    path = _list_path(years[year], name)
    if not path.is_file():
        raise UserError(f"split {split!r}: no file {path}. Splits that exist: {_existing(years)}")
    return _SplitList(year, years[year], path)


def _list_path(folder: Path, name: str) -> Path:
    if not re.fullmatch(r"[\w.\- ]+", name):
        raise UserError(f"split {name!r}: letters, digits, '_', '-' and '.' only; it names a file in ImageSets/Main")
    return folder / "ImageSets" / "Main" / f"{name}.txt"


def _existing(years: Mapping[str, Path]) -> str:
    """Split names as the user would write them; the kit's per-class lists (dog_train) are not shown."""
    names = []
    for year, folder in years.items():
        stems = {path.stem for path in (folder / "ImageSets" / "Main").glob("*.txt")}
        plain = sorted(stem for stem in stems if not re.fullmatch(r".+_(train|val|trainval|test)", stem))
        names += [f"{year}_{stem}" if year else stem for stem in plain or sorted(stems)]
    return ", ".join(names) or "none"


def _read_splits(builder: TableBuilder, root: Path, lists: Sequence[_SplitList]) -> None:
    """All images of all lists, each once."""
    entries: dict[tuple[str, str], _SplitList] = {}
    repeated = 0
    listings: dict[str, ImageFolder] = {}
    annotations: dict[str, set[str]] = {}
    for split in lists:
        if split.year not in listings:
            for part in ("Annotations", "JPEGImages"):
                if not (split.folder / part).is_dir():
                    raise UserError(f"{split.folder}: has no folder {part}, where VOC keeps what its split lists name")
            builder.evidence.look("xml", split.folder / "Annotations")
            builder.evidence.look("names", split.folder / "JPEGImages")
            listings[split.year] = ImageFolder(split.folder / "JPEGImages")
            names = os.listdir(split.folder / "Annotations")
            annotations[split.year] = {os.path.splitext(name)[0] for name in names if name.endswith(".xml")}
        builder.evidence.look("content", split.path)
        stems = _list_entries(split.path, annotations[split.year])
        again = sum((split.year, stem) in entries for stem in stems) + len(stems) - len(set(stems))
        if again:
            reason = f"{again} of its {len(stems)} entries are repeated, in it or from a list before it"
            builder.remarks.append(Fault("list-entry-repeated", str(split.path), reason))
        repeated += again
        entries.update({(split.year, stem): split for stem in stems})
    if repeated:
        line = f"{builder.source}: {repeated} entries of the split lists are repeated; each image counts once"
        builder.tell(logging.WARNING, line)
    for year, listing in listings.items():
        folder = listing.folder.parent
        files = tuple(dict.fromkeys(split.path for split in lists if split.year == year))
        builder.origins.append(Origin("voc", root, folder / "Annotations", listing.folder, files))
    shared = len({stem for _, stem in entries}) < len(entries)
    for (year, stem), split in entries.items():
        known = find_name(annotations[year], stem)
        if known is None:
            reason = f"lists {stem!r}, but Annotations has no {stem}.xml"
            builder.fault("annotation-missing", str(split.path), reason, image=listings[year].find(stem))
            continue
        path = split.folder / "Annotations" / f"{known}.xml"
        _read_xml(builder, path, listings[year], image_id=f"{year}_{stem}" if shared else stem)


def _list_entries(path: Path, known: set[str]) -> list[str]:
    """The image names of a split file; in a per-class list ("000012 -1") those whose flag is not -1."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UnusableFile(
            f"{path}: cannot be read as a split list: {error}", code="list-unusable", file=str(path)
        ) from None
    stems = [stem for line in lines if (stem := listed_stem(line, known)) is not None]
    if not stems:
        raise UnusableFile(f"{path}: the split list names no images", code="list-unusable", file=str(path))
    return stems


def listed_stem(line: str, known: Collection[str]) -> str | None:
    """The image that a line of a split list names, or None: an empty line, or one flagged -1 in a per-class list.

    Args:
        line: without the white space around it.
        known: stems of the annotations; such a name may itself end like a flag.
    """
    flagged = re.fullmatch(r"(.*\S)\s+(-1|0|1)", line)
    if line in known or flagged is None:
        return line or None
    return None if flagged.group(2) == "-1" else flagged.group(1)


def _xml_folders(root: Path) -> tuple[Path, Path]:
    """(folder of the XML files, folder of the images)."""
    if not root.is_dir():
        raise UserError(f"root is {str(root)!r}: no such folder")
    annotations = root / "Annotations" if (root / "Annotations").is_dir() else root
    candidates = [root / name for name in ("JPEGImages", "images", "Images")] if annotations != root else []
    images = next((folder for folder in candidates if folder.is_dir()), root)
    if not any(annotations.glob("*.[xX][mM][lL]")):
        below = sorted({path.parent.relative_to(root).as_posix() for path in root.glob("*/*.xml")})
        hint = f"; XML files are in {', '.join(below)}: name one of these" if below else ""
        raise UserError(f"{annotations}: no XML files{hint}")
    return annotations, images


def _read_folder(builder: TableBuilder, root: Path, annotations: Path, images: Path) -> None:
    """All XML files of a folder, in the order of their names."""
    builder.origins.append(Origin("xml", root, annotations, images))
    builder.evidence.look("xml", annotations)
    builder.evidence.look("names", images)
    listing = ImageFolder(images)
    files = sorted(annotations.glob("*.[xX][mM][lL]"))
    for path in files:
        _read_xml(builder, path, listing, image_id=path.stem)
    unlabelled = set(listing.by_stem) - {path.stem for path in files} - {Path(path).stem for path in builder.paths}
    if unlabelled:
        builder.tell(logging.INFO, f"{root}: {len(unlabelled)} images without XML are not part of the data")


def _read_xml(builder: TableBuilder, path: Path, listing: ImageFolder, *, image_id: str) -> None:
    """One XML file and its image into the builder, or a problem."""
    try:
        annotation = parse_voc_xml(read_bounded(path, MAX_XML_BYTES))
    except BadXML as error:
        code = "object-faulty" if isinstance(error, BadObject) else "xml-unreadable"
        builder.fault(code, str(path), str(error), image=listing.find(path.stem))
        return
    except OSError as error:
        builder.fault("xml-unreadable", str(path), f"cannot be read: {error.strerror}", image=listing.find(path.stem))
        return
    image = listing.find(path.stem, annotation.filename)
    if image is None:
        stated = f" (<filename> says {annotation.filename!r})" if annotation.filename else ""
        builder.fault("image-missing", str(path), f"{listing.folder} has no image of this name{stated}")
        return
    builder.add(image, image_id=image_id, size=annotation.size, boxes=annotation.boxes, annotation=str(path))
