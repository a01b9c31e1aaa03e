#!/usr/bin/env python
"""Write a model as an ONNX file: tools/export.py CHECKPOINT [--output model.onnx] [--int8].

The file takes uint8 RGB images and has all in it that tools/predict.py and tools/evaluate.py need. It is compared with
the checkpoint on real images before it gets its name. docs/export.md has what is exported how.
"""

from __future__ import annotations

import argparse


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Write a trained model as an ONNX file.")
    parser.add_argument("checkpoint", help="last.pth or best.pth of a run")
    parser.add_argument("--output", metavar="FILE", help="a new file (default: beside the checkpoint, ending in .onnx)")
    parser.add_argument(
        "--size", nargs=2, type=int, metavar=("H", "W"), help="images of this size alone (default: of any size)"
    )
    parser.add_argument(
        "--nms", choices=("inside", "outside"), default="inside",
        help="of detectors: whether the file suppresses double detections itself (default), or gives all boxes",
    )  # fmt: skip
    parser.add_argument("--opset", type=int, default=18, metavar="N", help="version of ONNX's operators (default 18)")
    parser.add_argument(
        "--check", nargs="+", default=[], metavar="IMAGES",
        help="files, folders, globs to compare on (default: four scenes of the embedded sample)",
    )  # fmt: skip
    parser.add_argument("--int8", action="store_true", help="write FILE.int8.onnx, too, and measure what it costs")
    parser.add_argument(
        "--calibration", nargs="+", default=[], metavar="IMAGES",
        help="for --int8: files, folders, globs (default: training images of the checkpoint's config)",
    )  # fmt: skip
    parser.add_argument(
        "--images", type=int, default=100, metavar="N",
        help="for --int8: so many to calibrate on, and so many test images to measure on (default 100)",
    )  # fmt: skip
    parser.add_argument("--data", metavar="ROOT", help="for --int8: data folder, in place of the config's")
    parser.add_argument("--trust", nargs="+", default=[], metavar="MODULE", help="modules of your own that it may use")
    return parser.parse_args()


def main(arguments: argparse.Namespace) -> int:
    """Export, and return the exit code."""
    from transfer.cli import configure_logging
    from transfer.export.command import export_checkpoint

    configure_logging()
    export_checkpoint(
        arguments.checkpoint,
        arguments.output,
        size=None if arguments.size is None else (arguments.size[0], arguments.size[1]),
        suppression=arguments.nms,
        opset=arguments.opset,
        check_on=arguments.check,
        int8=arguments.int8,
        calibration=arguments.calibration,
        images=arguments.images,
        data=arguments.data,
        trust=arguments.trust,
    )
    return 0


if __name__ == "__main__":
    parsed = parse_arguments()
    from transfer.cli import run

    run(lambda: main(parsed))
