#!/usr/bin/env python
"""Find every problem of a data set before training: tools/check_data.py CONFIG [--data ROOT] [--fix OUT].

Reads the config's train, val and test data, decodes every image and mask, and lists what is wrong at once: a table
here, all of it in findings.json, and a page of pictures and histograms in check_data.jpg. --fix writes a repaired copy
of annotations with boxes beside links to the images; the originals are not touched. Masks and classes of whole images
are only checked.

Exit code: 0 nothing or warnings only; 1 training would stop or be wrong (with --fix: it still would with the copy);
2 the config or a path is wrong; 130 interrupted.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Find every problem of a config's data before training.")
    parser.add_argument("config", help="a file of configs/, or your own")
    parser.add_argument("--data", metavar="ROOT", help="folder of the data set, instead of the config's")
    parser.add_argument(
        "--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="override existing keys, as data.val=0.1"
    )
    parser.add_argument(
        "--output", metavar="DIR", help="default: a new numbered folder below runs/check_data/CONFIG_NAME/"
    )
    parser.add_argument("--fix", metavar="OUT", help="write a repaired copy to this new folder")
    parser.add_argument("--workers", type=int, metavar="N", help="threads that decode; default: one a core")
    return parser.parse_args()


def main(arguments: argparse.Namespace) -> int:
    """Check, and return the exit code."""
    from transfer.build import load_config
    from transfer.checking.class_reading import has_classes
    from transfer.checking.folders import check_output
    from transfer.checking.mask_reading import has_masks
    from transfer.cli import configure_logging

    configure_logging()
    config = load_config(arguments.config, arguments.cfg_options)
    if arguments.data is not None:
        from transfer.assemble import set_data_root

        set_data_root(config, arguments.data)
    numbered = arguments.output is None
    output = Path("runs/check_data") / Path(arguments.config).stem if numbered else Path(arguments.output)
    check_output(output, numbered=numbered)
    if has_classes(config):
        return check_classes(config, arguments, output)
    return check_masks(config, arguments, output) if has_masks(config) else check_boxes(config, arguments, output)


def check_boxes(config: dict[str, Any], arguments: argparse.Namespace, output: Path) -> int:
    """Data with boxes, and their repair."""
    from transfer.checking.check import check_detection
    from transfer.checking.page import draw_page
    from transfer.checking.repair import check_target, repair
    from transfer.checking.report import as_text

    out = None if arguments.fix is None else Path(arguments.fix)
    if out is not None:
        check_target(out)
    report = check_detection(
        config,
        workers=arguments.workers,
        after_reading=lambda parts: None if out is None else check_target(out, parts),
    )
    leave(report, as_text(report), partial(draw_page, report), arguments, config, output)
    if out is None:
        return int(report.is_wrong)
    repaired = repair(report, config["data"], out)
    print(f"\n{repaired.as_text()}", flush=True)
    return int(repaired.is_wrong)


def check_masks(config: dict[str, Any], arguments: argparse.Namespace, output: Path) -> int:
    """Data with masks."""
    from transfer.checking.mask_check import check_segmentation
    from transfer.checking.mask_page import draw_mask_page
    from transfer.checking.mask_report import masks_as_text
    from transfer.types import UserError

    if arguments.fix is not None:
        raise UserError("--fix repairs boxes, not masks: check without it, and mend the files that findings.json names")
    report = check_segmentation(config, workers=arguments.workers)
    leave(report, masks_as_text(report), partial(draw_mask_page, report), arguments, config, output)
    return int(report.is_wrong)


def check_classes(config: dict[str, Any], arguments: argparse.Namespace, output: Path) -> int:
    """Images with one class each."""
    from transfer.checking.class_check import check_classification
    from transfer.checking.class_page import draw_class_page
    from transfer.checking.class_report import classes_as_text
    from transfer.types import UserError

    if arguments.fix is not None:
        raise UserError("--fix repairs boxes: check without it, and mend the files that findings.json names")
    report = check_classification(config, workers=arguments.workers)
    leave(report, classes_as_text(report), partial(draw_class_page, report), arguments, config, output)
    return int(report.is_wrong)


def leave(
    report: Any,
    text: str,
    draw: Callable[[Path], None],
    arguments: argparse.Namespace,
    config: dict[str, Any],
    output: Path,
) -> None:
    """Write the findings and the page to the output folder, and print the text."""
    from transfer.checking.folders import named_folder, new_folder, write_text
    from transfer.checking.report import json_text

    folder = new_folder(output) if arguments.output is None else named_folder(output)
    write_text(folder / "findings.json", json_text(report, config=arguments.config, data=config["data"]))
    draw(folder / "check_data.jpg")
    print(text, flush=True)
    print(f"\nall of it in {folder / 'findings.json'}, pictures in {folder / 'check_data.jpg'}", flush=True)


if __name__ == "__main__":
    parsed = parse_arguments()  # before the imports, which take seconds: --help need not wait for them
    from transfer.cli import run

    run(lambda: main(parsed))
