"""ADE20K as the scene parsing benchmark has it: 150 classes, 20,210 training and 2,000 validation images.

Source: Zhou et al. 2017, Scene Parsing through ADE20K Dataset (CVPR), and the benchmark's archive ADEChallengeData2016:
images/{training,validation}, annotations/{training,validation}, objectInfo150.txt, sceneCategories.txt. BoT (arXiv
1812.01187, section 6.2) trains on it.

A mask's value 0 is "other objects" and is ignored, as the benchmark scores it; 1..150 are the labels 0..149. A class is
called by the first of its names in objectInfo150.txt ("building, edifice": building). The masks of the test images were
not published; sceneCategories.txt says where a photograph was taken and is not read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from transfer.data.class_names import nearest_name
from transfer.data.mask_builder import MaskBuilder, labels_of
from transfer.data.mask_dataset import MaskDataset, MaskFiles
from transfer.data.mask_pairs import Pairing, pair_files
from transfer.data.masks import ValueCoding
from transfer.data.strangers import whole_number
from transfer.types import IGNORED_PIXEL, UserError

_NAMES = """
    wall | building | sky | floor | tree | ceiling | road | bed | windowpane | grass | cabinet | sidewalk | person |
    earth | door | table | mountain | plant | curtain | chair | car | water | painting | sofa | shelf | house |
    sea | mirror | rug | field | armchair | seat | fence | desk | rock | wardrobe | lamp | bathtub | railing |
    cushion | base | box | column | signboard | chest of drawers | counter | sand | sink | skyscraper | fireplace |
    refrigerator | grandstand | path | stairs | runway | case | pool table | pillow | screen door | stairway |
    river | bridge | bookcase | blind | coffee table | toilet | flower | book | hill | bench | countertop | stove |
    palm | kitchen island | computer | swivel chair | boat | bar | arcade machine | hovel | bus | towel | light |
    truck | tower | chandelier | awning | streetlight | booth | television | airplane | dirt track | apparel |
    pole | land | bannister | escalator | ottoman | bottle | buffet | poster | stage | van | ship | fountain |
    conveyer belt | canopy | washer | plaything | swimming pool | stool | barrel | basket | waterfall | tent |
    bag | minibike | cradle | oven | ball | food | step | tank | trade name | microwave | pot | animal | bicycle |
    lake | dishwasher | screen | blanket | sculpture | hood | sconce | vase | traffic light | tray | ashcan | fan |
    pier | crt screen | plate | monitor | bulletin board | shower | radiator | glass | clock | flag
"""
ADE20K_CLASSES = tuple(" ".join(_NAMES.split()).split(" | "))
"""By value, from 1: the first name of each line of objectInfo150.txt (github.com/CSAILVision/sceneparsing, BSD-3)."""

_SPLITS = ("training", "validation")
_FOLDER = "ADEChallengeData2016"
_INFO = "objectInfo150.txt"


class ADE20KDataset(MaskDataset):
    """One split of ADEChallengeData2016."""

    def __init__(
        self,
        root: str | Path,
        split: str = "training",
        *,
        class_names: Sequence[str] | None = None,
        rename: Mapping[str, str | None] | None = None,
        on_broken: str = "stop",
    ) -> None:
        """List the images and masks; they are not opened.

        Args:
            root: the folder ADEChallengeData2016, or the one that holds it.
            split: "training" or "validation".
            class_names: order of the labels; None: the benchmark's 150 classes.
            rename: old name -> new name, which several may share; None: its pixels are ignored.
            on_broken: "stop" raises one error for all images without mask and masks without image; "skip" leaves them
                out, listed in `skipped`.

        Raises:
            UserError: another layout or split, files without partner, names outside class_names.
        """
        if split not in _SPLITS:
            nearest = nearest_name(split, _SPLITS) if isinstance(split, str) else None
            hint = f" (nearest: {nearest!r})" if nearest else ""
            raise UserError(
                f"split is {split!r}: ADE20K has {' and '.join(map(repr, _SPLITS))}{hint}; the masks of its test "
                "images were not published"
            )
        folder = _folder(Path(root))
        names = _names(folder / _INFO)
        source = f"{folder} ({split})"
        known, labels = labels_of(list(names.values()), class_names=class_names, rename=rename, source=source)
        builder = MaskBuilder(source, on_broken=on_broken)
        pair_files(builder, Pairing(folder / "images" / split, folder / "annotations" / split))
        builder.finish()
        coding = ValueCoding({0: IGNORED_PIXEL, **{value: labels[name] for value, name in names.items()}})
        masks = MaskFiles(builder.mask_paths, coding)
        super().__init__(builder.paths, builder.image_ids, masks, known, skipped=builder.problems)


def _folder(root: Path) -> Path:
    """The folder with images/ and annotations/."""
    for folder in (root, root / _FOLDER):
        if (folder / "images").is_dir() and (folder / "annotations").is_dir():
            return folder
    if not root.is_dir():
        raise UserError(f"root is {str(root)!r}: no such folder")
    raise UserError(f"{root}: no ADE20K data: expected the folders images and annotations, or {_FOLDER}, in it")


def _names(path: Path) -> dict[int, str]:
    """Value -> class name, from the file where it is there."""
    if not path.is_file():
        return dict(enumerate(ADE20K_CLASSES, 1))
    try:
        rows = [line.split("\t") for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    names: dict[int, str] = {}
    problems = []
    for number, row in enumerate(rows, 1):
        name = row[-1].split(",")[0].strip()
        if number == 1 and not row[0].strip().isdecimal():
            continue  # the heads of the columns
        if len(row) < 2 or not row[0].strip().isdecimal() or not name or not 1 <= _value(row[0]) < IGNORED_PIXEL:
            problems.append(f"line {number} is not a value of 1 to {IGNORED_PIXEL - 1}, tab, ..., tab, a name")
        elif _value(row[0]) in names or name in names.values():
            problems.append(f"line {number}: the value {row[0]} or the name {name!r} is there before")
        else:
            names[_value(row[0])] = name
    if problems or not names:
        raise UserError("\n  ".join([f"{path}: {'faulty lines' if problems else 'names no class'}:", *problems[:10]]))
    return names


def _value(text: str) -> int:
    """The number of decimal digits; 0, which is no value of a class, where they are too many."""
    return whole_number(text.strip()) or 0
