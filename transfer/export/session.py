"""An exported file in the place of a model: ONNX Runtime computes, everything around it stays as it is.

The test pipeline, batches, postprocess, test-time views, metrics and drawings do not know the difference: a file gives
the outputs of the model it was made of, or detections that only go back to the pixels of the original image.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from backbones.contract import Backbone
from transfer.assemble import TASKS, task_name
from transfer.build import Node, build, from_json
from transfer.data.strangers import printable
from transfer.engine.checkpoint import Checkpoint
from transfer.engine.task import Task
from transfer.export.onnx_file import ExportFacts, read
from transfer.heads.classification import ClassifierOutput
from transfer.heads.faster_rcnn import FasterRCNNOutput
from transfer.heads.segmentation import SegmentationOutput
from transfer.ops.best_detections import DetectionFilter
from transfer.ops.boxes import clip_boxes
from transfer.restoring import Restored, building, check_postprocess, config_for_testing, trusted_modules
from transfer.types import ClassScores, LabelMap, Prediction, RefusedCheckpoint, Size, Target, UserError

_Output = tuple[torch.dtype, tuple[str, ...]]

_DUE: dict[str, dict[str, tuple[_Output, ...]]] = {
    "classification": {"logits": ((torch.float32, ("B", "K")),)},
    "segmentation": {"logits": ((torch.float32, ("B", "K", "h", "w")),)},
    "detection": {
        "scored": ((torch.float32, ("B", "N", "4")), (torch.float32, ("B", "N", "K"))),
        "regions": (
            (torch.float32, ("B", "P", "4")),
            (torch.bool, ("B", "P")),
            (torch.float32, ("B", "P", "K+1")),
            (torch.float32, ("B", "P", "K or 1", "4")),
        ),
        "detections": (
            (torch.float32, ("B", "M", "4")),
            (torch.float32, ("B", "M")),
            (torch.int64, ("B", "M")),
        ),
    },
}
"""Task and what a file for it may give: of each output type and shape, for B images and K classes."""
_PREDICTS = {"classification": ClassScores, "segmentation": LabelMap, "detection": Prediction}
_TYPES = {"tensor(float)": torch.float32, "tensor(bool)": torch.bool, "tensor(int64)": torch.int64}
_TAKEN = {"images": "tensor(uint8)", "sizes": "tensor(int64)"}


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
        num_classes: K: what the graph gives is checked against it.
        threads: 0: as many as torch has.
    Raises:
        RefusedCheckpoint: ONNX Runtime does not take the graph, or it is none for this task and so many classes.
    """

    def __init__(
        self,
        content: bytes,
        facts: ExportFacts,
        task: str,
        backbone: Backbone,
        *,
        num_classes: int,
        threads: int = 0,
    ) -> None:
        super().__init__()
        if facts.gives not in _DUE[task]:
            raise RefusedCheckpoint(f"the file is for {task}, but gives {facts.gives}: take another copy")
        self.backbone, self.facts, self.task, self.num_classes = backbone, facts, task, num_classes
        self.due = _DUE[task][facts.gives]
        self.session = open_session(content, threads=threads or torch.get_num_threads())
        taken, given = self.session.get_inputs(), self.session.get_outputs()
        self.takes = [value.name for value in taken]
        types = [_TAKEN.get(value.name) for value in taken]
        if self.takes not in (["images"], ["images", "sizes"]) or types != [value.type for value in taken]:
            said = printable(", ".join(f"{value.name} ({value.type})" for value in taken)[:200])
            raise RefusedCheckpoint(f"an exported file takes images (uint8) and sizes (int64), this one {said}")
        self._check([_TYPES.get(value.type, value.type) for value in given], [value.shape or None for value in given])

    def forward(self, images: Tensor, sizes: Sequence[Size], targets: Sequence[Target] | None = None) -> Any:
        """What the model gives that the file was made of.

        Args:
            images: [B, 3, H, W] uint8.
            sizes: (height, width) of each image's valid part.
            targets: not read.
        Raises:
            UserError: images of a size that the file does not take; what it gives for them is not what it must be.
        """
        given = self.feeds(images, sizes)
        step = self.facts.batch or len(images)
        try:
            parts = [
                self.session.run(None, {name: array[start : start + step] for name, array in given.items()})
                for start in range(0, len(images), step)
            ]
            values = [torch.from_numpy(np.concatenate(arrays)) for arrays in zip(*parts)]
        except Exception as error:  # those of ONNX Runtime have no common class
            shape = "x".join(map(str, given["images"].shape))
            raise RefusedCheckpoint(_said(f"this file fails on images [{shape}]", error)) from error
        self._check([value.dtype for value in values], [value.shape for value in values], images=len(images))
        self._check_boxes(values)
        return self.output(values, images, (given["images"].shape[2], given["images"].shape[3]))

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

    def _check(self, types: Sequence[Any], shapes: Sequence[Sequence[Any] | None], images: int | None = None) -> None:
        """Raises: RefusedCheckpoint where types or shapes are others than due; what is not known (no number) fits."""
        classes, anything = self.num_classes, range(1, 1 << 31)
        allowed: dict[str, Container[int]] = {"4": (4,), "K": (classes,), "K+1": (classes + 1,), "K or 1": (classes, 1)}
        allowed |= {"h": anything, "w": anything} | ({} if images is None else {"B": (images,)})
        for name, dtype, shape, (due, sides) in zip(self.facts.outputs, types, shapes, self.due, strict=True):
            fits = shape is None or len(shape) == len(sides)
            for side, number in zip(sides, shape or ()):
                fits &= not isinstance(number, int) or number in allowed.setdefault(side, (number,))
            if not fits or dtype != due:
                found = "" if shape is None else f" [{', '.join(map(str, shape))}]"
                raise RefusedCheckpoint(
                    f"the file gives {name} as {printable(f'{dtype}{found}'[:100])}, where {due} [{', '.join(sides)}] "
                    f"is due in {self.task}, K being its class names, which are {classes}. Take another copy"
                )

    def _check_boxes(self, values: Sequence[Tensor]) -> None:
        """Raises: RefusedCheckpoint where boxes are no numbers, or labels those of no class."""
        named = dict(zip(self.facts.outputs, values, strict=True))
        if "boxes" in named and bool(named["boxes"].isnan().any()):
            raise RefusedCheckpoint("the file gives boxes that are no numbers: export the checkpoint again")
        if "labels" in named:
            labels = named["labels"][named["scores"] > 0]
            if bool(((labels < 0) | (labels >= self.num_classes)).any()):
                raise RefusedCheckpoint(
                    f"the file gives labels from {int(labels.min())} to {int(labels.max())}; its class names are "
                    f"{self.num_classes}. Take another copy"
                )

    def output(self, values: Sequence[Tensor], images: Tensor, size: Size) -> Any:
        """What the postprocess reads, made of what the graph gives for images that were padded to `size`."""
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
    options.add_session_config_entry("session.load_model_format", "ONNX")  # what was checked, not its own format
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"], enable_fallback=0)
    except Exception as error:  # its errors have no common class
        raise RefusedCheckpoint(_said("ONNX Runtime does not take this graph", error)) from error


def _said(what: str, error: Exception) -> str:
    """Names in a graph are a stranger's: nothing of them moves a terminal."""
    return printable(f"{what}: {error}"[:400])


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
    trusted = trusted_modules(trust)
    names, about = tuple(str(each) for each in checkpoint["class_names"]), checkpoint["backbone"]
    with building("the file's"):
        config = config_for_testing(from_json(checkpoint["config"]), from_stranger=trusted is not None)
        # Its statistics alone: they say what padding holds.
        backbone = Backbone((1,), (facts.multiple,), mean=about["mean"], std=about["std"])
        name = task_name(config)
        model = ExportedModel(content, facts, name, backbone, num_classes=len(names), threads=threads).eval()
        task = TASKS[name](model, _untrainable, _postprocess(config, facts, trusted))
        _try_postprocess(task, model)
    return checkpoint, Restored(task, config, names, [int(i) for i in checkpoint["category_ids"]], trusted)


def _postprocess(config: Node, facts: ExportFacts, trusted: Sequence[str] | None) -> Any:
    """The config's postprocess, or what is left to do behind a graph that gives boxes."""
    postprocess = build(config["postprocess"], "postprocess", trusted=trusted)
    check_postprocess(postprocess, config)
    if facts.gives == "detections":
        return ExportedPostprocess(None)
    return ExportedPostprocess(postprocess.filter) if facts.gives == "scored" else postprocess


def _try_postprocess(task: Task, model: ExportedModel) -> None:
    """Call it with ones for what a graph gives: which class it is, the file chose.

    Raises:
        Exception: of any kind.
    """
    sides = dict.fromkeys(("B", "h", "w", "N", "P", "M", "K or 1"), 1)
    sides |= {"4": 4, "K": model.num_classes, "K+1": model.num_classes + 1}
    values = [torch.ones([sides[side] for side in shape], dtype=dtype) for dtype, shape in model.due]
    nothing = torch.zeros(0)
    target = Target(
        boxes=torch.zeros(0, 4), labels=nothing.long(), difficult=nothing.bool(), weights=nothing, size=(1, 1),
        index=0, image_id=0, path="", original_size=(1, 1), scale=(1.0, 1.0),
    )  # fmt: skip
    predictions = task.postprocess(model.output(values, torch.zeros(1, 3, 1, 1, dtype=torch.uint8), (1, 1)), [target])
    if len(predictions) != 1 or not isinstance(predictions[0], _PREDICTS[model.task]):
        raise TypeError(f"a {type(task.postprocess).__name__} is no postprocess for {model.task}")


def _untrainable(output: Any, targets: Any) -> NoReturn:
    raise UserError("an exported file cannot be trained: take the checkpoint it was made of")
