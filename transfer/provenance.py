"""Where a checkpoint comes from: the state of the code and of the data, so that a later reader sees what differs."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from transfer.types import AnyDataset, UserError

CHECKOUT = Path(__file__).resolve().parents[1]
MOST_RECORDS = 2_000
"""Of a data set, evenly spread, that a fingerprint reads: a million records would take half a minute."""


def git_state(folder: Path = CHECKOUT) -> str | None:
    """The commit of a checkout, with "+changes" where files that it tracks differ; None outside of git.

    Args:
        folder: root of the checkout; a package installed below somebody else's checkout is not taken for it.
    """
    if not (folder / ".git").exists():
        return None
    try:
        commit, changes = (
            subprocess.run(
                ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20, check=True
            ).stdout.strip()
            for arguments in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
    except (OSError, subprocess.SubprocessError):  # no git here, or a checkout that it does not trust
        return None
    return commit + ("+changes" if changes else "")


def fingerprint(dataset: AnyDataset) -> dict[str, Any]:
    """What tells a data set from another, in plain types, without decoding an image.

    Of at most MOST_RECORDS images: name, size, truth (of a mask, its file's length). Folders do not count, so data that
    moved are the same; a record that cannot be read counts as such.

    Returns:
        `images`: their number; `classes`: their number; `digest`: 16 hexadecimal digits.
    """
    digest = hashlib.sha256(repr(tuple(dataset.class_names)).encode())
    for index in np.unique(np.linspace(0, len(dataset) - 1, min(len(dataset), MOST_RECORDS)).astype(int)):
        try:
            record: Any = dataset.record(int(index))
        except UserError:  # what is broken is the loader's to stop at, or to skip
            digest.update(b"unreadable")
            continue
        facts = [record.image_id, getattr(record, "size", None), getattr(record, "label", None)]
        mask = getattr(record, "mask_path", None)
        if mask is not None:
            facts.append(os.path.getsize(mask) if os.path.isfile(mask) else None)
        digest.update(repr(facts).encode())
        for name in ("boxes", "labels", "difficult", "crowd"):
            if hasattr(record, name):
                digest.update(np.ascontiguousarray(getattr(record, name)).tobytes())
    return {"images": len(dataset), "classes": len(dataset.class_names), "digest": digest.hexdigest()[:16]}


def differences(then: dict[str, Any], now: dict[str, Any], names: Sequence[str]) -> list[str]:
    """What changed between a checkpoint's facts and today's, one text each: "torch 2.6.0 -> 2.14.1".

    Args:
        then: of the checkpoint; what it does not say counts as unknown, not as a change.
        now: today's.
        names: keys to compare.
    """
    return [
        f"{name} {then[name]} -> {now[name]}"
        for name in names
        if then.get(name) is not None and now.get(name) is not None and then[name] != now[name]
    ]
