#!/usr/bin/env python
"""Average checkpoints of one network: tools/average_checkpoints.py A.pth B.pth ... --output MEAN.pth.

The mean is evaluated, predicted with and grafted like any checkpoint; training cannot go on from it.
"""

from __future__ import annotations

import argparse


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Write the mean of several checkpoints' weights.")
    parser.add_argument("checkpoints", nargs="+", help="of one run, or of runs from the same pretrained weights")
    parser.add_argument("--output", required=True, metavar="FILE", help="a new file")
    parser.add_argument(
        "--statistics", type=int, default=0, metavar="IMAGES",
        help="measure batch norm's statistics anew on so many training images (default: average them, too)",
    )  # fmt: skip
    parser.add_argument("--device", default="auto", help="for --statistics: auto, cpu, cuda, cuda:N")
    parser.add_argument(
        "--trust", nargs="+", default=[], metavar="MODULE", help="modules of your own that they may use"
    )
    return parser.parse_args()


def main(arguments: argparse.Namespace) -> int:
    """Average, and return the exit code."""
    from transfer.averaging import average_checkpoints
    from transfer.cli import configure_logging

    configure_logging()
    average_checkpoints(
        arguments.checkpoints,
        arguments.output,
        statistics=arguments.statistics,
        device=arguments.device,
        trust=arguments.trust,
    )
    return 0


if __name__ == "__main__":
    parsed = parse_arguments()
    from transfer.cli import run

    run(lambda: main(parsed))
