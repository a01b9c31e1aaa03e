"""From one format to another: read, rename, split, write under a temporary name, and tell what was done.

Nothing appears under the output's name before it is complete: the folder is built beside it and renamed at the end, and
removed when anything goes wrong on the way, Ctrl-C included.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from transfer.convert.annotated import AnnotatedSet, Category, Format
from transfer.convert.layouts import guess_format
from transfer.convert.naming import target_names
from transfer.convert.read_coco import read_coco
from transfer.convert.read_voc import read_voc
from transfer.convert.read_yolo import read_yolo
from transfer.convert.report import class_lines, split_lines, training_lines
from transfer.convert.splits import assign_folds, assign_splits, check_shares
from transfer.convert.unheld import unheld
from transfer.convert.write_coco import write_coco
from transfer.convert.write_voc import write_voc
from transfer.convert.write_yolo import write_yolo
from transfer.data.class_names import nearest_name
from transfer.data.strangers import printable
from transfer.types import UserError

FORMATS: tuple[Format, ...] = ("voc", "coco", "yolo")
IMAGE_MODES = ("link", "copy", "none")

_WRITERS = {"voc": write_voc, "coco": write_coco, "yolo": write_yolo}
_SHOWN = 10
_SHOWN_IN_ERRORS = 200
_REPORT = "conversion.txt"
_RENAMED = "renamed_files.tsv"


def convert(
    source: Path,
    output: Path,
    *,
    to: Format,
    source_format: Format | None = None,
    images: str = "link",
    image_root: Path | None = None,
    only: Sequence[str] = (),
    shares: Mapping[str, float] | None = None,
    folds: int | None = None,
    keep: Sequence[str] = (),
    seed: int = 0,
    rename: Mapping[str, str | None] | None = None,
    on_broken: str = "stop",
) -> list[str]:
    """Write a data set in another format.

    Args:
        source: the data set's folder, or its JSON or YAML file.
        output: a folder that does not exist yet.
        to: "voc", "coco" or "yolo".
        source_format: None: guessed from what lies in `source`.
        images: "link" makes symbolic links to the source's files, "copy" copies them, "none" leaves them away.
        image_root: where COCO's images are; None: looked for.
        only: the source's splits to read; () for all.
        shares: new split -> share of the images; None: the source's splits are kept.
        folds: write so many folds, at least 2, instead of splits.
        keep: with shares or folds, splits of the source that stay as they are.
        seed: of the splits.
        rename: old class name -> new one; None drops the class's boxes.
        on_broken: "stop" raises one error for all faults of the source; "skip" leaves those images out.

    Returns:
        The report, as it stands in the output's conversion.txt.

    Raises:
        UserError: arguments or data that cannot be used; nothing is written then.
    """
    _check_arguments(output, to, images, shares, folds, keep, on_broken)
    told: list[str] = []
    if source_format is None:
        source_format, sign = guess_format(source)
        told.append(f"source: {source} is {source_format.upper()}, by {sign} (--from overrules)")
    dataset = _read(source, source_format, image_root, only, on_broken)
    if rename:
        rename_classes(dataset, rename)
    told += _settle(dataset)
    if shares is not None:
        told += assign_splits(dataset, shares, keep, seed)
    elif folds is not None:
        told += assign_folds(dataset, folds, keep, seed)
    _check_splits(dataset)
    told += ["", *split_lines(dataset), ""]
    told += [*class_lines(dataset), ""] if shares is not None or folds is not None else []
    lost = unheld(dataset, to)
    told += ["not kept:", *(f"  {line}" for line in lost)] if lost else ["nothing is lost"]
    names = target_names(dataset.images, flat=to != "coco")
    with building(output) as folder:
        places = _WRITERS[to](dataset, names, folder)
        told += _write_renamed(dataset, names, folder)
        _place_images(dataset, places, folder, images)
        told += _image_lines(images, places, output)
        told += ["", f"written: {output}", *training_lines(to, output, dataset.splits)]
        told = [printable(line) for line in told]  # names of files may be no text at all
        (folder / _REPORT).write_text("\n".join(told) + "\n", encoding="utf-8")
    return told


@contextmanager
def building(output: Path) -> Iterator[Path]:
    """A new folder that gets the name `output` where the block ends well, and is removed where it does not."""
    folder = output.with_name(f".{output.name}.partial-{os.getpid()}")
    output.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir()
    try:
        yield folder
        if os.path.lexists(output):
            raise UserError(f"output {str(output)!r} came into being meanwhile: give another")
        folder.rename(output)
    except BaseException:  # Ctrl-C, too
        shutil.rmtree(folder, ignore_errors=True)
        raise


def rename_classes(dataset: AnnotatedSet, rename: Mapping[str, str | None]) -> None:
    """Give classes other names, in place; classes that come to share one are merged.

    Args:
        dataset: the data set.
        rename: old name -> new name; None drops the class's boxes.

    Raises:
        UserError: names that do not occur.
    """
    problems = []
    for old in rename:
        if old not in dataset.names():
            near = nearest_name(old, dataset.names())
            hint = f" (nearest: {near!r})" if near else ""
            problems.append(f"--rename {old}: no such class{hint}. Classes: {', '.join(dataset.names())}")
    if problems:
        raise UserError("\n".join(problems))
    categories: dict[str, Category] = {}
    for category in dataset.categories:
        new = rename.get(category.name, category.name)
        # the class that had the name before gives the id, as in COCODataset
        if new is not None and (new not in categories or new == category.name):
            categories[new] = dataclasses.replace(category, name=new)
    dataset.categories = list(categories.values())
    if dataset.format == "voc" and all(category.id is None for category in dataset.categories):
        dataset.categories.sort(key=lambda category: category.name)
    for image in dataset.images:
        for item in image.objects:
            item.name = rename.get(item.name, item.name) or ""
        image.objects = [item for item in image.objects if item.name]


def _check_arguments(
    output: Path,
    to: str,
    images: str,
    shares: Mapping[str, float] | None,
    folds: int | None,
    keep: Sequence[str],
    on_broken: str,
) -> None:
    """Raises: UserError for all arguments that cannot be used."""
    problems = []
    if os.path.lexists(output):
        problems.append(f"output {str(output)!r} exists already: name a new folder, or remove it first")
    choices = (("to", to, FORMATS), ("images", images, IMAGE_MODES), ("on_broken", on_broken, ("stop", "skip")))
    for name, value, known in choices:
        if value not in known:
            problems.append(f"{name} is {value!r}: use {', '.join(known)}")
    if shares is not None and folds is not None:
        problems.append("--split and --folds exclude each other")
    if folds is not None and folds < 2:
        problems.append(f"--folds {folds}: at least 2")
    if keep and shares is None and folds is None:
        problems.append("--keep goes with --split or --folds; without them all splits are kept")
    if shares is not None:
        try:
            check_shares(shares, keep)
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("\n".join(problems))


def _read(
    source: Path, source_format: Format, image_root: Path | None, only: Sequence[str], on_broken: str
) -> AnnotatedSet:
    """The data set; raises UserError for all its faults where they are not to be skipped."""
    if image_root is not None and source_format != "coco":
        raise UserError(f"--image-root goes with COCO; the source is {source_format.upper()}")
    if not source.exists():
        guess_format(source)
    if source_format == "coco":
        dataset = read_coco(source, image_root, only=only, on_broken=on_broken)
    else:
        dataset = (read_voc if source_format == "voc" else read_yolo)(source, only=only)
    dataset.problems = list(dict.fromkeys(dataset.problems))
    if dataset.problems and on_broken == "stop":
        raise UserError(
            f"{source}: {len(dataset.problems)} unusable:\n{_shown(dataset.problems, _SHOWN_IN_ERRORS)}\n"
            "Mend or remove them, or leave their images out with --on-broken skip."
        )
    if not dataset.images:
        left_out = f"; left out:\n{_shown(dataset.problems)}" if dataset.problems else ""
        raise UserError(f"{source}: no usable image{left_out}")
    return dataset


def _shown(lines: Sequence[str], limit: int = _SHOWN) -> str:
    more = [f"  and {len(lines) - limit} more"] if len(lines) > limit else []
    return "\n".join([*(f"  {line}" for line in lines[:limit]), *more])


def _settle(dataset: AnnotatedSet) -> list[str]:
    """Give images without split one, and tell what the reading met."""
    boxes = sum(len(image.objects) for image in dataset.images)
    lines = [f"read: {len(dataset.images)} images, {boxes} boxes, {len(dataset.categories)} classes", *dataset.notes]
    if not dataset.splits:
        dataset.splits = ["train"]
        for image in dataset.images:
            image.splits = ["train"]
        lines.append('the source has no splits: all of it is "train" (--split or --folds make some)')
    if dataset.contradicted:
        lines.append(
            f"{len(dataset.contradicted)} stated sizes contradict the boxes; the image's own are taken, first: "
            f"{dataset.contradicted[0]}"
        )
    if dataset.problems:
        lines += [f"{len(dataset.problems)} left out (--on-broken skip):", _shown(dataset.problems)]
    return lines


def _check_splits(dataset: AnnotatedSet) -> None:
    """Drop splits without images; raises UserError for names that the formats' files cannot have."""
    used = {split for image in dataset.images for split in image.splits}
    dataset.splits = [split for split in dataset.splits if split in used]
    wrong = [split for split in dataset.splits if not re.fullmatch(r"\w[\w.\- ]*", split)]
    if wrong:
        raise UserError(
            f"{dataset.source}: split {', '.join(map(repr, wrong))}: letters, digits, '_', '-', '.' and spaces only, "
            "since files are named after it; rename it in the source, or choose others with --only"
        )


def _write_renamed(dataset: AnnotatedSet, names: Sequence[str], folder: Path) -> list[str]:
    """List the images whose name changed, in a file and the first ones in the report."""
    changed = [(image, name) for image, name in zip(dataset.images, names) if image.name != name]
    if not changed:
        return []
    text = "".join(f"{image.path}\t{name}\n" for image, name in changed)
    (folder / _RENAMED).write_text(text, encoding="utf-8", errors="surrogateescape")
    return [
        f"{len(changed)} images are renamed, since names must be unique and without folders (all: {_RENAMED}):",
        _shown([f"{image.group + ': ' if image.group else ''}{image.name} -> {name}" for image, name in changed]),
    ]


def _place_images(dataset: AnnotatedSet, places: Sequence[str], folder: Path, mode: str) -> None:
    for image, place in zip(dataset.images, places):
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if mode == "copy":
            shutil.copy2(image.path, target)
        elif mode == "link":
            try:
                target.symlink_to(os.path.realpath(image.path))
            except OSError as error:
                raise UserError(
                    f"{target}: cannot be made a symbolic link ({error.strerror or error}): use --images copy"
                ) from None


def _image_lines(mode: str, places: Sequence[str], output: Path) -> list[str]:
    if mode == "link":
        return [f"{len(places)} images are symbolic links to the source's files: keep those (or use --images copy)"]
    if mode == "none":
        return [f"no images are written: put them under these names before training, such as {output / places[0]}"]
    return [f"{len(places)} images are copied"]
