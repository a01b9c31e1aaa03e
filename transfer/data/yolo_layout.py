"""Where a YOLO data set keeps what: data.yaml, the image folders and lists of its splits, and each image's label file.

Source: Ultralytics' description of its data sets and what its loader does (github.com/ultralytics/ultralytics,
data/utils.py and data/base.py; read, not copied). Its rules are kept:

- A split is a folder (images at any depth), a text file that lists images, or a list of these.
- A label file is found from the image's path alone: the last folder called "images" becomes "labels", the suffix
  ".txt"; without such a folder it lies beside the image.
- A split's path that begins with "../" and does not exist is tried without it (Roboflow's exports).

Deviations: a relative `path:` is looked up beside data.yaml, then in the working directory; one that does not exist
(the data moved) gives way to the folder of data.yaml, with a line in the log. Listed images may also be relative to the
list's folder or to the data set's root without a leading "./". GIF counts as an image, as in the rest of this project.

YAML is read by PyYAML's safe loader (it comes with mmengine), which makes plain values only. Aliases (*name)
are refused: with them a few lines stand for gigabytes.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transfer.data.class_names import nearest_name
from transfer.data.evidence import Evidence
from transfer.data.image import IMAGE_SUFFIXES
from transfer.data.listing import find_name
from transfer.data.strangers import short, whole_number
from transfer.types import UserError

_LOGGER = logging.getLogger(__name__)
_MAX_YAML_BYTES = 16 << 20
_MOST_CLASSES = 100_000
_MOST_KEYPOINTS = 10_000
_SPLITS = ("train", "val", "test", "valid", "validation", "minival")
_NO_SPLITS = ("path", "names", "nc", "download", "yaml_file", "kpt_shape", "flip_idx", "channels")
_ALIASES = ("val", "valid", "validation")
_EXAMPLE = "\n  train: images/train\n  val: images/val\n  names:\n    0: cat\n    1: dog"


@dataclass(slots=True, frozen=True)
class YOLOLayout:
    """What data.yaml says."""

    file: Path
    root: Path
    """The folder that the splits' paths are relative to."""
    names: dict[int, str]
    """Class index -> name, in the order of the indices."""
    splits: dict[str, tuple[str, ...]]
    """Split -> its folders and list files as written; () where the key stands without a value."""
    keypoint_values: int
    """Numbers after each box (`kpt_shape`), 0 in detection data."""


def read_layout(root: str | Path) -> YOLOLayout:
    """Read a data set's YAML file.

    Args:
        root: the file, or the folder that holds it as data.yaml or as its only YAML file.

    Raises:
        UserError: no such file, no YAML, or unusable names; all that is wrong with the file at once.
    """
    file = _yaml_file(Path(root))
    content = load_yaml(file)
    problems: list[str] = []
    names = _names(content, problems)
    splits: dict[str, tuple[str, ...]] = {}
    folder = _root(file, content.get("path"), problems)
    for key, value in content.items():
        if key in _SPLITS and value is None:
            splits[key] = ()
        elif isinstance(key, str) and key not in _NO_SPLITS:
            entries = [value] if isinstance(value, str) else value
            sound = isinstance(entries, list) and entries and all(isinstance(entry, str) and entry for entry in entries)
            if key in _SPLITS and not sound:
                problems.append(f"{key}: {short(value)} is not a path or a list of paths")
            elif sound and (key in _SPLITS or all(_find(folder, entry) for entry in entries)):
                splits[key] = tuple(entries)
    if not any(splits.values()) and not problems:
        problems.append("has no train:, val: or test: that names a folder of images or a list of them")
    keypoint_values = _keypoint_values(content.get("kpt_shape"), problems)
    if problems:
        raise UserError(f"{file}: " + "".join(f"\n  {problem}" for problem in problems))
    return YOLOLayout(file, folder, names, splits, keypoint_values)


def load_yaml(file: Path) -> dict[Any, Any]:
    """The mapping that a YAML file holds.

    Raises:
        UserError: it cannot be read, is no YAML, or holds something else.
    """
    import yaml  # type: ignore[import-untyped]  # here: reading another format does not need it

    class _WithoutAliases(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise UserError(f"{file}: uses aliases (*name), which are refused: write out what they stand for")
            return super().compose_node(parent, index)

    try:
        data = file.read_bytes()
        if len(data) > _MAX_YAML_BYTES:
            raise UserError(f"{file}: has {len(data)} bytes; the limit is {_MAX_YAML_BYTES}")
        content = yaml.load(data, Loader=_WithoutAliases)
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror or error}") from None
    except UserError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2026-13-01
        raise UserError(f"{file}: is not YAML: {' '.join(str(error).split())}") from None
    except Exception as error:  # PyYAML raises anything: !!int '' IndexError, !!bool 7 KeyError
        raise UserError(f"{file}: is not YAML: a value does not fit its tag ({type(error).__name__})") from None
    if not isinstance(content, dict):
        found = "is empty" if content is None else f"holds a {type(content).__name__}"
        raise UserError(f"{file}: {found}; it needs keys such as:{_EXAMPLE}")
    return content


def split_paths(layout: YOLOLayout, split: str) -> list[Path]:
    """The folders and list files of a split.

    Raises:
        UserError: no such split, or a path that does not exist.
    """
    key = split
    if split in _ALIASES and not layout.splits.get(split):
        key = next((alias for alias in _ALIASES if layout.splits.get(alias)), split)
    if not layout.splits.get(key):
        named = [name for name, entries in layout.splits.items() if entries]
        near = nearest_name(split, named)
        hint = f" (nearest: {near!r})" if near else ""
        found = "has no value" if key in layout.splits else "is not in the file"
        raise UserError(
            f"{layout.file}: split {split!r} {found}{hint}. Splits that exist: {', '.join(named) or 'none'}"
        )
    found_paths, missing = [], []
    for entry in layout.splits[key]:
        path = _find(layout.root, entry)
        if path is None:
            missing.append(f"{entry!r} (looked for {' and '.join(map(str, _candidates(layout.root, entry)))})")
        else:
            found_paths.append(path)
    if missing:
        raise UserError(f"{layout.file}: {key}: no folder or list {', '.join(missing)}. Mend the path or `path:`")
    return found_paths


def list_images(layout: YOLOLayout, split: str, evidence: Evidence) -> tuple[list[str], list[tuple[str, str]]]:
    """The images of a split, in the order of their names or of the list file.

    Args:
        layout: of the data set.
        split: key of its file.
        evidence: takes the folders and lists that were looked at.

    Returns:
        The paths, repetitions included, and ("list:line", what is wrong) for each listed image that does not exist.

    Raises:
        UserError: no such split, an unreadable list, or no image in a folder.
    """
    images: list[str] = []
    problems: list[tuple[str, str]] = []
    listings: dict[str, set[str]] = {}
    for path in split_paths(layout, split):
        if path.is_dir():
            found = _walk(Path(_tidy(str(path))), evidence)
            if not found:
                raise UserError(f"{path}: no images in this folder of split {split!r} ({', '.join(IMAGE_SUFFIXES)})")
            images += found
        else:
            evidence.look("content", path)
            images += _listed(path, layout.root, listings, problems, evidence)
    return images, problems


def label_path(image: str) -> str:
    """Where the label file of an image has to be: .../images/x.jpg -> .../labels/x.txt, else beside the image."""
    folder, name = os.path.split(image)
    parts = Path(folder).parts
    last = max((position for position, part in enumerate(parts) if part == "images"), default=None)
    if last is not None:
        folder = str(Path(*parts[:last], "labels", *parts[last + 1 :]))
    return os.path.join(folder, os.path.splitext(name)[0] + ".txt")


def _yaml_file(root: Path) -> Path:
    if root.is_file():
        return root
    if not root.is_dir():
        raise UserError(f"root is {str(root)!r}: no such folder or YAML file")
    if (root / "data.yaml").is_file():
        return root / "data.yaml"
    files = sorted(path for path in root.iterdir() if path.suffix.lower() in (".yaml", ".yml") and path.is_file())
    if len(files) == 1:
        return files[0]
    if files:
        shown = ", ".join(path.name for path in files[:10])
        raise UserError(f"{root}: has no data.yaml but {shown}: name one of these as root")
    if (root / "Annotations").is_dir():
        raise UserError(
            f"{root}: has no data.yaml; its Annotations say VOC: take configs/voc_folder_frcnn_lite0.py or, without "
            "split lists, configs/xml_folder_frcnn_lite0.py"
        )
    classes = [name for name in ("classes.txt", "labels/classes.txt") if (root / name).is_file()]
    hint = f" ({classes[0]} has the names)" if classes else ""
    raise UserError(f"{root}: has no data.yaml. Write one that says where the images are{hint}, such as:{_EXAMPLE}")


def _names(content: Mapping[Any, Any], problems: list[str]) -> dict[int, str]:
    """Class index -> name; what is wrong goes to `problems`."""
    stated, count = content.get("names"), content.get("nc")
    if count is not None and (type(count) is not int or not 1 <= count <= _MOST_CLASSES):
        problems.append(f"nc: {short(count)} is not a number of classes, 1 to {_MOST_CLASSES}")
        count = None
    if stated is None and count is not None:
        return {index: f"class_{index}" for index in range(count)}
    if isinstance(stated, list):
        stated = dict(enumerate(stated))
    if not isinstance(stated, dict) or not stated:
        problems.append(f"names: {short(stated)} is not a list of class names or a mapping from index to name")
        return {}
    names: dict[int, str] = {}
    for key, name in stated.items():
        index = whole_number(key) if isinstance(key, str) and key.isdecimal() else key
        if type(index) is not int or not 0 <= index < _MOST_CLASSES or index in names:
            problems.append(f"names: {short(key)} is no class index, or is given twice")
        elif type(name) is int and abs(name) < 1 << 63:
            names[index] = str(name)
        elif not isinstance(name, str) or not name.strip():
            problems.append(f"names: class {index} is {short(name)}, not text: put the name in quotes")
        else:
            names[index] = name.strip()
    twice = sorted(name for name, times in Counter(names.values()).items() if times > 1)
    if twice:
        problems.append(f"names: {', '.join(map(repr, twice))} stands for more than one class")
    if count is not None and count != len(stated):
        problems.append(f"nc: is {count}, but names has {len(stated)}")
    return dict(sorted(names.items()))


def _keypoint_values(shape: Any, problems: list[str]) -> int:
    """Numbers after each box; `shape` is [points, numbers a point] in pose data."""
    if shape is None:
        return 0
    if (
        not isinstance(shape, list)
        or len(shape) != 2
        or not all(type(side) is int and 0 < side <= _MOST_KEYPOINTS for side in shape)
    ):
        problems.append(f"kpt_shape: {short(shape)} is not [points, numbers a point]")
        return 0
    return int(shape[0] * shape[1])


def _root(file: Path, stated: Any, problems: list[str]) -> Path:
    """The folder of the data set, by `path:`."""
    here = file.parent
    if stated is None or stated == "":
        return here
    if not isinstance(stated, str):
        problems.append(f"path: {short(stated)} is not a path")
        return here
    for candidate in (here / stated, Path(stated)):
        if os.path.isdir(candidate):  # unlike Path.is_dir, False for a name that is too long
            return candidate
    _LOGGER.warning("%s: path: %s does not exist; taking the file's own folder", file, short(stated))
    return here


def _candidates(root: Path, entry: str) -> list[Path]:
    """Where a split's entry may be, most likely first."""
    entry = entry.replace("\\", "/")
    return [root / entry, *([root / entry[3:]] if entry.startswith("../") else [])]


def _find(root: Path, entry: str) -> Path | None:
    try:
        return next((path for path in _candidates(root, entry) if path.exists()), None)
    except (OSError, ValueError):  # a key's text that is no path: too long, or with a zero byte
        return None


def _tidy(folder: str) -> str:
    """The folder's path without "..", where that is the same folder: an image listed in two ways is one image."""
    plain = os.path.normpath(folder)
    try:
        return plain if os.path.isdir(plain) and os.path.samefile(plain, folder) else folder
    except (OSError, ValueError):  # it leads through what is not there, or is no path: too long, with a zero byte
        return folder


def _walk(folder: Path, evidence: Evidence) -> list[str]:
    """All images below a folder, sorted; folders that are symbolic links are followed, each folder once."""
    images, seen = [], set()
    evidence.look("files", folder)
    for path, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(path)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        for name in folders:  # before os.walk reads them
            evidence.look("files", os.path.join(path, name))
        images += [os.path.join(path, name) for name in names if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES]
    return sorted(images)


def _listed(
    path: Path, root: Path, listings: dict[str, set[str]], problems: list[tuple[str, str]], evidence: Evidence
) -> list[str]:
    """The images that a list file names; `listings` holds the names in each folder met so far."""
    images: list[str] = []
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a list of images: {error}") from None
    found = False
    for number, line in enumerate(lines, 1):
        entry = line.strip().replace("\\", "/")
        if not entry:
            continue
        found = True
        if os.path.splitext(entry)[1].lower() not in IMAGE_SUFFIXES:
            problems.append((f"{path}:{number}", f"{entry!r:.120} is no image ({', '.join(IMAGE_SUFFIXES)})"))
            continue
        for folder in dict.fromkeys((path.parent, root)):
            candidate = str(folder / entry)
            parent, name = os.path.split(candidate)
            parent = _tidy(parent) if ".." in parent else parent
            if parent not in listings:
                evidence.look("names", parent)
                listings[parent] = set(os.listdir(parent)) if os.path.isdir(parent) else set()
            found_name = find_name(listings[parent], name)
            if found_name is not None:
                images.append(os.path.join(parent, found_name))
                break
        else:
            problems.append((f"{path}:{number}", f"no image {entry!r:.200}; mend the path or take out the line"))
    if not found:
        raise UserError(f"{path}: the list names no images")
    return images
