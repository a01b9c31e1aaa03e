"""The images of a folder by name, from one listing: asking for 16,551 files one by one is slow over a network."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from transfer.data.image import IMAGE_SUFFIXES


def find_name(names: Collection[str], name: str) -> str | None:
    """The name among `names`, or the one that differs from it only in how accents are composed.

    macOS writes "é" as two characters into file names and archives; annotations often have the one.
    """
    if name in names:
        return name
    if name.isascii():
        return None
    composed = unicodedata.normalize("NFC", name)
    return next((other for other in names if unicodedata.normalize("NFC", other) == composed), None)


class ImageFolder:
    """What lies in a folder of images.

    Args:
        folder: an existing folder; only files directly in it count, symbolic links included.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with os.scandir(folder) as entries:
            self.names = {entry.name for entry in entries}
        images = [name for name in self.names if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES]
        # the preferred suffix is written last and stays
        images.sort(key=lambda name: (IMAGE_SUFFIXES.index(os.path.splitext(name)[1].lower()), name), reverse=True)
        self.by_stem = {os.path.splitext(name)[0]: name for name in images}

    def find(self, stem: str, filename: str = "") -> str | None:
        """Path of the image of an annotation.

        Args:
            stem: of the annotation's own name; looked for first.
            filename: what the annotation says. Only its last part counts, so it cannot lead out of the folder.

        Returns:
            The path, or None. Where several images share the stem, the one `filename` names, else by `IMAGE_SUFFIXES`.
        """
        stated = PurePosixPath(filename.replace("\\", "/")).name
        known = find_name(self.by_stem, stem)
        name = None if known is None else self.by_stem[known]
        if name is None or (stated in self.names and os.path.splitext(stated)[0] == stem):
            name = stated if stated in self.names else name or self.by_stem.get(os.path.splitext(stated)[0])
        return os.path.join(self.folder, name) if name else None
