#!/usr/bin/env python
"""Measure a checkpoint: tools/evaluate.py CHECKPOINT [--data ROOT_OR_CONFIG] [--output DIR].

Everything needed is in the checkpoint; --data names the same kind of data elsewhere (a folder), or other data (a config
whose data.test is taken). Classes are matched by name. Writes results.json and, in COCO's format, detections.json.
"""

from __future__ import annotations

import argparse


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure a detector from its checkpoint.")
    parser.add_argument("checkpoint", help="last.pth or best.pth of a run, or an exported .onnx")
    parser.add_argument("--data", metavar="ROOT_OR_CONFIG", help="data folder, or a config whose data.test is measured")
    parser.add_argument("--split", choices=("test", "val", "train"), default="test", help="which of the config's data")
    parser.add_argument(
        "--output", metavar="DIR", help="default: a new numbered folder evaluation/ beside the checkpoint"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N")
    parser.add_argument("--workers", type=int, help="instead of the config's loader.workers")
    parser.add_argument("--trust", nargs="+", default=[], metavar="MODULE", help="modules of your own that it may use")
    parser.add_argument(
        "--tta", nargs="*", type=float, metavar="SCALE",
        help="predict mirrored images, too, at these scales of the test size (default: 1), and merge by box voting",
    )  # fmt: skip
    return parser.parse_args()


def main(arguments: argparse.Namespace) -> int:
    """Measure, and return the exit code."""
    from transfer.cli import configure_logging
    from transfer.evaluation import evaluate_checkpoint

    configure_logging()
    evaluate_checkpoint(
        arguments.checkpoint,
        data=arguments.data,
        split=arguments.split,
        output=arguments.output,
        device=arguments.device,
        workers=arguments.workers,
        trust=arguments.trust,
        test_time=None if arguments.tta is None else {"scales": arguments.tta or [1.0], "flip": True},
    )
    return 0


if __name__ == "__main__":
    parsed = parse_arguments()
    from transfer.cli import run

    run(lambda: main(parsed))
