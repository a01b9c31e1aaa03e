"""A folder of images and a folder of masks, in any of the forms in which people keep them.

What the masks' values or colours stand for is said by the config or a text file (mask_classes.py); which mask belongs
to which image, by their names (mask_pairs.py). A value that is neither a class nor ignored is an error when the mask
is read, so that masks in another coding are not trained on in silence; `tools/check_data.py` lists all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from transfer.data.mask_builder import MaskBuilder, labels_of
from transfer.data.mask_classes import mask_classes
from transfer.data.mask_dataset import MaskDataset, MaskFiles
from transfer.data.mask_pairs import Pairing, pair_files
from transfer.types import UserError


class MaskFolderDataset(MaskDataset):
    """Images and masks that have the same name, but for the ends of their names."""

    def __init__(
        self,
        images: str | Path,
        masks: str | Path,
        *,
        root: str | Path = "",
        classes: Sequence[str] | Mapping[str, int | Sequence[int]] | str | Path | None = None,
        colours: Mapping[str, Sequence[int] | Sequence[Sequence[int]]] | None = None,
        ignore: int | Sequence[int | Sequence[int]] | None = None,
        image_suffix: str = "",
        mask_suffix: str = "",
        list_file: str | Path | None = None,
        class_names: Sequence[str] | None = None,
        rename: Mapping[str, str | None] | None = None,
        on_broken: str = "stop",
    ) -> None:
        """Pair the files by name; they are not opened.

        Args:
            images: folder, images at any depth; may be that of the masks.
            masks: folder, masks at the same places.
            root: the folder that images, masks, list_file and a file of classes are relative to.
            classes: what the values stand for: names of 0, 1, ...; name -> value or values, 0..65535; or a file.
            colours: name -> (red, green, blue), or several of these; instead of `classes`.
            ignore: value or values that count nowhere, or colours; None: 255, with colours none.
            image_suffix: end of the images' names before the dot, such as "_leftImg8bit".
            mask_suffix: end of the masks' names before the dot, such as "_mask".
            list_file: text file that names the images of this split, one a line; None: all images, of which each needs
                a mask, and each mask an image.
            class_names: order of the labels; None: that of `classes` or `colours`.
            rename: old name -> new name, which several may share; None: its pixels are ignored.
            on_broken: "stop" raises one error for all files without partner; "skip" leaves them out, listed in
                `skipped`.

        Raises:
            UserError: arguments that do not fit, missing folders, files without partner, names outside class_names.
        """
        base = Path(root)
        if not base.is_dir():
            raise UserError(f"root is {str(root)!r}: no such folder")
        source = str(base / masks)
        meaning = mask_classes(classes, colours, ignore, folder=base)
        known, labels = labels_of(meaning.names, class_names=class_names, rename=rename, source=source)
        builder = MaskBuilder(source, on_broken=on_broken)
        pairing = Pairing(base / images, base / masks, image_suffix, mask_suffix)
        pair_files(builder, pairing, None if list_file is None else base / list_file)
        builder.finish()
        files = MaskFiles(builder.mask_paths, meaning.coding(labels))
        super().__init__(builder.paths, builder.image_ids, files, known, skipped=builder.problems)
