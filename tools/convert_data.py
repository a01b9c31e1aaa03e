#!/usr/bin/env python
"""Convert a data set: tools/convert_data.py SOURCE --to voc|coco|yolo --output OUT [--folds 5].

SOURCE is a folder in VOC's, COCO's or YOLO's layout, or a COCO JSON or YOLO YAML file. Its splits are kept unless
--split or --folds makes new ones. OUT must not exist; it appears when it is complete.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Convert a data set between VOC, COCO and YOLO text.")
    parser.add_argument("source", type=Path, help="folder of the data set, or its JSON or YAML file")
    parser.add_argument("--to", required=True, choices=("voc", "coco", "yolo"))
    parser.add_argument("--output", required=True, type=Path, metavar="OUT", help="a new folder")
    parser.add_argument(
        "--from",
        dest="source_format",
        choices=("voc", "coco", "yolo"),
        help="instead of a guess by what lies in SOURCE",
    )
    parser.add_argument(
        "--images", default="link", choices=("link", "copy", "none"), help="link (the default) makes symbolic links"
    )
    parser.add_argument("--image-root", type=Path, metavar="DIR", help="folder of COCO's images; else looked for")
    parser.add_argument("--only", nargs="+", default=[], metavar="SPLIT", help="read these splits of SOURCE only")
    new = parser.add_mutually_exclusive_group()
    new.add_argument("--split", nargs="+", metavar="NAME=SHARE", help="share all images out anew, stratified by class")
    new.add_argument("--folds", type=int, metavar="K", help="share all images out to K folds, each with train and val")
    parser.add_argument(
        "--keep", nargs="+", default=[], metavar="SPLIT", help="with --split or --folds: splits that stay as they are"
    )
    parser.add_argument("--seed", type=int, default=0, help="of --split and --folds")
    parser.add_argument(
        "--rename", nargs="+", default=[], metavar="OLD=NEW", help="other class names; OLD= drops the class's boxes"
    )
    parser.add_argument(
        "--on-broken", default="stop", choices=("stop", "skip"), help="skip leaves faulty images out; stop lists all"
    )
    return parser.parse_args()


def main(arguments: argparse.Namespace) -> int:
    """Convert, print the report, and return the exit code."""
    from transfer.cli import configure_logging
    from transfer.convert.arguments import parse_rename, parse_shares
    from transfer.convert.convert import convert

    configure_logging()
    report = convert(
        arguments.source,
        arguments.output,
        to=arguments.to,
        source_format=arguments.source_format,
        images=arguments.images,
        image_root=arguments.image_root,
        only=arguments.only,
        shares=None if arguments.split is None else parse_shares(arguments.split),
        folds=arguments.folds,
        keep=arguments.keep,
        seed=arguments.seed,
        rename=parse_rename(arguments.rename),
        on_broken=arguments.on_broken,
    )
    print("\n".join(report))
    return 0


if __name__ == "__main__":
    parsed = parse_arguments()  # before the imports, which take seconds: --help need not wait for them
    from transfer.cli import run

    run(lambda: main(parsed))
