"""From a checkpoint to an ONNX file that was seen to agree with it: what tools/export.py calls."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from transfer.assemble import backbone_of, task_name
from transfer.batch.collate import Collate
from transfer.batch.view import ViewedSample
from transfer.data.image import read_image
from transfer.engine.checkpoint import Checkpoint, load_checkpoint
from transfer.export.agreement import check
from transfer.export.fused import fused
from transfer.export.graph import Suppression, graph_of, multiple_of, with_fixed_padding
from transfer.export.onnx_file import ExportFacts, describe, gives_of, need, save, written
from transfer.export.session import ExportedModel, restore_exported
from transfer.loading import build_augment
from transfer.prediction import find_images, sample_of
from transfer.restoring import Restored, restore
from transfer.types import Batch, Request, Size, TryAgain, UserError

logger = logging.getLogger("trickstack")

_OPSETS = range(18, 26)
_PROBES = 4
_BATCHES = (None, 1)
"""Lengths of a batch to try: any, one image."""
_CELLS = (20, 24)
"""Sides of what the exporter is shown, in multiples: of a map with one cell it would take that 1 for given."""


@dataclass(frozen=True)
class Probe:
    """Real images to compare on, prepared as for testing."""

    samples: list[ViewedSample]
    collate: Collate

    def batch(self, count: int) -> Batch:
        """The first so many images."""
        return self.collate(self.samples[:count])


def export_checkpoint(
    path: str | Path,
    output: str | Path | None = None,
    *,
    size: Size | None = None,
    suppression: Suppression = "inside",
    opset: int = 18,
    check_on: Sequence[str] = (),
    int8: bool = False,
    calibration: Sequence[str] = (),
    images: int = 100,
    data: str | None = None,
    trust: Sequence[str] = (),
) -> Path:
    """Write a checkpoint's model as an ONNX file, compared with it on real images.

    Args:
        path: a checkpoint of this project.
        output: a new file; None: beside the checkpoint, with the ending .onnx.
        size: (height, width) that all images will have; None: any.
        suppression: whether a detector's NMS goes inside.
        opset: version of ONNX's operators.
        check_on: files, folders, globs of images to compare on; none: scenes of the embedded sample.
        int8: write a second file that computes in 8-bit integers, and measure both.
        calibration: files, folders, globs to learn its ranges from; none: the config's training images.
        images: so many of those at the most, and so many test images to measure on.
        data: folder in place of the config's.
        trust: modules besides this project's that the checkpoint's config may name.
    Returns:
        The file.
    Raises:
        UserError: what the user can mend; a model that cannot be exported; results that are not the checkpoint's.
    """
    need("onnx", "onnxruntime", "onnxscript")
    target = Path(path).with_suffix(".onnx") if output is None else Path(output)
    targets = [target, target.with_suffix(".int8.onnx")] if int8 else [target]
    checkpoint = load_checkpoint(path)
    _check_arguments(targets, opset, images)
    restored = restore(checkpoint, torch.device("cpu"), trust=trust)
    probe = _probe(restored, check_on)
    if int8:
        from transfer.export.integers import Photographs, write_integers

        photographs = Photographs.found(restored, calibration=calibration, count=images, data=data)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
        draft = Path(folder) / "draft.onnx"
        facts = _write(draft, checkpoint, restored, probe, size=size, suppression=suppression, opset=opset)
        drafts = [draft]
        if int8:
            drafts.append(Path(folder) / "integers.onnx")
            write_integers(draft, drafts[1], checkpoint, photographs, trust=trust)
        for made, final in zip(drafts, targets, strict=True):
            os.replace(made, final)
            logger.info("%s: %.1f MB, %s", final, final.stat().st_size / 1e6, _described(facts))
    return target


def _check_arguments(targets: Sequence[Path], opset: int, images: int) -> None:
    """Raises: UserError for what is wrong, before anything is computed."""
    for target in targets:
        if target.suffix != ".onnx":
            raise UserError(f"--output {str(target)!r}: give a name that ends in .onnx")
        if target.exists():
            raise UserError(f"--output {str(target)!r} is there already: give another name")
    if not targets[0].parent.is_dir():
        raise UserError(f"--output {str(targets[0])!r}: there is no folder {str(targets[0].parent)!r}")
    if opset not in _OPSETS:
        raise UserError(f"--opset {opset}: give {_OPSETS[0]} to {_OPSETS[-1]}")
    if images < 1:
        raise UserError(f"--images {images}: give at least 1")


def _probe(restored: Restored, paths: Sequence[str]) -> Probe:
    """The first images of `paths`, or some of the embedded sample."""
    pipeline = build_augment(restored.config, "test", restored.trusted)
    divisor = restored.config["loader"].get("size_divisor", 32)
    collate = Collate(
        backbone_of(restored.task.model).pad_value,
        size_divisor=1 if task_name(restored.config) == "classification" else divisor,
    )
    with tempfile.TemporaryDirectory() as folder:
        if not paths:
            from transfer.data.sample import make_sample

            made = make_sample(Path(folder) / "sample", train=1, test=3, crops_per_class=0)
            paths = [str(made / "**" / "JPEGImages" / "*.jpg")]
        pixels = [(read_image(file), file) for file in find_images(paths)[:_PROBES]]
    request = Request(0, 0)
    samples = [pipeline(sample_of(image, file), request, np.random.default_rng(0)) for image, file in pixels]
    return Probe([ViewedSample(sample, request) for sample in samples][:_PROBES], collate)


def _write(
    draft: Path,
    checkpoint: Checkpoint,
    restored: Restored,
    probe: Probe,
    *,
    size: Size | None,
    suppression: Suppression,
    opset: int,
) -> ExportFacts:
    """Write and compare: for batches and images of any size where that can be, else for less."""
    task = restored.task
    model, multiple = fused(task.model), multiple_of(task.model)
    attempts = [
        ExportFacts(gives="logits", multiple=multiple, size=each, batch=batch)
        for each in _sizes(restored, probe, size, multiple)
        for batch in _BATCHES
    ]
    for facts in attempts:
        odd = facts.size is not None and any(side % multiple for side in facts.size)
        graph: Any = graph_of(model if odd else with_fixed_padding(model), task.postprocess, suppression).eval()
        gives = gives_of(graph)
        facts = replace(facts, gives=gives, box_code=tuple(graph.code) if gives == "regions" else None)
        try:
            example = _example(graph, facts.batch or 2, facts.size or (_CELLS[0] * multiple, _CELLS[1] * multiple))
            made = written(graph, example, facts=facts, opset=opset)
            describe(made, checkpoint, facts)
            save(made, draft)
            _compare(restored, draft, probe, facts)
            return facts
        except TryAgain:
            raise
        except Exception as error:  # torch's exporter and ONNX Runtime raise of all kinds
            said = f"{type(error).__name__}: {error}".partition("\n")[0][:300]
            if facts.size == attempts[-1].size and facts.batch == attempts[-1].batch:
                raise UserError(
                    f"this {type(task.model).__name__} cannot be exported ({said}); docs/export.md has a table of what "
                    "can: try another --opset, --size or --nms"
                ) from error
            logger.warning("not possible, less is tried: %s (%s)", _described(facts), said)
    raise AssertionError("an attempt returns or raises")


def _sizes(restored: Restored, probe: Probe, size: Size | None, multiple: int) -> list[Size | None]:
    """The sizes to try: the one asked for; or any (None), then that of the test pipeline's images."""
    height, width = (int(side) for side in probe.batch(len(probe.samples)).images.shape[2:])
    if task_name(restored.config) == "classification":  # images that are classified are not padded
        if size is not None and size != (height, width):
            raise UserError(
                f"--size {size[0]} {size[1]}: the test pipeline makes images of {height} {width}, which are not "
                "padded: give that, or leave it out"
            )
        if height % multiple or width % multiple:
            return [(height, width)]
    if size is None:
        return [None, (height + -height % multiple, width + -width % multiple)]
    if any(side < 1 or side % multiple for side in size):
        raise UserError(f"--size {size[0]} {size[1]}: this network takes sides that are multiples of {multiple}")
    return [size]


def _example(graph: Any, count: int, size: Size) -> tuple[torch.Tensor, ...]:
    """Images of noise, and their sizes where the graph takes them."""
    images = torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return (images, torch.tensor([size] * count))[: len(graph.inputs)]


def _compare(restored: Restored, draft: Path, probe: Probe, facts: ExportFacts) -> None:
    """Raises: UserError where the file differs from the checkpoint on single images, a batch, or another size."""
    _, exported = restore_exported(draft, trust=None)
    single = [_fitting(probe.collate([sample]), exported.task.model) for sample in probe.samples]
    said = check(restored.task, exported.task, single, "single images")
    level = logging.INFO if said.compared else logging.WARNING
    logger.log(level, "beside the checkpoint, %d images: %s", len(single), said.text())
    both = _fitting(probe.batch(2), exported.task.model)
    if len(both.targets) > 1:
        logger.info("a batch of two: %s", check(restored.task, exported.task, [both], "a batch of two").text())
    if facts.size is None:
        other = _cropped(both, facts.multiple)
        height, width = other.images.shape[2:]
        said = check(restored.task, exported.task, [other], f"images of {height}x{width} px")
        logger.info("at %dx%d px: %s", height, width, said.text())


def _fitting(batch: Batch, model: ExportedModel) -> Batch:
    """The batch as it is; for a file of one size padded to that, so that both see the same."""
    if model.facts.size is None:
        return batch
    padded = model.feeds(batch.images, [target.size for target in batch.targets])["images"]
    return Batch(torch.from_numpy(padded), batch.targets)


def _cropped(batch: Batch, multiple: int) -> Batch:
    """The batch without its last rows and columns, so many that it has another shape."""
    height, width = (max(multiple, int(side) // multiple * multiple - multiple) for side in batch.images.shape[2:])
    targets = [target.to("cpu") for target in batch.targets]
    for target in targets:
        target.size = (min(target.size[0], height), min(target.size[1], width))
    return Batch(batch.images[:, :, :height, :width].contiguous(), targets)


def _described(facts: ExportFacts) -> str:
    sizes = f"images of {facts.size[0]}x{facts.size[1]} px" if facts.size else f"sides of multiples of {facts.multiple}"
    rules = {"detections": ", NMS inside", "scored": ", NMS outside", "regions": ", NMS of the second stage outside"}
    batches = "one image at a time" if facts.batch == 1 else "batches of any length"
    return f"{batches}, {sizes}{rules.get(facts.gives, '')}"
