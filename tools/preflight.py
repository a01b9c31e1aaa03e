#!/usr/bin/env python
"""Check a run before it begins: tools/preflight.py CONFIG [--data ROOT] [--cfg-options key=value ...] [--overfit [N]].

In seconds: labels, the format of boxes, mean and std against the weights, shapes and scales of maps, the first losses
against those of an untrained head, gradients of every parameter, anchors and receptive field against the boxes, the lr.
The figures are printed and left in preflight.json, the first augmented images with their boxes in preflight.jpg.
Training makes the same checks when it begins; training.preflight=False leaves them out. --overfit learns a few images
by heart, which takes minutes on a CPU.

Exit code: 0 nothing or warnings only; 1 the run would be spoilt; 2 the config or a path is wrong; 130 interrupted.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transfer.build import Node
    from transfer.data.subset import SubsetDataset
    from transfer.engine.train import Run
    from transfer.types import Batch, DetectionDataset

MOST_TO_LEARN = 10


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Check a run before it begins.")
    parser.add_argument("config", help="a file of configs/, or your own")
    parser.add_argument("--data", metavar="ROOT", help="folder of the data set, instead of the config's")
    parser.add_argument(
        "--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="override existing keys, as optimizer.lr=0.01"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N")
    parser.add_argument(
        "--overfit", nargs="?", type=int, const=MOST_TO_LEARN, metavar="N", help="learn N images by heart, at most 10"
    )
    parser.add_argument(
        "--output", metavar="DIR", help="default: a new numbered folder below runs/preflight/CONFIG_NAME/"
    )
    return parser.parse_args()


def main(arguments: argparse.Namespace) -> int:
    """Check, and return the exit code."""
    from transfer.assemble import build_run, set_data_root
    from transfer.build import build, load_config
    from transfer.checking.folders import check_output, named_folder, new_folder
    from transfer.cli import configure_logging
    from transfer.engine.distributed import World, choose_device
    from transfer.preflight.memorising import images_with_objects, memorise
    from transfer.preflight.preflight import preflight
    from transfer.preflight.report import JSON_FILE, PICTURE_FILE, as_text, findings_text, write_report
    from transfer.types import UserError

    configure_logging()
    count = arguments.overfit
    if count is not None and not 1 <= count <= MOST_TO_LEARN:
        raise UserError(f"--overfit {count}: give a number of images from 1 to {MOST_TO_LEARN}")
    config = load_config(arguments.config, arguments.cfg_options)
    if arguments.data is not None:
        set_data_root(config, arguments.data)
    numbered = arguments.output is None
    output = Path("runs/preflight") / Path(arguments.config).stem if numbered else Path(arguments.output)
    check_output(output, numbered=numbered)
    run, _, data = build_run(config, World(0, 1, choose_device(arguments.device)))
    dataset: Any = data.train
    images = [] if count is None else images_with_objects(dataset, count)
    report = preflight(run, data.train)
    folder = new_folder(output) if numbered else named_folder(output)
    write_report(report, folder)
    print(as_text(report), flush=True)
    print(f"\n{report.seconds:.1f} s; all of it in {folder / JSON_FILE}, {folder / PICTURE_FILE}", flush=True)
    if count is not None and report.errors:
        print("--overfit is left out: mend the errors first", flush=True)
    elif count is not None:
        learnt = memorise(run, *to_learn(config, run, dataset, images), build(config["metrics"], "metrics"))
        report.outcomes.append(learnt)
        write_report(report, folder)
        print("\n".join(["", *learnt.lines, *(findings_text(learnt.findings) if learnt.findings else [])]), flush=True)
    return int(bool(report.errors))


def to_learn(config: Node, run: Run, dataset: DetectionDataset, images: list[int]) -> tuple[SubsetDataset, list[Batch]]:
    """Some images of a data set, and the same as the test pipeline prepares them, in batches of the run's size."""
    import dataclasses

    from transfer.assemble import backbone_of
    from transfer.data.subset import SubsetDataset
    from transfer.loading import build_augment, loader_settings, test_loader

    settings = loader_settings(config)
    settings = dataclasses.replace(settings, test_batch_size=min(settings.batch_size, len(images)), workers=0)
    subset = SubsetDataset(dataset, indices=images)
    pad_value = backbone_of(run.task.model).pad_value
    return subset, list(test_loader(subset, build_augment(config, "test"), settings, pad_value, run.world))


if __name__ == "__main__":
    parsed = parse_arguments()  # before the imports, which take seconds: --help need not wait for them
    from transfer.cli import run

    run(lambda: main(parsed))
