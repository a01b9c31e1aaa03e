"""The classifier against its parts put together by hand, and the postprocess against torch's softmax."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from detector_builders import make_target
from torch import Tensor, nn

from backbones.contract import Backbone, wrap
from transfer.heads.classification import ClassificationPostprocess, Classifier, ClassifierOutput, classifier
from transfer.heads.classification_criterion import ClassificationCriterion
from transfer.types import Target, UserError


def small_backbone(*, seed: int = 0) -> Backbone:
    """Two levels; the last has 12 channels."""
    torch.manual_seed(seed)
    first = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.ReLU())
    second = nn.Sequential(nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.GroupNorm(4, 12), nn.ReLU())

    class Levels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = first, second

        def forward(self, images: Tensor) -> list[Tensor]:
            fine = self.first(images)
            return [fine, self.second(fine)]

    return wrap(Levels())


def noise(count: int = 3, size: int = 32) -> Tensor:
    return torch.randint(256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def class_target(label: int) -> Target:
    target = make_target(size=(32, 32))
    target.classes, target.shares = torch.tensor([label]), torch.tensor([1.0])
    return target


# ---- the model ----


def test_logits_are_the_linear_layer_on_the_mean_of_the_last_map() -> None:
    model = classifier(small_backbone(), 5).eval()
    images = noise()
    features = torch.stack([model.backbone(images)[-1][i].flatten(1).sum(dim=1) / 16 for i in range(3)])  # 4x4 cells
    output = model(images, [(32, 32)] * 3)
    assert features.shape == (3, 12)
    torch.testing.assert_close(output.logits, features @ model.fc.weight.T + model.fc.bias)
    assert output.images is images
    assert model.num_classes == 5


def test_a_backbone_may_pool_in_its_own_way() -> None:
    class Own(Backbone):
        def __init__(self) -> None:
            super().__init__((8,), (4,))

        @property
        def pooled_channels(self) -> int:
            return 2

        def pooled(self, images: Tensor) -> Tensor:
            return images[:, :2, 0, 0].float()

    model = classifier(Own(), 4)
    images = noise()
    expected = F.linear(images[:, :2, 0, 0].float(), model.fc.weight, model.fc.bias)
    assert torch.equal(model(images).logits, expected)


def test_the_layer_begins_small_without_bias() -> None:
    torch.manual_seed(0)
    model = Classifier(wrap(nn.Conv2d(3, 400, 4, stride=4)), 300)
    assert model.fc.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert model.fc.weight.mean().item() == pytest.approx(0, abs=2e-4)
    assert not model.fc.bias.any()


def test_no_dropout_is_the_baseline_and_draws_nothing() -> None:
    plain, explicit = (classifier(small_backbone(), 5, **options) for options in ({}, {"dropout": 0.0}))
    images = noise()
    before = torch.get_rng_state()
    assert torch.equal(plain.train()(images).logits, explicit.train()(images).logits)
    assert torch.equal(torch.get_rng_state(), before)
    assert plain.state_dict().keys() == classifier(small_backbone(), 5, dropout=0.5).state_dict().keys()


def test_dropout_drops_pooled_features_in_training_alone() -> None:
    images = noise(count=1)
    plain, dropping = classifier(small_backbone(), 5).eval(), classifier(small_backbone(), 5, dropout=0.25)
    assert torch.equal(dropping.eval()(images).logits, plain(images).logits)
    torch.manual_seed(3)
    kept = F.dropout(plain.backbone.pooled(images), 0.25, training=True)
    torch.manual_seed(3)
    assert torch.equal(dropping.train()(images).logits, plain.fc(kept))
    assert bool((kept == 0).any())


def test_a_few_images_are_learnt_by_heart() -> None:
    images = noise(count=6)
    labels = [0, 1, 2, 2, 1, 0]
    targets = [class_target(label) for label in labels]
    model, criterion = classifier(small_backbone(), 3), ClassificationCriterion()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    for _ in range(60):
        loss = criterion(model(images), targets)["loss_class"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    scores = ClassificationPostprocess()(model.eval()(images), targets)
    assert [int(found.scores.argmax()) for found in scores] == labels
    assert min(float(found.scores.max()) for found in scores) > 0.9


def test_mistakes_in_the_model_are_named_at_once() -> None:
    with pytest.raises(UserError, match=r"num_classes=1: .*two classes.*model\.dropout=1\.0"):
        classifier(small_backbone(), 1, dropout=1.0)
    for wrong in (2.0, True, "3"):
        with pytest.raises(UserError, match="num_classes="):
            classifier(small_backbone(), wrong)  # type: ignore[arg-type]


# ---- the postprocess ----


def test_scores_by_hand() -> None:
    logits = torch.tensor([[1.0, 2.0, 4.0], [0.0, 0.0, 0.0]]).log()
    logits[1] = 0
    output, targets = ClassifierOutput(logits, noise(2)), [class_target(0), class_target(1)]
    softmax = ClassificationPostprocess()(output, targets)
    torch.testing.assert_close(softmax[0].scores, torch.tensor([1 / 7, 2 / 7, 4 / 7]))
    torch.testing.assert_close(softmax[1].scores, torch.full((3,), 1 / 3))
    sigmoid = ClassificationPostprocess(activation="sigmoid")(output, targets)
    torch.testing.assert_close(sigmoid[0].scores, torch.tensor([1 / 2, 2 / 3, 4 / 5]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_scores_are_float32_on_the_cpu_and_computed_in_no_less(dtype: torch.dtype) -> None:
    logits = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    found = ClassificationPostprocess()(ClassifierOutput(logits, noise(4)), [class_target(0)] * 4)
    expected = logits.detach().double().softmax(1).float()
    for scores, row in zip(found, expected, strict=True):
        assert scores.scores.dtype == torch.float32
        assert not scores.scores.requires_grad
        torch.testing.assert_close(scores.scores, row, rtol=1e-5, atol=1e-7)


def test_an_unknown_activation_is_named() -> None:
    with pytest.raises(UserError, match=r"activation='relu' is none of softmax, sigmoid"):
        ClassificationPostprocess(activation="relu")
