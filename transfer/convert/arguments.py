"""The command line's NAME=SHARE and OLD=NEW as mappings."""

from __future__ import annotations

from collections.abc import Sequence

from transfer.types import UserError


def parse_shares(texts: Sequence[str]) -> dict[str, float]:
    """["train=0.8", "val=0.2"] as split -> share.

    Raises:
        UserError: for all texts of another form, and names given twice.
    """
    shares: dict[str, float] = {}
    problems = []
    for text in texts:
        name, separator, number = text.partition("=")
        try:
            share = float(number)
        except ValueError:
            separator = ""
        if not separator or not name:
            problems.append(f"--split {text}: write a name and a share, such as train=0.8")
        elif name in shares:
            problems.append(f"--split {text}: {name!r} is given twice")
        else:
            shares[name] = share
    if problems:
        raise UserError("\n".join(problems))
    return shares


def parse_rename(texts: Sequence[str]) -> dict[str, str | None]:
    """["old=new", "unwanted="] as old name -> new name or None.

    Raises:
        UserError: for all texts of another form, and names given twice.
    """
    rename: dict[str, str | None] = {}
    problems = []
    for text in texts:
        old, separator, new = text.partition("=")
        if not separator or not old:
            problems.append(f"--rename {text}: write OLD=NEW, or OLD= to drop the class's boxes")
        elif old in rename:
            problems.append(f"--rename {text}: {old!r} is given twice")
        else:
            rename[old] = new or None
    if problems:
        raise UserError("\n".join(problems))
    return rename
