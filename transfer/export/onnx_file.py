"""An ONNX file of this project: a graph, and with it all that a checkpoint says except its weights.

So an exported file is predicted with and evaluated like the checkpoint it came from: the config in it names the test
pipeline, the classes and the postprocess, and the same checks as on a checkpoint's hold for it. What is in a stranger's
file is read as data: a graph is arithmetic alone, and one that keeps its numbers in other files, whose paths it could
choose, is refused.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from transfer.data.strangers import printable
from transfer.engine.checkpoint import FORMAT, Checkpoint
from transfer.engine.checkpoint_fields import wrong_fields
from transfer.export.nms import translations
from transfer.export.quiet import quiet
from transfer.types import RefusedCheckpoint, TryAgain, UserError, is_number

_KEY = "trickstack"
_LARGEST_FILE = 2 << 30
"""Bytes: no more fit into the format."""
_LARGEST_SIDE = 1 << 14
_LARGEST_FACTOR = 1e6
_FROM_CHECKPOINT = (
    *("format", "iteration", "seed", "world_size", "best", "config", "class_names", "category_ids", "backbone"),
    *("metrics", "measured_at", "versions", "git", "data"),
)
_GIVES = {
    "logits": ("logits",),
    "scored": ("boxes", "scores"),
    "regions": ("regions", "found", "logits", "deltas"),
    "detections": ("boxes", "scores", "labels"),
}
"""What a graph gives, by the names of its outputs."""


@dataclass(frozen=True, kw_only=True)
class ExportFacts:
    """What the file says of its graph."""

    gives: str
    """"logits", "scored" (boxes of all slots), "regions" or "detections" (NMS inside)."""
    multiple: int
    """Both sides of an image must be multiples of it."""
    size: tuple[int, int] | None = None
    """(height, width) of every image; None: any."""
    batch: int | None = None
    """Images of every batch; None: any number."""
    box_code: tuple[float, ...] | None = None
    """Factors of the deltas of regions."""
    precision: str = "float32"
    """Or "int8"."""

    def __post_init__(self) -> None:
        sides = self.size or (self.multiple, self.multiple)
        whole = all(type(n) is int and 0 < n <= _LARGEST_SIDE for n in (*sides, self.multiple, self.batch or 1))
        codes = self.box_code if self.gives == "regions" else (1.0,) * 4
        if (
            self.gives not in _GIVES
            or self.precision not in ("float32", "int8")
            or len(sides) != 2
            or not whole
            or not isinstance(codes, tuple)
            or len(codes) != 4
            or not all(is_number(factor) and 0 < factor < _LARGEST_FACTOR for factor in codes)
        ):
            raise ValueError(f"no description of a graph: {self!r:.200}")

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what the graph gives, in its order."""
        return _GIVES[self.gives]


def gives_of(graph: nn.Module) -> str:
    """What a graph gives, from the names of its outputs."""
    return next(name for name, outputs in _GIVES.items() if outputs == graph.outputs)


def need(*packages: str) -> None:
    """Raises: UserError where one of the packages that export needs is not installed."""
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise UserError(f"ONNX files need {', '.join(missing)}, not installed here: pip install 'trickstack[export]'")


def written(graph: nn.Module, example: Sequence[Tensor], *, facts: ExportFacts, opset: int) -> Any:
    """The graph as an ONNX model without metadata.

    Args:
        graph: in eval mode, with `inputs` and `outputs`.
        example: what it takes: images [B, 3, H, W] uint8, and of detectors sizes [B, 2] int64. At least two images
            where their number is free: the exporter takes a dimension of 1 for one that never changes.
        facts: which dimensions are fixed.
        opset: version of ONNX's operators.
    Raises:
        Exception: of any kind, where torch's exporter cannot write it, or fixes what should stay free.
    """
    batch = torch.export.Dim("batch", min=1, max=1 << 16)
    of_images: dict[int, Any] = {} if facts.batch else {0: batch}
    if facts.size is None:
        cells = _LARGEST_SIDE // facts.multiple
        of_images |= {side: facts.multiple * torch.export.Dim(f"cells_{side}", min=1, max=cells) for side in (2, 3)}
    shapes = (of_images, {} if facts.batch else {0: batch})[: len(example)]
    with warnings.catch_warnings(), quiet("torch.onnx", "torch.export", "onnxscript", "onnx_ir"):
        warnings.simplefilter("ignore")  # of what torch will change some day
        program = torch.onnx.export(
            graph,
            tuple(example),
            dynamo=True,
            input_names=list(graph.inputs),  # type: ignore[arg-type]
            output_names=list(graph.outputs),  # type: ignore[arg-type]
            dynamic_shapes=shapes,
            opset_version=opset,
            custom_translation_table=translations(),
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    taken = model.graph.input[0].type.tensor_type.shape.dim
    fixed = [place for place in of_images if taken[place].dim_value]
    if fixed:
        raise ValueError(f"dimension {fixed[0]} of the images was fixed to {taken[fixed[0]].dim_value}")
    # The exporter's guesses at shapes between: two of them may share a name and not be equal.
    del model.graph.value_info[:]
    for value, names in ((model.graph.input[0], {2: "height", 3: "width"}), *((out, {}) for out in model.graph.output)):
        for place, dimension in enumerate(value.type.tensor_type.shape.dim):
            if dimension.dim_param and dimension.dim_param != "batch":
                dimension.dim_param = names.get(place, f"{value.name}_{place}")
    return model


def describe(model: Any, checkpoint: Checkpoint, facts: ExportFacts) -> None:
    """Write what the checkpoint says, and the facts, into the metadata of an ONNX model, in place."""
    import onnx

    from transfer.engine.checkpoint import library_versions

    about = {name: checkpoint[name] for name in _FROM_CHECKPOINT if name in checkpoint}
    about |= {"export": dataclasses.asdict(facts), "exported_with": library_versions()}
    onnx.helper.set_model_props(model, {_KEY: json.dumps(about)})
    model.producer_name, model.producer_version = "trickstack", about["exported_with"]["trickstack"]


def save(model: Any, path: Path) -> None:
    """Write a model, and have it checked by the library.

    Raises:
        TryAgain: the disk is full or not writable.
    """
    import onnx

    onnx.checker.check_model(model, full_check=True)
    try:
        with open(path, "wb") as file:
            file.write(model.SerializeToString())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise TryAgain(f"cannot write {str(path)!r}: {error}") from error


def read(path: str | Path) -> tuple[Checkpoint, ExportFacts, bytes]:
    """A file that `save` wrote: a checkpoint without weights, the facts, and the content, checked.

    Raises:
        RefusedCheckpoint: missing, damaged, not of this project, or with parts in other files.
        UserError: onnx is not installed.
    """
    need("onnx", "onnxruntime")
    import onnx
    from google.protobuf.message import DecodeError

    path = Path(path)
    if not path.is_file():
        raise RefusedCheckpoint(f"no file {str(path)!r}")
    if path.stat().st_size > _LARGEST_FILE:
        raise RefusedCheckpoint(f"{str(path)!r} has more than {_LARGEST_FILE >> 30} GB, which no ONNX file has")
    content = path.read_bytes()
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError as error:
        raise RefusedCheckpoint(f"{str(path)!r} is no ONNX file, or is cut short: take another copy") from error
    if any(_lies_elsewhere(tensor) for tensor in _tensors(model)):
        raise RefusedCheckpoint(
            f"{str(path)!r} keeps numbers in other files, which are not read: this project writes them into the file"
        )
    texts = [entry.value for entry in model.metadata_props if entry.key == _KEY]
    if not texts:
        raise RefusedCheckpoint(
            f"{str(path)!r} does not say how its images are prepared and what its numbers mean: export a checkpoint of "
            "this project with tools/export.py"
        )
    checkpoint, facts = _parsed(texts[0], str(path), len(content))
    names = [str(value.name) for value in model.graph.output]  # bytes where they are no text
    if tuple(names) != facts.outputs:
        raise RefusedCheckpoint(
            f"{str(path)!r} gives {printable(', '.join(names)[:200])}, where {', '.join(facts.outputs)} is due"
        )
    return checkpoint, facts, content


def _parsed(text: str, path: str, file_bytes: int) -> tuple[Checkpoint, ExportFacts]:
    """The metadata, checked as a checkpoint's fields are."""
    try:
        about = json.loads(text)
        assert isinstance(about, dict)
        exported = dict(about.pop("export"))
        facts = ExportFacts(
            **{**exported, **{key: tuple(exported[key]) for key in ("size", "box_code") if exported.get(key)}}
        )
    except (ValueError, AssertionError, KeyError, TypeError, RecursionError) as error:
        raise RefusedCheckpoint(f"{path!r}: its description is damaged: {error}"[:300]) from error
    checkpoint = {**about, "model": {}, **dict.fromkeys(("ema", "optimizer", "scaler"))}
    if checkpoint.get("format") != FORMAT:
        raise RefusedCheckpoint(f"{path!r} is of another version of this project: export the checkpoint again")
    problems = wrong_fields(checkpoint, file_bytes=file_bytes)
    if problems:
        raise RefusedCheckpoint(f"{path!r} is not as this project writes it: {'; '.join(problems)}. Take another copy")
    return checkpoint, facts


def _tensors(message: Any) -> Iterator[Any]:
    """Every tensor of a model, wherever in it: initial values, attributes, functions, graphs within graphs."""
    import onnx

    waiting = [message]
    while waiting:
        current = waiting.pop()
        if isinstance(current, onnx.TensorProto):
            yield current
            continue
        for _, value in current.ListFields():
            inner = [value] if hasattr(value, "ListFields") else value
            if not isinstance(inner, (str, bytes, int, float, Mapping)):
                waiting += [item for item in inner if hasattr(item, "ListFields")]


def _lies_elsewhere(tensor: Any) -> bool:
    return bool(tensor.external_data) or tensor.data_location == tensor.EXTERNAL
