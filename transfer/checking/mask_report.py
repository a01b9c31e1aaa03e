"""The check of a segmenter's data as text for the terminal; its JSON is that of report.py."""

from __future__ import annotations

from collections import Counter

from transfer.checking.mask_check import MaskReport
from transfer.checking.mask_statistics import MaskStatistics
from transfer.checking.report import findings_text, table

_CLASSES_SHOWN = 40
_VALUES_SHOWN = 12


def masks_as_text(report: MaskReport) -> str:
    """The report for people: what the splits hold, then the findings by code, worst first."""
    lines = [*_splits(report), "", *_classes(report), *_unknown(report.statistics)]
    return "\n".join([*lines, "", *findings_text(report.findings, can_be_fixed=False)])


def _splits(report: MaskReport) -> list[str]:
    parts = report.statistics
    heads = ["split", "images", "masks read", "empty", "pixels of classes", "ignored", "mask sizes"]
    lines = table([heads, *(_row(part) for part in parts)], left=(0, len(heads) - 1))
    lines.append("empty: every pixel is ignored; ignored: share of all pixels")
    if any(part.held_out for part in parts):
        lines.append("val is drawn from train, as the config says (data.val is a fraction)")
    return lines


def _row(part: MaskStatistics) -> list[str]:
    sizes = part.mask_sizes
    if len(sizes) == 1:
        ((height, width),) = sizes
        shown = f"{width}x{height}"
    else:
        longest = sorted(max(size) for size in sizes)
        shown = f"{len(sizes)} sizes, long side {longest[0]} to {longest[-1]}" if sizes else "-"
    numbers = [f"{number:,}" for number in (part.images, part.masks, part.empty, part.pixels)]
    return [part.name, *numbers, _percent(part.ignored_share), shown]


def _classes(report: MaskReport) -> list[str]:
    """Shares of pixels and of images, most frequent class first."""
    parts = report.statistics
    total = {name: sum(part.class_pixels[name] for part in parts) for name in report.class_names}
    present = sorted((name for name in total if total[name]), key=lambda name: -total[name])
    shown = present[:_CLASSES_SHOWN]
    rows = [["class", *(f"{part.name} {what}" for part in parts for what in ("pixels", "images")), "pixels of train"]]
    for name in shown:
        cells = []
        for part in parts:
            images = part.class_images[name]
            cells += [_percent(part.pixel_share(name)), f"{images:,} ({part.image_share(name):.0%})" if images else "-"]
        rows.append([name, *cells, "#" * round(30 * parts[0].pixel_share(name))])
    lines = table(rows, left=(0, len(rows[0]) - 1))
    if len(present) > len(shown):
        lines.append(f"and {len(present) - len(shown)} rarer classes: see findings.json")
    if len(total) > len(present):
        lines.append(f"{len(total) - len(present)} of {len(total)} classes have no pixel in any split")
    return lines


def _unknown(parts: list[MaskStatistics]) -> list[str]:
    """What stands for no class, over all splits."""
    pixels = sum((part.unknown_pixels for part in parts), Counter())
    images = sum((part.unknown_images for part in parts), Counter())
    if not pixels:
        return []
    rows = [["value without a class", "pixels", "masks"]]
    rows += [[str(value), f"{count:,}", f"{images[value]:,}"] for value, count in pixels.most_common(_VALUES_SHOWN)]
    lines = ["", *table(rows)]
    if len(pixels) > _VALUES_SHOWN:
        lines.append(f"and {len(pixels) - _VALUES_SHOWN} more: see findings.json")
    return lines


def _percent(share: float) -> str:
    """Two digits where it is small: 12.3%, 0.0041%."""
    if share == 0:
        return "-"
    return f"{share:.1%}" if share >= 0.01 else f"{100 * share:#.2g}%"
