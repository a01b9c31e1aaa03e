"""Writes a repaired copy of a config's data: annotations mended as repair_plan.py decides, images as symbolic links.

The copy keeps the layout, so the same config reads it by another root. It is written under a temporary name beside its
own and renamed when it is whole; the originals are only read.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transfer.build import Node, parameters_of, resolve
from transfer.checking.check import Report
from transfer.checking.findings import ERROR, Finding
from transfer.checking.reading import Part
from transfer.checking.repair_coco import write_json
from transfer.checking.repair_plan import ImageRepair, Plan, make_plan
from transfer.checking.repair_voc import write_lists, write_xml_files
from transfer.checking.report import findings_text
from transfer.data.table_builder import Origin
from transfer.types import UserError

_FILES_SHOWN = 3


@dataclass(frozen=True)
class Repaired:
    """What a repair did."""

    out: Path
    done: dict[str, list[str]]
    """What -> the files it was done to."""
    left: list[Finding]
    """Findings of the original that the copy still has."""
    copied: str | None
    """Why images are copies, not links; None: they are links."""
    lists: list[str]
    """Split lists that are not in the copy, since the config does not name them."""
    options: list[str]
    """Overrides of the config that make it read the copy."""
    root: bool
    """`--data OUT` does the same."""

    @property
    def is_wrong(self) -> bool:
        """Training with the copy would still stop or be wrong."""
        return any(finding.severity == ERROR for finding in self.left)

    def as_text(self) -> str:
        """For the terminal."""
        lines = [f"repaired copy in {self.out}"]
        for what, files in self.done.items():
            unique = list(dict.fromkeys(Path(file).name for file in files))
            names = ", ".join(unique[:_FILES_SHOWN]) + (", ..." if len(unique) > _FILES_SHOWN else "")
            lines.append(f"  {len(files):,} x {what}: {names}")
        if not self.done:
            lines.append("  nothing to repair")
        if self.copied is not None:
            lines.append(f"  images are copied, since they cannot be linked: {self.copied}")
        if self.lists:
            lines.append(f"  not copied, as this config does not read them: {', '.join(self.lists)}")
        if self.left:
            lines += ["", "not repaired:", *findings_text(self.left, can_be_fixed=False)]
        where = f"--data {shlex.quote(str(self.out))}" if self.root else "--cfg-options " + " ".join(
            shlex.quote(option) for option in self.options
        )  # fmt: skip
        return "\n".join([*lines, "", f"to train on the copy, give the same config {where}"])


def check_target(out: Path, parts: Sequence[Part] = ()) -> None:
    """Ask before the work whether it can be done.

    Args:
        out: the new folder.
        parts: of the config, where they are read already.

    Raises:
        UserError: the copy has no free place apart from the data, or a part has a format that cannot be repaired.
    """
    if out.exists() or out.is_symlink():
        raise UserError(f"--fix {str(out)!r} is there already: give a new folder, nothing is overwritten")
    unknown = [part.name for part in parts if not part.tells_origins]
    if unknown:
        names = ", ".join(f"data.{name}" for name in unknown)
        raise UserError(
            f"--fix repairs VOC, XML folders and COCO: {names} is in another format. Check without --fix, mend by hand"
        )
    for origin in (origin for part in parts for origin in part.origins):
        folders = [origin.images]
        if origin.kind != "coco":
            folders.append(origin.annotations)
        if origin.kind == "voc":
            folders.append(origin.annotations.parent)
        for folder in folders:
            if folder.resolve() in (out.resolve(), *out.resolve().parents):
                raise UserError(f"--fix {str(out)!r} lies in {folder}, which is not to be touched: give another place")


def repair(report: Report, nodes: Node, out: Path) -> Repaired:
    """Write the copy.

    Args:
        report: of the check.
        nodes: the config's `data`.
        out: the new folder.

    Raises:
        UserError: no free place, a format that cannot be repaired, or a split that nothing would be left of.
    """
    check_target(out, report.parts)
    plan = make_plan(report)
    for part in report.parts:
        if part.images and not plan.kept[part.name]:
            raise UserError(
                f"--fix would leave {part.name} without an image: see what was found; "
                "where two splits are the same, give one of them other images"
            )
    writer = _Writer(report, plan, out)
    writer.write()
    left = [finding for finding in report.findings if not finding.fixable]
    options = writer.options(nodes)
    places = {value for _, _, value in options}
    root = places == {str(out)} and all(where.count(".") == 1 and key == "root" for where, key, _ in options)
    overrides = [f"{where}.{key}={value}" for where, key, value in options]
    return Repaired(out, dict(plan.done), left, writer.copied, _other_lists(report), overrides, root)


def _other_lists(report: Report) -> list[str]:
    """Split lists beside those that the config reads."""
    read = {path for part in report.parts for origin in part.origins for path in origin.lists}
    there = {path for mine in read for path in mine.parent.glob("*.txt")}
    return sorted(path.name for path in there - read)


class _Writer:
    """Writes all parts below one folder, and remembers where each went."""

    def __init__(self, report: Report, plan: Plan, out: Path) -> None:
        self.report, self.plan, self.out = report, plan, out
        self.copied: str | None = None
        self.places: dict[tuple[str, Path], Path] = {}
        """(what, original) -> its place, relative to the copy."""
        self._choose_places()

    def _choose_places(self) -> None:
        origins = [origin for part in self.report.parts for origin in part.origins]
        roots = {origin.root.resolve() for origin in origins if origin.kind != "coco"}
        alone = len(roots) == 1 and all(origin.kind != "coco" for origin in origins)
        taken: set[str] = set()
        for origin in origins:
            if origin.kind == "coco":
                wanted = [("json", origin.annotations), ("images", origin.images)]
            else:
                wanted = [("root", origin.root)]
            for what, path in wanted:
                key = (what, path.resolve())
                if key not in self.places:
                    self.places[key] = Path() if alone else Path(_free(path.resolve(), taken))

    def _place(self, what: str, path: Path) -> Path:
        return self.places[(what, path.resolve())]

    def write(self) -> None:
        """Write everything to a temporary folder and rename it."""
        temporary = self.out.with_name(f".{self.out.name}.{os.getpid()}.part")
        try:
            temporary.mkdir(parents=True)
            for part in self.report.parts:
                for builder in part.builders:
                    repairs = self.plan.of_builder(part.name, builder)
                    for origin in builder.origins:
                        mine = repairs
                        if origin.kind != "coco":
                            mine = [
                                each for each in repairs if Path(each.image.annotation).parent == origin.annotations
                            ]
                        self._write_origin(origin, mine, temporary)
            os.rename(temporary, self.out)
        except FileExistsError:
            raise UserError(f"--fix {str(self.out)!r}: somebody else made it meanwhile") from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _write_origin(self, origin: Origin, repairs: Sequence[ImageRepair], folder: Path) -> None:
        if origin.kind == "coco":
            images = folder / self._place("images", origin.images)
            images.mkdir(parents=True, exist_ok=True)
            write_json(origin, repairs, folder / self._place("json", origin.annotations), images, self._link)
            return
        place = folder / self._place("root", origin.root) / _year_folder(origin)
        write_xml_files(origin, repairs, place, self._link)
        write_lists(origin, repairs, place)

    def _link(self, source: str, target: Path) -> None:
        """A symbolic link, or where the file system has none, a copy."""
        if target.is_symlink() or target.exists():  # two annotations may share an image
            return
        if self.copied is None:
            try:
                os.symlink(os.path.abspath(source), target)
                return
            except (OSError, NotImplementedError) as error:
                self.copied = str(error)
        shutil.copyfile(source, target)

    def options(self, nodes: Node) -> list[tuple[str, str, str]]:
        """(place in the config, argument, value) that makes it read the copy."""
        found = []
        for part in self.report.parts:
            for builder, where in zip(part.builders, part.nodes):
                node = _node_at(nodes, where)
                known = parameters_of(resolve(node["type"])) or {}
                for origin in builder.origins:
                    if origin.kind == "coco":
                        found.append((where, "annotations", str(self.out / self._place("json", origin.annotations))))
                        found.append((where, "images", str(self.out / self._place("images", origin.images))))
                    elif "root" in known:
                        found.append((where, "root", str(self.out / self._place("root", origin.root))))
        return list(dict.fromkeys(found))


def _year_folder(origin: Origin) -> Path:
    """A root that is a year's folder keeps its name below the copy: splits such as "2007_test" go by it."""
    is_year = origin.kind == "voc" and origin.annotations.parent == origin.root
    name = origin.root.resolve().name
    return Path(name) if is_year and name.startswith("VOC") and name[3:].isdecimal() else Path()


def _free(path: Path, taken: set[str]) -> str:
    """The path's last name, with a number where another has it."""
    number, name = 1, path.name
    while name in taken:
        number += 1
        name = f"{path.stem}_{number}{path.suffix}"
    taken.add(name)
    return name


def _node_at(nodes: Node, where: str) -> Node:
    """The node of "data.train.datasets.0"."""
    node: object = nodes
    for step in where.split(".")[1:]:
        node = node[int(step)] if isinstance(node, list) else node[step]  # type: ignore[index]
    assert isinstance(node, dict)
    return node
