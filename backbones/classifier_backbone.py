"""The body of a classifier as it is published, up to the vector that its last layer reads.

Source: the networks come from timm (Wightman, github.com/huggingface/pytorch-image-models), the names of papers from
`backbones.named`; zero gamma and the Xavier start are those of He et al. 2018, *Bag of Tricks*, arXiv 1812.01187,
sections 2.1 and 3.1; stochastic depth is Huang et al. 2016, arXiv 1603.09382, in timm's form.

Why this is not `TimmBackbone`: for maps to be grafted from, timm leaves out what stands behind the last of them, such
as the final convolution of MobileNetV3 and EfficientNet, ConvNeXt's last norm or VGG's fully connected layers. A
classifier grown without these is not the published one. What is grown here is grafted by its checkpoint: it loads into
`TimmBackbone` and `NamedBackbone` of the same name, whose layers are all part of it.

Deviation: timm starts the last norm of each residual block at zero in most families; here that is `zero_gamma`, off by
default.
"""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backbones.contract import IMAGENET_MEAN, IMAGENET_STD, NORM_POLICIES, Backbone, BackboneError, Tail, measure
from backbones.initialization import initialize
from backbones.named import NAMES, STRIDE_FIRST, form_of, published_form, put_stride_first
from backbones.norms import apply_norm_policy
from backbones.residual_gamma import zero_residual_gammas
from backbones.timm_plan import RESERVED_OPTIONS, built_on_meta
from backbones.weights import LoadReport, check_form, load_weights

_OWN_OPTIONS = RESERVED_OPTIONS | {"num_classes", "drop_path_rate", "zero_init_last"}
"""Arguments of timm.create_model that are this module's to give."""


class ClassifierBackbone(Backbone):
    """A classifier without its last layer; `pooled` gives what that layer reads, `forward` the last map before it.

    Networks that work on tokens (ViT) give `pooled` alone.

    Args:
        name: one of the papers' (`backbones.named.NAMES`: "resnet50" is the original form, "resnet50b" timm's), or
            timm's name of a model.
        weights: as for `TimmBackbone`; of one of the papers' names, published weights only where they are of its form.
        norm: "batch", "frozen", "synchronized" or "group"; see `backbones.norms`.
        zero_gamma: whether the last norm of each residual block starts at zero; see `backbones.residual_gamma`.
            Weights replace it.
        init: "xavier" or "kaiming" (see `backbones.initialization`); None leaves timm's own. Weights replace it.
        drop_path: probability in [0, 1) that the last residual block is skipped for an image in training; of earlier
            blocks it is less in proportion to their depth.
        model_options: passed to timm, such as {"drop_rate": 0.5}.

    Raises:
        BackboneError: unknown name or option, what the network does not have, weights that are not of it.
    """

    def __init__(
        self,
        name: str,
        *,
        weights: str | Path | None = None,
        norm: str = "batch",
        zero_gamma: bool = False,
        init: str | None = None,
        drop_path: float = 0.0,
        model_options: Mapping[str, Any] | None = None,
    ) -> None:
        timm_name, options = NAMES.get(name, (name, {}))
        options = {**options, **(model_options or {})}
        _check(name, weights, norm, drop_path, options)
        if zero_gamma and norm == "frozen" and weights is None:
            raise BackboneError(
                "zero_gamma=True with norm='frozen': the zeros would never change; leave one of them out"
            )
        plan = _plan(timm_name, json.dumps(options, sort_keys=True), float(drop_path))
        super().__init__(
            plan.channels,
            plan.strides,
            name=name,
            mean=plan.config.get("mean") or IMAGENET_MEAN,
            std=plan.config.get("std") or IMAGENET_STD,
            interpolation=plan.config.get("interpolation") or "bilinear",
            input_size=plan.input_size,
            norm=norm,
        )
        self.load_report: LoadReport | None = None
        self.timm_name, self.plan, self.weights_given = timm_name, plan, weights
        self.has_map = plan.has_map
        body = plan.create(timm_name)
        if name in STRIDE_FIRST:
            put_stride_first(body)
        if init is not None:
            initialize(body, init)
        if zero_gamma:
            zero_residual_gammas(body, name=name)
        # Replaced before loading: a checkpoint of a group-norm network then fits, and its statistics are accounted for.
        self.body = apply_norm_policy(body, norm) if norm == "group" else body
        if weights is not None:
            self._load(weights, timm_name)
        if norm != "group":
            apply_norm_policy(self.body, norm)
        self.form = form_of(name)
        check_form(self.load_report, self.form, name)
        self.train()

    @property
    def pooled_channels(self) -> int:
        """Numbers that `pooled` gives for an image."""
        return self.plan.pooled_channels

    def features(self, images: Tensor) -> list[Tensor]:
        """The last map of normalised images [B, 3, H, W], as a list of one [B, C, H / stride, W / stride].

        Raises:
            BackboneError: the network works on tokens and has no such map.
        """
        if not self.plan.has_map:
            raise BackboneError(
                f"{self.name} ends in tokens, which are no map [B, C, H, W]: use pooled(images), or graft maps from it "
                "with backbones.timm_backbone.TimmBackbone"
            )
        last = self.body.forward_features(images)  # type: ignore[operator]
        return [last.permute(0, 3, 1, 2) if self.plan.channels_last else last]

    def pooled(self, images: Tensor) -> Tensor:
        """What the classifier's last layer reads: pooled, and through the layers behind the pooling.

        Args:
            images: [B, 3, H, W] uint8, or floating in 0..255; RGB.

        Returns:
            [B, pooled_channels].
        """
        if self.plan.has_map:
            (last,) = self(images)  # by a call, so that hooks (DropBlock) take part
            last = last.permute(0, 2, 3, 1) if self.plan.channels_last else last
        else:
            last = self.body.forward_features(self.normalize(images))  # type: ignore[operator]
        return self.body.forward_head(last, pre_logits=True)  # type: ignore[operator]

    def split(self, stride: int) -> tuple[Backbone, Tail]:
        """Refused: a classifier is not cut, its checkpoint is grafted."""
        raise BackboneError(
            f"split(stride={stride}): {self.name} is a classifier's body, which is not cut: give its checkpoint as "
            f"weights to backbones.named.NamedBackbone or backbones.timm_backbone.TimmBackbone"
        )

    def _load(self, weights: str | Path, timm_name: str) -> None:
        """Load weights and take over the input statistics they come with."""
        report = load_weights(
            self.body,
            weights,
            architecture=timm_name,
            full_names={key: key for key in self.body.state_dict()},
            full_shapes=self.plan.full_shapes,
        )
        if report.mean is not None and report.std is not None:
            self.set_statistics(report.mean, report.std, report.interpolation)
        self.load_report = report
        self.weights_source = report.source


@dataclass(frozen=True)
class _Plan:
    """What a classifier of timm will be, found out before it is built."""

    options: dict[str, Any]
    """Passed to timm."""
    channels: tuple[int, ...]
    """Of the last map; of the tokens where there is none."""
    strides: tuple[int, ...]
    pooled_channels: int
    has_map: bool
    channels_last: bool
    input_size: tuple[int, int]
    full_shapes: dict[str, torch.Size]
    """State of the model with its last layer, in its order."""
    config: dict[str, Any]
    """timm's record of the pretraining."""

    def create(self, timm_name: str) -> nn.Module:
        """Build the network for real."""
        import timm

        return timm.create_model(timm_name, num_classes=0, **self.options)


@lru_cache(maxsize=64)  # a test or an experiment builds the same model many times
def _plan(timm_name: str, options_json: str, drop_path: float) -> _Plan:
    """Measure a classifier of timm on the meta device."""
    import timm

    given = json.loads(options_json)
    with built_on_meta():
        options, body = _first_that_builds(timm_name, given, drop_path)
        full = timm.create_model(timm_name, **options)
        config = dict(getattr(body, "pretrained_cfg", None) or {})
        height, width = tuple(config.get("input_size") or (3, 224, 224))[-2:]
        try:
            with torch.no_grad():
                last = body.eval().forward_features(torch.empty(1, 3, height, width))
                pooled = body.forward_head(last, pre_logits=True)
            channels_last = isinstance(last, Tensor) and last.dim() == 4 and last.shape[1] != body.num_features
            channels_last = channels_last and last.shape[3] == body.num_features
        except (AttributeError, TypeError, RuntimeError, NotImplementedError) as error:
            raise BackboneError(
                f"{timm_name} does not run as a classifier without its last layer ({type(error).__name__}: {error})"
            ) from error
        if not isinstance(pooled, Tensor) or pooled.dim() != 2:
            raise BackboneError(f"{timm_name} does not end in one vector an image: its global_pool is needed")
    has_map = isinstance(last, Tensor) and last.dim() == 4
    if has_map:
        last = last.permute(0, 3, 1, 2) if channels_last else last
        try:
            channels, strides = measure(_LastMap(body, channels_last))
        except BackboneError:  # it takes images of one size alone, which will do for a classifier
            channels, strides = (int(last.shape[1]),), (height // int(last.shape[2]),)
    else:
        reduction = (getattr(body, "feature_info", None) or [{"reduction": height}])[-1]["reduction"]
        channels, strides = (int(body.num_features),), (int(reduction),)
    return _Plan(
        options=options,
        channels=channels,
        strides=strides,
        pooled_channels=int(pooled.shape[1]),
        has_map=has_map,
        channels_last=channels_last,
        input_size=(height, width),
        full_shapes={key: value.shape for key, value in full.state_dict().items()},
        config=config,
    )


class _LastMap(nn.Module):
    """The last map of a classifier, to be measured."""

    def __init__(self, body: nn.Module, channels_last: bool) -> None:
        super().__init__()
        self.body, self.channels_last = body, channels_last

    def forward(self, images: Tensor) -> Tensor:
        last = self.body.forward_features(images)  # type: ignore[operator]
        return last.permute(0, 3, 1, 2) if self.channels_last else last


def _first_that_builds(timm_name: str, given: dict[str, Any], drop_path: float) -> tuple[dict[str, Any], Any]:
    """The options that a model takes, of those this module would give it, and the model."""
    import timm

    def first(options: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
        error: TypeError | None = None
        for candidate in _candidates(timm_name, options):
            try:
                return candidate, timm.create_model(timm_name, num_classes=0, **candidate)
            except TypeError as refused:
                error = error or refused
        raise BackboneError(f"model_options={dict(given)}: {timm_name} does not take them ({error})") from error

    options, body = first(given)
    if drop_path == 0:
        return options, body
    try:
        options, body = first({**given, "drop_path_rate": drop_path})
    except BackboneError:
        skipped = False
    else:
        skipped = any((getattr(layer, "drop_prob", 0) or 0) > 0 for layer in body.modules())
    if not skipped:
        raise BackboneError(f"drop_path={drop_path}: timm's {timm_name} has no blocks to skip: leave it out")
    return options, body


def _candidates(timm_name: str, options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The options with what this module adds; families that do not know an option raise TypeError."""
    import timm

    config = timm.get_pretrained_cfg(timm_name)
    # Plain transformers name their form that takes any image size one way, windowed ones the other.
    sizes: list[dict[str, Any]] = [{"dynamic_img_size": True}, {"strict_img_size": False}]
    sizes = [*(sizes if config is not None and config.fixed_input_size else []), {}]
    for size, zero in itertools.product(sizes, ({"zero_init_last": False}, {})):
        yield {**size, **zero, **options}


def _check(name: str, weights: str | Path | None, norm: str, drop_path: float, options: Mapping[str, Any]) -> None:
    """Raise one error that names every argument that no model could satisfy."""
    import timm

    problems = []
    base, _, tag = str(name).partition(".")
    if name in NAMES:
        problems += published_form(name, weights)
    elif not timm.is_model(base):
        nearest = difflib.get_close_matches(base.lower(), sorted({*NAMES, *timm.list_models()}), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(map(repr, nearest))}?" if nearest else "see timm.list_models()"
        problems.append(f"name={name!r} is neither one of the papers' names nor one of timm's; {hint}")
    elif tag:
        problems.append(f"name={name!r}: give name={base!r}, and the tag as weights='timm:{tag}'")
    if norm not in NORM_POLICIES:
        problems.append(f"norm={norm!r}: give {', '.join(NORM_POLICIES)}")
    if isinstance(drop_path, bool) or not isinstance(drop_path, (int, float)) or not 0 <= drop_path < 1:
        problems.append(f"drop_path={drop_path!r} must be a number in [0, 1)")
    reserved = sorted(_OWN_OPTIONS & set(options))
    if reserved:
        problems.append(
            f"model_options={reserved}: weights come from weights=..., the rest from zero_gamma=... and drop_path=..."
        )
    if problems:
        raise BackboneError("; ".join(problems))
