#!/usr/bin/env python
"""Fit anchors to the training boxes: tools/fit_anchors.py CONFIG [--data ROOT] [--cfg-options key=value ...].

Boxes are scaled as the config's test resize would scale them. Prints how well the config's anchors and the fitted ones
cover them (IoU of shapes with the best anchor), judges the fitted ones on images they were not fitted to, says whether
to switch, and gives the line for the config. The rule: switch where the gain in mean best IoU on other images is above
0.02 with certainty, that is, with the whole 95 % interval. It is a convention: training at random shapes already moves
the boxes by a third either way. A model is to be trained with the anchors it is used with, so switch before training.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

LEAST_GAIN = 0.02
"""Of mean best IoU on other images: what makes new anchors worth their while."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Fit anchors to the training boxes of a config.")
    parser.add_argument("config", help="a config whose model has anchors, such as configs/sample_yolov3_lite0.py")
    parser.add_argument("--data", metavar="ROOT", help="folder of the data set, instead of the config's")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="override existing keys")
    parser.add_argument("--anchors", type=int, help="how many, over all levels (default: as many as the config has)")
    parser.add_argument("--size", type=int, help="side of the test image in pixels, instead of augment.test.size")
    parser.add_argument("--seed", type=int, default=0, help="of the fits and draws")
    return parser.parse_args()


def anchors_of(config: dict[str, Any]) -> list[list[list[float]]]:
    """The config's anchors of each level, or the defaults of its model."""
    from transfer.build import parameters_of, resolve
    from transfer.ops.anchor_grid import checked_anchors
    from transfer.types import UserError

    known = parameters_of(resolve(config["model"].get("type", ""))) or {}
    if "anchors" not in known:
        raise UserError(f"model.type={config['model'].get('type')!r} takes no anchors: give a YOLOv3 config")
    anchors = config["model"].get("anchors", known["anchors"].default)
    levels = len(anchors) if isinstance(anchors, (list, tuple)) else 1
    return [[list(shape) for shape in level] for level in checked_anchors(anchors, levels)]


def training_shapes(config: dict[str, Any]) -> tuple[Tensor, np.ndarray, int]:
    """Widths and heights [N, 2] of the boxes that the config trains on, at its test size, and each one's image [N].

    The last number counts the difficult boxes that are left out, because the config does not train on them.
    """
    import numpy as np
    import torch

    from transfer.assemble import build_dataset
    from transfer.data.subset import split_validation
    from transfer.loading import build_augment
    from transfer.types import Request, Sample, Size

    dataset = build_dataset(config["data"]["train"], "data.train", None, None)
    if isinstance(config["data"].get("val"), float):
        dataset, _ = split_validation(dataset, config["data"]["val"], config["training"].get("seed", 0))
    augment, scales = build_augment(config, "test"), dict[Size, np.ndarray]()
    trained = config["criterion"].get("difficult", "ignore") == "train"
    sides, images, left_out = [], [], 0
    for index in range(len(dataset)):
        record = dataset.record(index)
        if record.size not in scales:  # how an image is resized follows from its size alone
            blank = np.zeros((*record.size, 3), np.uint8)
            none = np.zeros(0, np.float32)
            sample = Sample(blank, none.reshape(0, 4), none.astype(np.int64), none.astype(bool), none, index,
                            record.image_id, record.path, record.size)  # fmt: skip
            scale_y, scale_x = augment(sample, Request(index, 0), np.random.default_rng(0)).scale
            scales[record.size] = np.array([scale_x, scale_y])
        box_sides = (record.boxes[:, 2:] - record.boxes[:, :2]) * scales[record.size]
        kept = ~record.crowd & (box_sides > 0).all(axis=1)
        easy = kept & (trained | ~record.difficult)
        left_out += int((kept & ~easy).sum())
        sides.append(box_sides[easy])
        images.append(np.full(int(easy.sum()), index))
    return torch.from_numpy(np.concatenate(sides)), np.concatenate(images), left_out


def main(arguments: argparse.Namespace) -> int:
    """Fit, report, and return the exit code."""
    import logging

    import torch

    from transfer.assemble import set_data_root
    from transfer.build import apply_override, load_config
    from transfer.cli import configure_logging
    from transfer.ops.anchor_fitting import best_ious, fit_anchors, held_out_best_ious, mean_with_interval
    from transfer.types import UserError

    configure_logging()
    say = logging.getLogger("trickstack").info
    config = load_config(arguments.config, arguments.cfg_options)
    present = anchors_of(config)
    if arguments.size is not None:
        apply_override(config, f"augment.test.size={arguments.size}")
    if arguments.data is not None:
        set_data_root(config, arguments.data)
    count = sum(map(len, present)) if arguments.anchors is None else arguments.anchors
    if count < 1 or count % len(present):
        raise UserError(f"--anchors {count}: give a multiple of {len(present)}, the same number for each level")
    sides, images, left_out = training_shapes(config)
    if not len(sides):
        raise UserError(f"data.train has no box to fit anchors to ({left_out} difficult ones are not trained on)")
    old = torch.tensor([shape for level in present for shape in level], dtype=torch.float64)
    fitted = fit_anchors(sides, count, seed=arguments.seed).round().clamp(min=1)
    on_others = held_out_best_ious(sides, images, count, seed=arguments.seed)

    say("%d boxes on %d images, %d difficult ones left out", len(sides), len(set(images.tolist())), left_out)
    say("%-36s %13s %15s", "", "mean best IoU", "boxes above 0.5")
    rows = {
        f"the config's {len(old)} anchors": best_ious(sides, old),
        f"{count} fitted ones, same boxes": best_ious(sides, fitted),
        f"{count} fitted ones, on other images": on_others,
    }
    for name, ious in rows.items():
        say("%-36s %13.3f %13.1f %%", name, ious.mean(), 100 * (ious > 0.5).double().mean())
    gain, low, high = mean_with_interval(on_others - best_ious(sides, old), images, seed=arguments.seed)
    say("gain on other images: %.3f, 95 %% interval %.3f to %.3f (bootstrap of images)", gain, low, high)
    if low > LEAST_GAIN:
        say("switch: the whole interval is above %.2f", LEAST_GAIN)
    else:
        say("keep the config's anchors: not the whole interval is above %.2f", LEAST_GAIN)
    say("to train with the fitted ones, put this line at the end of the config:")
    say("model.update(anchors=%s)", fitted.int().view(len(present), -1, 2).tolist())
    return 0


if __name__ == "__main__":
    parsed = parse_arguments()
    from transfer.cli import run

    run(lambda: main(parsed))
