"""The losses of a classifier: its classes, and what a teacher says.

Sources: He et al. 2018, Bag of Tricks (arXiv 1812.01187), sections 5.2 to 5.4, for smoothed labels, distillation and
mixed images; Wightman et al. 2021, ResNet strikes back (arXiv 2110.00476), for binary cross entropy.

An image is taught the shares of its classes: 1 for its own, lambda and 1 - lambda for those of two mixed images. Cross
entropy with shares is the mixture of the losses of each class alone. Smoothing mixed labels is mixing smoothed ones, as
timm and GluonCV do. Without mixing and smoothing, the loss is torch's cross entropy to the last bit.

"bce" and "focal" take each class for itself, by its own sigmoid, and average over the classes as timm does (its option
sum_classes adds them up instead): whatever K is, "bce" begins at ln 2, with gradients that are K times smaller than a
sum's, so that its lr is not that of cross entropy. Their targets are the shares, smoothed by the same rule; counting
every class of a mixed image as wholly present, which timm offers as a threshold, is left out.

Class weights multiply the loss of each class's share. The mean is over images, not over weights, so that a rare class
counts for the same whatever else is in its batch, and halving a batch while accumulating two changes nothing; torch
divides by the batch's weights. Weights that average 1 over the training images leave the lr what it was.

The mean is over the images of all processes, so that two processes equal one. The distillation term is
`transfer.losses.distillation`, neither smoothed nor weighted by class; of mixed images, the teacher sees the mixture,
and should have been trained on such (BoT, section 5.4).
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from transfer.heads.classification import ClassifierOutput
from transfer.losses.distillation import Teacher, distillation_loss
from transfer.losses.focal import BinaryLoss
from transfer.losses.soft_targets import smoothed_probabilities, soft_cross_entropy
from transfer.ops.world import mean_over_processes
from transfer.types import Target, UserError, is_number

LOSSES = ("cross_entropy", "bce", "focal")
FORMS = ("usual", "paper")


@dataclass(slots=True)
class ImageTruth:
    """What the images of a batch are taught."""

    labels: Tensor
    """[B] int64 where every image has one class; else [B, K] shares, each row summing to 1."""
    weights: Tensor | None
    """[B]: each image's factor; None: all 1."""

    def probabilities(self, num_classes: int, dtype: torch.dtype) -> Tensor:
        """The labels as [B, K]."""
        if self.labels.dim() == 2:
            return self.labels
        return nn.functional.one_hot(self.labels, num_classes).to(dtype)


class ClassificationCriterion:
    """The class loss, and with a teacher the distillation loss.

    Args:
        loss: "cross_entropy" of the softmax; "bce" or "focal" of each class for itself.
        label_smoothing: e in [0, 1), of every loss.
        smoothing_form: "usual" or "paper", the two ways to smooth; see `transfer.losses.soft_targets`.
        focal_alpha, focal_gamma: of the focal loss; see `transfer.losses.focal`.
        class_weights: one number above 0 a class; None: all 1.
        teacher: images to logits of the same classes, a module or any callable; None: no distillation. It is kept out
            of the model, so neither trained nor saved.
        temperature: of the distillation, above 0. It and the next two are read with a teacher only.
        hard_weight: factor on the class loss, at least 0.
        soft_weight: factor on the distillation loss, above 0. The paper has 1 and 1, its authors' script 0.5 and 0.5.

    Raises:
        UserError: an argument is not as said above.
    """

    def __init__(
        self,
        *,
        loss: Literal["cross_entropy", "bce", "focal"] = "cross_entropy",
        label_smoothing: float = 0.0,
        smoothing_form: Literal["usual", "paper"] = "usual",
        focal_alpha: float | None = 0.25,
        focal_gamma: float = 2.0,
        class_weights: Sequence[float] | None = None,
        teacher: Callable[[Tensor], Any] | None = None,
        temperature: float = 20.0,
        hard_weight: float = 1.0,
        soft_weight: float = 1.0,
    ) -> None:
        problems = _choice("loss", loss, LOSSES) + _choice("smoothing_form", smoothing_form, FORMS)
        if not is_number(label_smoothing) or not 0 <= label_smoothing < 1:
            problems.append(f"label_smoothing={label_smoothing!r} must be a number in [0, 1)")
        problems += _weight_problems(class_weights)
        problems += _distillation_problems(teacher, temperature, hard_weight, soft_weight)
        try:
            self.binary = BinaryLoss("bce" if loss == "bce" else "focal", alpha=focal_alpha, gamma=focal_gamma)
        except UserError as error:
            problems.append(str(error))
        if problems:
            raise UserError("ClassificationCriterion: " + "; ".join(problems))
        self.loss, self.label_smoothing, self.smoothing_form = loss, float(label_smoothing), smoothing_form
        self.class_weights = None if class_weights is None else tuple(float(weight) for weight in class_weights)
        self.teacher = None if teacher is None else Teacher(teacher)
        self.temperature = float(temperature)
        self.hard_weight, self.soft_weight = float(hard_weight), float(soft_weight)

    def check_model(self, model: nn.Module) -> None:
        """Raises: UserError where weights or teacher do not fit the model's classes."""
        num_classes = getattr(model, "num_classes", None)
        if num_classes is not None:
            self._check_classes(num_classes)
            taught = None if self.teacher is None else getattr(self.teacher.network, "num_classes", None)
            if isinstance(taught, int):
                _check_teacher(taught, num_classes)

    def check_postprocess(self, postprocess: object) -> None:
        """Raises: UserError where predictions would be made of another function of the logits than is trained."""
        activation = getattr(postprocess, "activation", None)
        wanted = "softmax" if self.loss == "cross_entropy" else "sigmoid"
        if activation is not None and activation != wanted:
            raise UserError(
                f"criterion.loss={self.loss!r} trains a {wanted}, but postprocess.activation={activation!r}: set "
                f"postprocess.activation={wanted!r}"
            )

    def expected_first_losses(
        self, model: nn.Module, output: ClassifierOutput, targets: Sequence[Target]
    ) -> dict[str, float]:
        """Losses of an untrained head, whose logits are equal; see `transfer.preflight.first_loss`.

        Of K classes they are log K for cross entropy and T^2 log K for distillation, whatever the teacher says.
        """
        untrained = replace(output, logits=torch.zeros_like(output.logits))
        return {name: float(loss) for name, loss in self(untrained, targets).items()}

    def __call__(self, output: ClassifierOutput, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Args: the model's output and the targets of its images. Returns: scalar losses named `loss_*`."""
        logits = output.logits.float() if output.logits.element_size() < 4 else output.logits
        assert len(logits) == len(targets), f"{len(logits)} rows of logits, {len(targets)} targets"
        self._check_classes(logits.shape[1])
        images = mean_over_processes(len(targets), logits.device)
        losses = {"loss_class": self._classes(logits, self._truth(targets, logits)) / images}
        if self.teacher is not None:
            said = self.teacher(output.images)
            _check_teacher(said.shape[1], logits.shape[1])
            distilled = distillation_loss(logits, said, temperature=self.temperature) / images
            losses = {
                "loss_class": self.hard_weight * losses["loss_class"],
                "loss_distillation": self.soft_weight * distilled,
            }
        return losses

    def _truth(self, targets: Sequence[Target], logits: Tensor) -> ImageTruth:
        weights = None if self.class_weights is None else logits.new_tensor(self.class_weights)  # [K]
        return image_truth(targets, logits.shape[1], weights, device=logits.device, dtype=logits.dtype)

    def _classes(self, logits: Tensor, truth: ImageTruth) -> Tensor:
        """The sum over images."""
        if self.loss == "cross_entropy":
            return soft_cross_entropy(
                logits,
                truth.labels,
                smoothing=self.label_smoothing,
                form=self.smoothing_form,
                weights=truth.weights,
            )
        wanted = smoothed_probabilities(
            truth.probabilities(logits.shape[1], logits.dtype), smoothing=self.label_smoothing, form=self.smoothing_form
        )
        losses = self.binary(logits, wanted).mean(dim=1)  # [B]
        return (losses if truth.weights is None else losses * truth.weights).sum()

    def _check_classes(self, num_classes: int) -> None:
        if self.class_weights is not None and len(self.class_weights) != num_classes:
            raise UserError(
                f"criterion.class_weights has {len(self.class_weights)} numbers, the model has {num_classes} classes: "
                "give one for each"
            )


def image_truth(
    targets: Sequence[Target],
    num_classes: int,
    class_weights: Tensor | None,
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> ImageTruth:
    """The classes of a batch's images as one tensor.

    Args:
        targets: with their classes and shares.
        num_classes: K.
        class_weights: [K] above 0; None: all 1. An image's weight is the mean of its classes' by their shares, and its
            labels are then each class's part in that, so that weight times loss is the mixture of weighted losses.
        device: of the result.
        dtype: of shares and weights.

    Raises:
        UserError: an image without a class; on the CPU, a class out of range, which a GPU reports by itself (to look
            there would keep it waiting at every step).
    """
    counts = []
    for target in targets:
        if target.classes is None or target.shares is None or not len(target.classes):
            raise UserError(
                f"{target.path}: has no class: a classifier is trained on a classification data set (data.train)"
            )
        counts.append(len(target.classes))
    classes = torch.cat([target.classes for target in targets if target.classes is not None]).to(device)  # [S]
    if classes.device.type == "cpu":
        _check_range(classes, counts, targets, num_classes)
    if all(count == 1 for count in counts):
        return ImageTruth(classes, None if class_weights is None else class_weights[classes])
    shares = torch.cat([target.shares for target in targets if target.shares is not None]).to(classes.device, dtype)
    images = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)).to(classes.device)  # [S]
    weights = None
    if class_weights is not None:
        shares = shares * class_weights[classes]
        weights = shares.new_zeros(len(counts)).index_add(0, images, shares)  # [B]
        shares = shares / weights[images]
    # Added, not set: the same class may come twice.
    flat = shares.new_zeros(len(counts) * num_classes).index_add(0, images * num_classes + classes, shares)
    return ImageTruth(flat.view(-1, num_classes), weights)


def _check_range(classes: Tensor, counts: Sequence[int], targets: Sequence[Target], num_classes: int) -> None:
    strange = (classes < 0) | (classes >= num_classes)
    if bool(strange.any()):
        place = int(strange.nonzero()[0])
        image = int(torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))[place])
        raise UserError(
            f"{targets[image].path}: is of class {int(classes[place])}, the model has the classes 0 to "
            f"{num_classes - 1}: look at the data set's class names, and at the model's num_classes"
        )


def _check_teacher(taught: int, num_classes: int) -> None:
    if taught != num_classes:
        raise UserError(
            f"criterion.teacher has {taught} classes, the student {num_classes}: distillation needs the same classes "
            "in the same order; give a teacher trained on this data set"
        )


def _choice(name: str, value: object, known: Sequence[str]) -> list[str]:
    if value in known:
        return []
    near = difflib.get_close_matches(str(value), known, n=1)
    hint = f", did you mean {near[0]!r}?" if near else ""
    return [f"{name}={value!r} is none of {', '.join(known)}{hint}"]


def _weight_problems(class_weights: Any) -> list[str]:
    if class_weights is None:
        return []
    if (
        isinstance(class_weights, str)
        or not isinstance(class_weights, Sequence)
        or not class_weights
        or not all(is_number(weight) and 0 < weight < math.inf for weight in class_weights)
    ):
        return [f"class_weights={class_weights!r} must be a list of one number above 0 a class, or None"]
    return []


def _distillation_problems(teacher: Any, temperature: Any, hard_weight: Any, soft_weight: Any) -> list[str]:
    problems = []
    if teacher is not None and not callable(teacher):
        problems.append(f"teacher={teacher!r} must be a network: images to logits")
    if not is_number(temperature) or not 0 < temperature < math.inf:
        problems.append(f"temperature={temperature!r} must be a number above 0")
    if not is_number(hard_weight) or not 0 <= hard_weight < math.inf:
        problems.append(f"hard_weight={hard_weight!r} must be a number of at least 0")
    if not is_number(soft_weight) or not 0 < soft_weight < math.inf:
        problems.append(f"soft_weight={soft_weight!r} must be a number above 0: without distillation give no teacher")
    return problems
