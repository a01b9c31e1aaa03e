"""The check of a classifier's data as text for the terminal; its JSON is that of report.py."""

from __future__ import annotations

from transfer.checking.class_check import ClassReport
from transfer.checking.class_statistics import ClassStatistics
from transfer.checking.report import findings_text, table

_CLASSES_SHOWN = 40
_ENDS_SHOWN = 10


def classes_as_text(report: ClassReport) -> str:
    """The report for people: what the splits hold, then the findings by code, worst first."""
    lines = [*_splits(report), "", *_classes(report)]
    return "\n".join([*lines, "", *findings_text(report.findings, can_be_fixed=False)])


def _splits(report: ClassReport) -> list[str]:
    parts = report.statistics
    heads = ["split", "images", "decoded", "classes", "a class", "grey", "CMYK", "short side px", "image sizes"]
    lines = table([heads, *(_row(part) for part in parts)], left=(0, len(heads) - 1))
    lines.append("a class: images of the smallest that has any, and of the largest; short side: 5 % to 95 %")
    if any(part.held_out for part in parts):
        lines.append("val is drawn from train, as the config says (data.val is a fraction)")
    return lines


def _row(part: ClassStatistics) -> list[str]:
    counts = part.class_images.values()
    quantiles = part.as_json()["short_side_pixels"]
    if len(part.sizes) == 1:
        ((height, width),) = part.sizes
        sizes = f"{width}x{height}"
    else:
        longest = sorted(max(size) for size in part.sizes)
        sizes = f"{len(part.sizes):,} sizes, long side {longest[0]} to {longest[-1]}" if longest else "-"
    return [
        part.name,
        *(f"{number:,}" for number in (part.images, part.decoded, len(part.class_images))),
        f"{min(counts):,} to {max(counts):,}" if counts else "-",
        f"{part.grey:,}",
        f"{part.modes['CMYK']:,}",
        f"{quantiles['5']:.0f} to {quantiles['95']:.0f}" if quantiles else "-",
        sizes,
    ]


def _classes(report: ClassReport) -> list[str]:
    """Images of each class, largest first; of very many classes the ends."""
    parts = report.statistics
    total = {name: sum(part.class_images[name] for part in parts) for name in report.class_names}
    ranked = sorted(total, key=lambda name: (-total[name], name))
    left_out = len(ranked) - 2 * _ENDS_SHOWN if len(ranked) > _CLASSES_SHOWN else 0
    shown = [*ranked[:_ENDS_SHOWN], *ranked[-_ENDS_SHOWN:]] if left_out else ranked
    most = max((parts[0].class_images[name] for name in ranked), default=0)
    rows = [["class", *(f"{part.name} images" for part in parts), "of train"]]
    for name in shown:
        images = [f"{part.class_images[name]:,}" for part in parts]
        rows.append([name, *images, "#" * round(30 * parts[0].class_images[name] / max(most, 1))])
    lines = table(rows, left=(0, len(parts) + 1))
    if left_out:
        lines.insert(1 + _ENDS_SHOWN, f"... {left_out:,} classes of sizes between: see findings.json")
    return lines
