"""DropBlock: the share it drops, by definition and by counting; where blocks lie; off, as if it were not there."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from backbones.contract import Backbone, BackboneError, wrap
from backbones.dropblock import DropBlock, attach_dropblock, block_rate
from transfer.assemble import build_run
from transfer.engine.distributed import World
from transfer.engine.train import train
from transfer.types import UserError

ALONE = World(0, 1, torch.device("cpu"))


def dropped(level: Tensor, **options: Any) -> Tensor:
    (result,) = DropBlock(**options).train()([level])
    return result


# ---- the share ----


def kept_by_definition(size: int, block: int, rate: float) -> float:
    """A cell is kept when no place whose block holds it was drawn, each place by itself."""
    places = range(size - block + 1)
    kept = [
        (1 - rate) ** sum(a <= row < a + block and b <= column < b + block for a in places for b in places)
        for row in range(size)
        for column in range(size)
    ]
    return float(np.mean(kept))


@pytest.mark.parametrize(("size", "block"), [(1, 1), (2, 2), (5, 3), (7, 7), (8, 7), (11, 7), (11, 4)])
@pytest.mark.parametrize("keep", [0.5, 0.9, 0.99, 1.0])
def test_the_rate_gives_the_share_by_definition(size: int, block: int, keep: float) -> None:
    assert kept_by_definition(size, block, block_rate((size, size), (block, block), keep)) == pytest.approx(keep)


def test_the_rate_of_single_places_and_single_cells_is_the_share() -> None:
    assert block_rate((7, 7), (7, 7), 0.8) == pytest.approx(0.2)
    assert block_rate((9, 5), (1, 1), 0.8) == pytest.approx(0.2)


@pytest.mark.parametrize(("height", "width", "keep"), [(10, 10, 0.9), (10, 10, 0.5), (20, 13, 0.8), (6, 4, 0.9)])
def test_the_share_of_dropped_cells(height: int, width: int, keep: float) -> None:
    torch.manual_seed(0)
    result = dropped(torch.ones(50, 40, height, width), keep=keep)
    shares = (result == 0).float().mean(dim=(2, 3)).flatten()  # 2000 maps, independent of one another
    assert float(shares.mean()) == pytest.approx(1 - keep, abs=4 * float(shares.std()) / len(shares) ** 0.5)
    assert result.unique().tolist() == [0, pytest.approx(1 / keep)]


def test_the_mean_over_a_maps_cells_stays() -> None:
    """Of the map as a whole: cells at its edge lie in fewer blocks than those in its middle."""
    torch.manual_seed(0)
    means = dropped(torch.ones(200, 20, 9, 9), keep=0.7, block=3).mean(dim=(2, 3)).flatten()
    assert float(means.mean()) == pytest.approx(1, abs=4 * float(means.std()) / len(means) ** 0.5)


# ---- the blocks ----


def test_dropped_cells_are_unions_of_whole_blocks_within_the_map() -> None:
    torch.manual_seed(0)
    zeros = (dropped(torch.ones(4, 30, 11, 9), keep=0.7, block=3) == 0).float()
    whole = nn.functional.avg_pool2d(zeros, 3, stride=1) > 0.999  # [.., 9, 7]: a block of zeros begins here
    cells = nn.functional.conv_transpose2d(whole.float().flatten(0, 1)[:, None], torch.ones(1, 1, 3, 3)) > 0
    assert torch.equal(cells.reshape(zeros.shape), zeros.bool())
    assert 0 < float(zeros.mean()) < 1


def test_every_channel_and_image_has_its_own_blocks() -> None:
    torch.manual_seed(0)
    zeros = (dropped(torch.ones(6, 6, 12, 12), keep=0.5, block=3) == 0).flatten(0, 1).flatten(1)
    assert len({tuple(row.tolist()) for row in zeros}) == 36


def test_an_image_does_not_depend_on_the_others_of_its_batch() -> None:
    images = torch.rand(3, 4, 10, 10)
    other = torch.cat([images[:1], torch.rand(2, 4, 10, 10)])
    results = []
    for batch in (images, other):
        torch.manual_seed(0)
        results.append(dropped(batch, keep=0.5)[0])
    assert torch.equal(*results)


def test_half_precision_stays_and_large_maps_do_not_overflow() -> None:
    torch.manual_seed(0)
    result = dropped(torch.ones(2, 64, 32, 32, dtype=torch.float16), keep=0.9)  # 131,072 cells: a half ends at 65,504
    assert result.dtype == torch.float16
    assert float(result.max()) == pytest.approx(1 / 0.9, abs=1e-3)


# ---- when and where ----


def test_only_the_coarsest_levels_and_only_in_training() -> None:
    maps = [torch.ones(2, 8, side, side) for side in (32, 16, 8)]
    module = DropBlock(keep=0.5, levels=2)
    torch.manual_seed(0)
    fine, *coarse = module(maps)
    assert fine is maps[0]
    assert all((level == 0).any() for level in coarse)
    module.eval()
    state = torch.get_rng_state()
    assert all(a is b for a, b in zip(module(maps), maps, strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    assert len(DropBlock(keep=0.5, levels=9)(maps)) == 3


def test_the_keep_probability_falls_linearly_from_1() -> None:
    module, level = DropBlock(keep=0.6), torch.ones(200, 10, 10, 10)
    module.set_progress(0)
    assert module([level])[0] is level
    for done, keep in ((0.25, 0.9), (0.5, 0.8), (1.0, 0.6)):
        module.set_progress(done)
        torch.manual_seed(1)
        (result,) = module([level])
        assert float(result.max()) == pytest.approx(1 / keep)
        assert float((result == 0).float().mean()) == pytest.approx(1 - keep, abs=0.03)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"keep": 0}, ["keep=0", "above 0"]),
        ({"keep": "0.9x", "block": 0}, ["keep='0.9x'", "block=0"]),
        ({"block": 7.0, "levels": True}, ["block=7.0", "levels=True"]),
    ],
)
def test_arguments_are_checked(options: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(BackboneError) as error:
        DropBlock(**options)
    assert all(part in str(error.value) for part in ["DropBlock", *parts])


# ---- on a backbone ----


def small_backbone() -> Backbone:
    torch.manual_seed(0)
    return wrap(nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.ReLU()), channels=(8,), strides=(4,))


def test_attached_it_adds_no_state_and_goes_along_into_a_copy() -> None:
    backbone = small_backbone()
    keys, images = set(backbone.state_dict()), torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    plain = backbone(images)[0]
    attach_dropblock(backbone, DropBlock(keep=0.5))
    assert set(backbone.state_dict()) == keys
    duplicate = copy.deepcopy(backbone)
    duplicate.dropblock.set_progress(0)
    torch.manual_seed(0)
    assert torch.equal(duplicate(images)[0], plain)
    assert not torch.equal(backbone(images)[0], plain)
    assert torch.equal(backbone.eval()(images)[0], plain)
    with pytest.raises(BackboneError, match="already"):
        attach_dropblock(backbone, DropBlock())


# ---- in a run ----


def run_with(config: dict[str, Any], dropblock: dict[str, Any] | None) -> tuple[Any, list[dict[str, float]]]:
    config = copy.deepcopy(config)
    config["training"].update(epochs=None, iterations=4, evaluate_every=0, dropblock=dropblock, ema={"decay": 0.5})
    run, _, _ = build_run(config, ALONE)
    losses: list[dict[str, float]] = []
    assert train(run, lambda model: [], [lambda event: losses.append(event.losses) if hasattr(event, "lr") else None])
    return run, losses


def test_a_run_starts_without_and_ends_near_the_end_value(tiny_config: dict[str, Any]) -> None:
    _, plain = run_with(tiny_config, None)
    run, losses = run_with(tiny_config, {"keep": 0.5, "block": 3})
    assert losses[0] == plain[0]  # nothing is dropped in the first step
    assert losses[1] != plain[1]
    assert run.task.model.backbone.dropblock.progress == 0.75  # the last of four steps
    again, same = run_with(tiny_config, {"keep": 0.5, "block": 3})
    assert same == losses
    keys = {key for key in run.state()["model"] if "dropblock" in key}
    assert not keys
    assert not hasattr(again.ema.module.backbone, "dropblock")


def test_keeping_everything_trains_as_without(tiny_config: dict[str, Any]) -> None:
    plain, ours = (run_with(tiny_config, dropblock)[0].state()["model"] for dropblock in (None, {"keep": 1.0}))
    assert plain.keys() == ours.keys()
    assert all(torch.equal(plain[key], ours[key]) for key in plain)


@pytest.mark.parametrize(
    ("dropblock", "message"),
    [
        (0.9, r"dropblock=0\.9 must be None or a dict, such as dict\(keep=0\.9\)"),
        ({"kep": 0.9}, r"training\.dropblock: DropBlock takes no 'kep', did you mean 'keep'"),
    ],
)
def test_mistakes_in_a_config_are_named(tiny_config: dict[str, Any], dropblock: Any, message: str) -> None:
    tiny_config["training"]["dropblock"] = dropblock
    with pytest.raises(UserError, match=message):
        build_run(tiny_config, ALONE)
