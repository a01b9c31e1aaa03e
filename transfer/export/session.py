"""An exported file in the place of a model: ONNX Runtime computes, everything around it stays as it is.

The test pipeline, batches, postprocess, test-time views, metrics and drawings do not know the difference: a file gives
the outputs of the model it was made of, or detections that only go back to the pixels of the original image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from backbones.contract import Backbone
from transfer.assemble import TASKS, task_name
from transfer.build import TRUSTED_MODULES, build, from_json
from transfer.engine.checkpoint import Checkpoint
from transfer.export.onnx_file import ExportFacts, read
from transfer.heads.classification import ClassifierOutput
from transfer.heads.faster_rcnn import FasterRCNNOutput
from transfer.heads.segmentation import SegmentationOutput
from transfer.ops.best_detections import DetectionFilter
from transfer.ops.boxes import clip_boxes
from transfer.restoring import Restored, config_for_testing
from transfer.types import Prediction, RefusedCheckpoint, Size, Target, UserError


@dataclass(slots=True)
class ScoredBoxes:
    """The boxes of all slots."""

    boxes: Tensor
    """[B, N, 4] float32 xyxy, pixels of the network's input."""
    scores: Tensor
    """[B, N, K] float32."""


@dataclass(slots=True)
class FoundBoxes:
    """Detections, best first; a score of 0 means that there is none."""

    boxes: Tensor
    """[B, M, 4] float32 xyxy, pixels of the network's input."""
    scores: Tensor
    """[B, M] float32."""
    labels: Tensor
    """[B, M] int64."""


class ExportedModel(nn.Module):
    """What an exported file computes, called as a model is.

    Args:
        content: of the file.
        facts: what it says of its graph.
        task: "detection", "segmentation" or "classification".
        backbone: the input statistics: what padding holds.
        threads: 0: as many as torch has.
    Raises:
        RefusedCheckpoint: ONNX Runtime does not take the graph.
    """

    def __init__(self, content: bytes, facts: ExportFacts, task: str, backbone: Backbone, *, threads: int = 0) -> None:
        super().__init__()
        self.backbone, self.facts, self.task = backbone, facts, task
        self.session = open_session(content, threads=threads or torch.get_num_threads())
        self.takes = [value.name for value in self.session.get_inputs()]
        if self.takes not in (["images"], ["images", "sizes"]):
            raise RefusedCheckpoint(f"an exported file takes images and sizes, this one {', '.join(self.takes)[:200]}")

    def forward(self, images: Tensor, sizes: Sequence[Size], targets: Sequence[Target] | None = None) -> Any:
        """What the model gives that the file was made of.

        Args:
            images: [B, 3, H, W] uint8.
            sizes: (height, width) of each image's valid part.
            targets: not read.
        Raises:
            UserError: images of a size that the file does not take.
        """
        given = self.feeds(images, sizes)
        step = self.facts.batch or len(images)
        parts = [
            self.session.run(None, {name: array[start : start + step] for name, array in given.items()})
            for start in range(0, len(images), step)
        ]
        values = [torch.from_numpy(np.concatenate(arrays)) for arrays in zip(*parts)]
        return self._output(values, images, (given["images"].shape[2], given["images"].shape[3]))

    def feeds(self, images: Tensor, sizes: Sequence[Size]) -> dict[str, np.ndarray]:
        """What the graph takes: images padded at the right and bottom to a size that it takes."""
        height, width = int(images.shape[2]), int(images.shape[3])
        multiple = self.facts.multiple
        wanted = self.facts.size or (height + -height % multiple, width + -width % multiple)
        fits = wanted == (height, width) or (
            self.task != "classification" and wanted[0] >= height and wanted[1] >= width
        )
        if not fits:
            must = f"are of {wanted[0]}x{wanted[1]} px" if self.facts.size else f"have sides of multiples of {multiple}"
            raise UserError(
                f"images of {height}x{width} px: this file takes images that {must}: export it anew (--size)"
            )
        if wanted != (height, width):
            color = torch.tensor(self.backbone.pad_value, dtype=images.dtype)
            padded = color.view(1, 3, 1, 1).repeat(len(images), 1, *wanted)
            padded[:, :, :height, :width] = images
            images = padded
        arrays = {"images": images.numpy(), "sizes": np.array([tuple(size) for size in sizes], np.int64)}
        return {name: arrays[name] for name in self.takes}

    def _output(self, values: list[Tensor], images: Tensor, size: Size) -> Any:
        if self.facts.gives == "detections":
            return FoundBoxes(*values)
        if self.facts.gives == "scored":
            return ScoredBoxes(*values)
        if self.facts.gives == "regions":
            return _two_stage_output(*values, code=self.facts.box_code)
        (logits,) = values
        if self.task == "classification":
            return ClassifierOutput(logits, images)
        return SegmentationOutput(logits, None, size)


def _two_stage_output(regions: Tensor, found: Tensor, logits: Tensor, deltas: Tensor, *, code: Any) -> FasterRCNNOutput:
    """The output of a two-stage model, without the places that hold no region; of its first stage nothing."""
    nothing = regions.new_zeros(0)
    return FasterRCNNOutput(
        objectness=nothing,
        anchor_deltas=nothing,
        anchors=nothing,
        regions=[own[there] for own, there in zip(regions, found)],
        class_logits=logits[found],
        box_deltas=deltas[found],
        region_targets=None,
        box_code=code,
    )


class ExportedPostprocess:
    """Predictions in original pixels from the boxes that a file gives.

    Args:
        rules: what is done with scored boxes; None: the file gives detections.
    """

    def __init__(self, rules: DetectionFilter | None) -> None:
        self.rules = rules

    def __call__(self, output: ScoredBoxes | FoundBoxes, targets: Sequence[Target]) -> list[Prediction]:
        """Args: the file's output; targets for sizes and scales only. Returns: one prediction an image."""
        if isinstance(output, ScoredBoxes):
            assert self.rules is not None
            rows = zip(output.boxes, output.scores, targets, strict=True)
            return [self.rules(boxes, scores, target) for boxes, scores, target in rows]
        return [self._image(*row) for row in zip(output.boxes, output.scores, output.labels, targets, strict=True)]

    @staticmethod
    def _image(boxes: Tensor, scores: Tensor, labels: Tensor, target: Target) -> Prediction:
        there = scores > 0
        scale_y, scale_x = target.scale
        original = boxes[there] / boxes.new_tensor([scale_x, scale_y, scale_x, scale_y])
        return Prediction(clip_boxes(original, target.original_size), scores[there], labels[there])


def open_session(content: bytes, *, threads: int) -> Any:
    """A session of ONNX Runtime on the CPU.

    Raises:
        RefusedCheckpoint: it does not take the graph.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4  # what fails is raised
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common class
        raise RefusedCheckpoint(f"ONNX Runtime does not take this graph: {error}"[:400]) from error


def restore_exported(
    path: str | Path, *, trust: Sequence[str] | None = (), threads: int = 0
) -> tuple[Checkpoint, Restored]:
    """An exported file, ready to predict: a checkpoint without weights, and what `transfer.restoring.restore` gives.

    Args:
        path: written by tools/export.py.
        trust: modules besides this project's that its config may name; None: any, for a file this very process wrote.
        threads: of ONNX Runtime; 0: as many as torch has.
    Raises:
        UserError: it cannot be used.
    """
    checkpoint, facts, content = read(path)
    trusted = None if trust is None else (*TRUSTED_MODULES, *trust)
    config = config_for_testing(from_json(checkpoint["config"]), from_stranger=trusted is not None)
    name, about = task_name(config), checkpoint["backbone"]
    # Its statistics alone: they say what padding holds.
    backbone = Backbone((1,), (facts.multiple,), mean=about["mean"], std=about["std"])
    model = ExportedModel(content, facts, name, backbone, threads=threads).eval()
    postprocess = build(config["postprocess"], "postprocess", trusted=trusted)
    if facts.gives in ("scored", "detections"):
        rules = getattr(postprocess, "filter", None) if facts.gives == "scored" else None
        postprocess = ExportedPostprocess(rules)
    task = TASKS[name](model, _untrainable, postprocess)
    names = tuple(str(each) for each in checkpoint["class_names"])
    return checkpoint, Restored(task, config, names, [int(i) for i in checkpoint["category_ids"]], trusted)


def _untrainable(output: Any, targets: Any) -> NoReturn:
    raise UserError("an exported file cannot be trained: take the checkpoint it was made of")
