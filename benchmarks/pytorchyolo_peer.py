"""pytorchyolo, the public trainer of YOLOv3, beside this project: its networks, its loss and its loader.

Source: https://github.com/eriklindernoren/PyTorch-YOLOv3, PyPI 1.8.0, GPL-3.0; called here, nothing of it is copied or
shipped. Its networks are read from Darknet's text of sections. That text is written here from this project's own model,
section by section, so both are one network, and weights can be copied over; `yolov3_tiny` is written from its published
structure (Darknet's yolov3-tiny, as the peer's folder of configurations has it).

1.8.0 asks for numpy < 2, torch < 1.13 and Pillow < 10. With newer ones everything used here works but for one line of
imgaug, which reads `np.sctypes`, gone since numpy 2: `load` puts that table back.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import itertools
import warnings
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from transfer.heads.yolov3 import STRIDES, YOLOv3
from transfer.types import Target, UserError

VERSION = "1.8.0"
NEEDED = ("imgaug", "terminaltables", "torchsummary")
TINY_ANCHORS = ((10, 14), (23, 27), (37, 58), (81, 82), (135, 169), (344, 319))


def load(name: str) -> Any:
    """A module of the peer, such as "models" or "utils.loss". Raises: UserError where it is not installed."""
    widths = {"float": (16, 32, 64), "int": (8, 16, 32, 64), "uint": (8, 16, 32, 64)}
    table = {kind: [np.dtype(f"{kind}{bits}").type for bits in bits_of] for kind, bits_of in widths.items()}
    vars(np).setdefault("sctypes", table)
    try:
        return importlib.import_module(f"pytorchyolo.{name}")
    except ModuleNotFoundError as error:
        raise UserError(
            f"the peer is not installed, or not whole ({error}). Into a folder of its own, since it asks for older "
            f"libraries: pip install --no-deps --target PEER pytorchyolo=={VERSION} {' '.join(NEEDED)} scikit-image "
            "imageio shapely lazy-loader networkx tifffile six; then PYTHONPATH=PEER before this command"
        ) from error


def versions() -> dict[str, str]:
    """The peer's and those of what only it uses."""
    return {name: importlib.metadata.version(name) for name in ("pytorchyolo", *NEEDED)}


@dataclass
class Section:
    """One [section] of a configuration."""

    kind: str
    options: dict[str, Any]
    layer: tuple[nn.Conv2d, nn.Module | None] | None = field(default=None, repr=False)
    """Convolution and norm of this project's model that it stands for."""


def convolution(conv: nn.Conv2d, norm: nn.Module | None) -> Section:
    """A convolution with norm and leaky ReLU, or the bare one of an output."""
    options: dict[str, Any] = {} if norm is None else {"batch_normalize": 1}
    options |= {"filters": conv.out_channels, "size": conv.kernel_size[0], "stride": conv.stride[0], "pad": 1}
    return Section("convolutional", {**options, "activation": "linear" if norm is None else "leaky"}, (conv, norm))


def detection(anchors: Sequence[Sequence[float]], mask: Sequence[int], num_classes: int) -> Section:
    """The output of one level."""
    sides = ",".join(str(int(side)) for shape in anchors for side in shape)
    numbers = {"classes": num_classes, "num": len(anchors)}
    return Section("yolo", {"mask": ",".join(map(str, mask)), "anchors": sides, **numbers})


def sections_of(model: YOLOv3) -> list[Section]:
    """This project's YOLOv3 on a Darknet of timm's, section by section in Darknet's order: coarse level first.

    Args:
        model: with `backbone.body` of timm's darknet17, 21 or 53 and batch norm throughout.
    """
    sections: list[Section] = []
    ends: list[int] = []  # number of the section that ends each of timm's levels

    def add(block: Any) -> None:
        conv, norm = (block.conv, block.bn) if hasattr(block, "conv") else (block[0], block[1])
        sections.append(convolution(conv, norm))

    for stage in model.backbone.body.children():  # type: ignore[union-attr]
        add(stage.conv_down if hasattr(stage, "blocks") else stage)
        for block in getattr(stage, "blocks", ()):
            add(block.conv1)
            add(block.conv2)
            sections.append(Section("shortcut", {"from": -3, "activation": "linear"}))
        ends.append(len(sections) - 1)
    ends = ends[-len(STRIDES) :]
    anchors = [shape for shapes in model.anchor_grid.anchors for shape in shapes]
    neck: Any = model.neck
    body_end = None
    for level in reversed(range(len(STRIDES))):
        if body_end is not None:
            sections.append(Section("route", {"layers": body_end}))
            add(neck.laterals[level])
            sections.append(Section("upsample", {"stride": 2}))
            sections.append(Section("route", {"layers": f"-1,{ends[level]}"}))
        for block in neck.bodies[level]:
            add(block)
        body_end = len(sections) - 1
        add(neck.tips[level])
        output: Any = model.head.outputs[level]  # type: ignore[index]
        sections.append(convolution(output, None))
        count = len(model.anchor_grid.anchors[level])
        first = sum(len(shapes) for shapes in model.anchor_grid.anchors[:level])
        classes = output.out_channels // count - 5
        sections.append(detection(anchors, range(first, first + count), classes))
    return sections


def yolov3_tiny(num_classes: int) -> list[Section]:
    """Darknet's small network: seven convolutions with max pooling, two levels of strides 32 and 16."""

    def block(filters: int, size: int = 3) -> Section:
        shape = {"filters": filters, "size": size, "stride": 1, "pad": 1}
        return Section("convolutional", {"batch_normalize": 1, **shape, "activation": "leaky"})

    def output(mask: Sequence[int]) -> list[Section]:
        shape = {"filters": 3 * (5 + num_classes), "size": 1, "stride": 1, "pad": 1}
        last = Section("convolutional", {**shape, "activation": "linear"})
        return [last, detection(TINY_ANCHORS, mask, num_classes)]

    body: list[Section] = []
    for filters in (16, 32, 64, 128, 256, 512):
        body += [block(filters), Section("maxpool", {"size": 2, "stride": 1 if filters == 512 else 2})]
    coarse = [block(1024), block(256, 1), block(512), *output((3, 4, 5))]
    lateral = [Section("route", {"layers": -4}), block(128, 1), Section("upsample", {"stride": 2})]
    return [*body, *coarse, *lateral, Section("route", {"layers": "-1,8"}), block(256), *output((0, 1, 2))]


def configuration(sections: Sequence[Section], *, size: int, batch: int, optimizer: str) -> str:
    """The text that the peer reads.

    Args:
        sections: the layers.
        size: side of the images, pixels.
        batch: images of a step.
        optimizer: "adam" or "sgd".
    """
    net = {"batch": batch, "subdivisions": 1, "width": size, "height": size, "channels": 3, "optimizer": optimizer}
    net |= {"momentum": 0.9, "decay": 0.0005, "learning_rate": 0.0001, "burn_in": 1000, "max_batches": 500000}
    net |= {"policy": "steps", "steps": "400000,450000", "scales": ".1,.1"}
    texts = [
        "\n".join([f"[{section.kind}]", *(f"{key}={value}" for key, value in section.options.items())])
        for section in (Section("net", net), *sections)
    ]
    return "\n\n".join(texts) + "\n"


def network(
    sections: Sequence[Section], folder: Path, *, size: int, batch: int, optimizer: str, copy: bool = True
) -> nn.Module:
    """The peer's network of these sections, on the CPU; where they stand for layers of ours, with their weights.

    Args:
        sections: the layers.
        folder: where the configuration is written, as network.cfg.
        size: side of the images, pixels.
        batch: images of a step.
        optimizer: "adam" or "sgd".
        copy: whether weights are copied.
    """
    path = folder / "network.cfg"
    path.write_text(configuration(sections, size=size, batch=batch, optimizer=optimizer), encoding="utf-8")
    model = load("models").Darknet(str(path))
    model.apply(load("utils.utils").weights_init_normal)
    for section, made in zip(sections, model.module_list, strict=True):
        if copy and section.layer is not None:
            for ours, theirs in zip(section.layer, made):
                if ours is not None:
                    theirs.load_state_dict(ours.state_dict())
    return model


def raw_like_ours(outputs: Sequence[Tensor]) -> Tensor:
    """What the peer's network gives in training, [B, A, H, W, 5 + K] coarse to fine -> [B, N, 5 + K] as ours."""
    levels = [level.permute(0, 2, 3, 1, 4).flatten(1, 3) for level in reversed(outputs)]
    return torch.cat(levels, dim=1)


def truth_of(targets: Sequence[Target]) -> Tensor:
    """[M, 6]: image, class, and centre and sides in shares of the image, as the peer's loss takes them."""
    rows = []
    for image, target in enumerate(targets):
        height, width = target.size
        centers = (target.boxes[:, :2] + target.boxes[:, 2:]) / 2
        sides = target.boxes[:, 2:] - target.boxes[:, :2]
        whole = target.boxes.new_tensor([width, height])
        first = torch.stack([torch.full_like(target.labels, image), target.labels], dim=1).float()
        rows.append(torch.cat([first, centers / whole, sides / whole], dim=1))
    return torch.cat(rows)


def batches(list_file: Path, *, batch: int, size: int, workers: int) -> Generator[tuple[Tensor, Tensor], None, None]:
    """The peer's own loader with its own augmentation, epoch after epoch.

    Args:
        list_file: names an image a line.
        batch: images.
        size: side of the images, pixels.
        workers: processes.
    Yields:
        Images [B, 3, size, size] float in [0, 1], and truth [M, 6].
    """
    warnings.filterwarnings("ignore", message="'pin_memory' argument")  # the peer always asks for it
    loader = load("train")._create_data_loader(str(list_file), batch, size, workers)
    for _ in itertools.count():
        for _, images, truth in loader:
            yield images, truth
