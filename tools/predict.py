#!/usr/bin/env python
"""Detect objects in pictures, segment or classify them: tools/predict.py CHECKPOINT PATHS... [--output DIR].

CHECKPOINT may be an ONNX file that tools/export.py made of one. PATHS are files, folders (searched through) and globs.
Draws each picture and writes predictions.json, boxes in pixels of the original picture.
"""

from __future__ import annotations

import argparse


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Predict pictures with a checkpoint or an exported file.")
    parser.add_argument("checkpoint", help="last.pth or best.pth of a run, or an exported .onnx")
    parser.add_argument("paths", nargs="+", metavar="PATHS", help="files, folders, globs")
    parser.add_argument("--output", metavar="DIR", help="a new folder (default: predictions/001 and so on)")
    parser.add_argument("--score", type=float, default=0.3, help="weaker detections are left out (default 0.3)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N")
    parser.add_argument("--no-fuse", action="store_true", help="do not fold batch norms into convolutions")
    parser.add_argument("--no-pictures", action="store_true", help="write predictions.json only")
    parser.add_argument("--trust", nargs="+", default=[], metavar="MODULE", help="modules of your own that it may use")
    parser.add_argument(
        "--tta", nargs="*", type=float, metavar="SCALE",
        help="predict mirrored images, too, at these scales of the test size (default: 1), and merge by box voting",
    )  # fmt: skip
    return parser.parse_args()


def main(arguments: argparse.Namespace) -> int:
    """Predict, and return the exit code."""
    from transfer.cli import configure_logging
    from transfer.prediction import predict_paths

    configure_logging()
    predict_paths(
        arguments.checkpoint,
        arguments.paths,
        output=arguments.output,
        score=arguments.score,
        device=arguments.device,
        pictures=not arguments.no_pictures,
        trust=arguments.trust,
        fuse=not arguments.no_fuse,
        test_time=None if arguments.tta is None else {"scales": arguments.tta or [1.0], "flip": True},
    )
    return 0


if __name__ == "__main__":
    parsed = parse_arguments()
    from transfer.cli import run

    run(lambda: main(parsed))
