"""Mixing of batches: hand-computed cases, every pixel accounted for, and the papers' distributions."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from transfer.augment.image_mixing import RICAP, ImageCutMix, ImageMixing, ImageMixup, OneOfMixings
from transfer.types import Target, UserError

MAKERS = (ImageMixup, ImageCutMix, RICAP)
every_mixing = pytest.mark.parametrize("make", MAKERS)


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def target_of(
    position: int, size: tuple[int, int], classes: Sequence[int] | None = None, shares: Sequence[float] = (1.0,)
) -> Target:
    return Target(
        boxes=torch.zeros(0, 4),
        labels=torch.zeros(0, dtype=torch.int64),
        difficult=torch.zeros(0, dtype=torch.bool),
        weights=torch.zeros(0),
        size=size,
        index=100 + position,
        image_id=f"i{position}",
        path=f"{position}.jpg",
        original_size=(9, 9),
        scale=(1.0, 1.0),
        seed=position,
        classes=torch.tensor([position] if classes is None else classes),
        shares=torch.tensor(shares, dtype=torch.float32),
    )


def batch(count: int, height: int = 6, width: int = 8) -> tuple[Tensor, list[Target]]:
    """Image i says where its pixels are: [i % 256, row, column]; class i."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    images = torch.stack([torch.stack([torch.full_like(rows, i % 256), rows, columns]) for i in range(count)])
    return images.to(torch.uint8), [target_of(i, (height, width)) for i in range(count)]


def classes_of(target: Target) -> list[int]:
    assert target.classes is not None
    return target.classes.tolist()


def shares_of(target: Target) -> np.ndarray:
    assert target.shares is not None
    return target.shares.numpy()


class Scripted:
    """A generator whose numbers are given, by kind."""

    def __init__(self, *, beta: Sequence[float], permutations: Sequence[Sequence[int]], integers=()) -> None:
        self.betas, self.permutations, self.whole = list(beta), list(permutations), list(integers)

    def random(self, count: int) -> np.ndarray:
        return np.zeros(count)

    def beta(self, a: float, b: float, count: int) -> np.ndarray:
        assert a == b
        return np.array([self.betas.pop(0) for _ in range(count)])

    def permutation(self, count: int) -> np.ndarray:
        made = np.array(self.permutations.pop(0))
        assert sorted(made.tolist()) == list(range(count))
        return made

    def integers(self, high):
        if np.ndim(high) == 0:
            return self.whole.pop(0)
        return np.array([self.whole.pop(0) for _ in range(np.size(high))]).reshape(np.shape(high))


def test_mixup_by_hand() -> None:
    images = torch.tensor([[10, 255], [13, 0], [200, 7]], dtype=torch.uint8)[:, None, None, :].repeat(1, 3, 1, 1)
    targets = [target_of(i, (1, 2)) for i in range(3)]
    draws = Scripted(beta=[0.25], permutations=[[1, 2, 0]])
    mixed, truths = ImageMixup()(images, targets, draws)  # type: ignore[arg-type]
    # 0.25 * 10 + 0.75 * 13 = 12.25; 63.75; 0.25 * 13 + 0.75 * 200 = 153.25; 5.25; 57.5 is a tie; 193
    assert mixed[:, 1, 0].tolist() == [[12, 64], [153, 5], [58, 193]]
    assert [classes_of(truth) for truth in truths] == [[0, 1], [1, 2], [2, 0]]
    assert [shares_of(truth).tolist() for truth in truths] == [[0.25, 0.75]] * 3
    assert truths[0].path == "0.jpg mixed with 1.jpg"
    assert (truths[0].index, truths[0].image_id, truths[0].seed) == (100, "i0", 0)


def test_mixup_errs_by_half_a_grey_level_at_most() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    images = torch.stack([levels[:, None].repeat(1, 256), levels[None].repeat(256, 1)])[:, None].repeat(1, 3, 1, 1)
    targets = [target_of(i, (256, 256)) for i in range(2)]
    for share in [0.5, 1e-6, 0.999, *rng(0).random(8)]:
        draws = Scripted(beta=[share], permutations=[[1, 0]])
        mixed = ImageMixup()(images, targets, draws)[0][0, 2].double()  # type: ignore[arg-type]
        exact = share * images[0, 2].double() + (1 - share) * images[1, 2].double()
        assert (mixed - exact).abs().max() <= 0.5001
        assert mixed.diagonal().tolist() == list(range(256))  # a grey level blended with itself


def test_mixup_with_lambda_of_nothing_or_all_is_the_image_itself() -> None:
    images, targets = batch(3)
    kept, own = ImageMixup()(images, targets, Scripted(beta=[1.0], permutations=[[1, 2, 0]]))  # type: ignore[arg-type]
    assert torch.equal(kept, images)
    assert [classes_of(truth) for truth in own] == [[0], [1], [2]]
    taken, other = ImageMixup()(images, targets, Scripted(beta=[0.0], permutations=[[1, 2, 0]]))  # type: ignore[arg-type]
    assert torch.equal(taken, images[[1, 2, 0]])
    assert [classes_of(truth) for truth in other] == [[1], [2], [0]]
    assert [truth.path for truth in other] == ["1.jpg", "2.jpg", "0.jpg"]
    assert [shares_of(truth).tolist() for truth in own + other] == [[1.0]] * 6
    alone, truths = ImageMixup()(images, targets, Scripted(beta=[0.3], permutations=[[0, 2, 1]]))  # type: ignore[arg-type]
    assert torch.equal(alone[0], images[0])
    assert [classes_of(truth) for truth in truths] == [[0], [1, 2], [2, 1]]


def test_cutmix_by_hand() -> None:
    images, targets = batch(2, 6, 8)
    # 1 - 0.75 = 0.25: half of each side, 3 x 4, round (row 1, column 7): rows 0 to 2, columns 5 to 8, the last cut off.
    draws = Scripted(beta=[0.75], permutations=[[1, 0]], integers=[1, 7])
    mixed, truths = ImageCutMix()(images, targets, draws)  # type: ignore[arg-type]
    expected = images.clone()
    expected[0, 0, 0:3, 5:8] = 1
    expected[1, 0, 0:3, 5:8] = 0
    assert torch.equal(mixed, expected)
    assert [classes_of(truth) for truth in truths] == [[0, 1], [1, 0]]
    assert shares_of(truths[0]) == pytest.approx([39 / 48, 9 / 48])


def test_ricap_by_hand() -> None:
    images, targets = batch(4, 6, 8)
    # The boundary: round(0.35 * 6) = 2 rows, round(0.6 * 8) = 5 columns. Patches 2x5, 2x3, 4x5, 4x3.
    draws = Scripted(
        beta=[0.35, 0.6],
        permutations=[[1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0]],
        integers=[4, 0, 2, 1, 3, 5, 0, 2],  # four tops, four lefts
    )
    mixed, truths = RICAP()(images, targets, draws)  # type: ignore[arg-type]
    assert mixed[0, 0].tolist() == [[0] * 5 + [1] * 3] * 2 + [[2] * 5 + [3] * 3] * 4
    assert mixed[0, 1, :, 0].tolist() == [4, 5, 2, 3, 4, 5]  # the left patches begin at rows 4 and 2
    assert mixed[0, 1, :, 7].tolist() == [0, 1, 1, 2, 3, 4]
    assert mixed[0, 2, 0].tolist() == [3, 4, 5, 6, 7, 5, 6, 7]
    assert mixed[0, 2, 5].tolist() == [0, 1, 2, 3, 4, 2, 3, 4]
    assert [classes_of(truth) for truth in truths] == [[0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0]]
    for truth in truths:
        assert shares_of(truth) == pytest.approx(np.array([10, 6, 20, 12]) / 48)
    assert truths[0].path == "0.jpg mixed with 1.jpg mixed with 2.jpg mixed with 3.jpg"


def test_ricap_leaves_patches_without_area_out() -> None:
    images, targets = batch(2, 6, 8)
    draws = Scripted(beta=[1.0, 0.5], permutations=[[1, 0]] * 3, integers=[0] * 8)  # all rows are above the boundary
    mixed, truths = RICAP()(images, targets, draws)  # type: ignore[arg-type]
    assert mixed[0, 0].tolist() == [[0] * 4 + [1] * 4] * 6
    assert classes_of(truths[0]) == [0, 1]
    draws = Scripted(beta=[0.0, 0.0], permutations=[[1, 0]] * 3, integers=[0] * 8)  # all is below and right of it
    mixed, truths = RICAP()(images, targets, draws)  # type: ignore[arg-type]
    assert torch.equal(mixed, images[[1, 0]])
    assert [(classes_of(truth), shares_of(truth).tolist(), truth.path) for truth in truths] == [
        ([1], [1.0], "1.jpg"),
        ([0], [1.0], "0.jpg"),
    ]


@every_mixing
@pytest.mark.parametrize("per", ["batch", "image"])
@pytest.mark.parametrize("shape", [(1, 5, 5), (3, 5, 5), (4, 1, 1), (5, 1, 40), (7, 33, 2), (2, 6, 8)])
def test_any_batch_is_mixed_and_the_given_one_stays(make, per, shape) -> None:
    images, targets = batch(*shape)
    before = images.clone()
    mixing = pickle.loads(pickle.dumps(make(0.7, per=per)))
    for seed in range(12):
        mixed, truths = mixing(images, targets, rng(seed))
        again, same = mixing(images, targets, rng(seed))
        assert torch.equal(mixed, again)
        assert [classes_of(truth) for truth in truths] == [classes_of(truth) for truth in same]
        assert (mixed.dtype, mixed.shape) == (torch.uint8, images.shape)
        assert mixed.data_ptr() != images.data_ptr()
        for position, (truth, given) in enumerate(zip(truths, targets, strict=True)):
            assert truth is not given
            assert truth.size == shape[1:]
            assert shares_of(truth).dtype == np.float32
            assert shares_of(truth).sum() == pytest.approx(1, abs=1e-6)
            assert shares_of(truth).min() > 0
            assert classes_of(given) == [position]
            assert shares_of(given).tolist() == [1.0]
    assert torch.equal(images, before)
    if shape[0] == 1 and make is not RICAP:
        assert torch.equal(mixed, images)
        assert classes_of(truths[0]) == [0]


@every_mixing
def test_mixed_images_can_be_mixed_again(make) -> None:
    images, _ = batch(2)
    targets = [target_of(0, (6, 8), [5, 5], [0.25, 0.75]), target_of(1, (6, 8), [8, 9], [0.5, 0.5])]
    for seed in range(20):
        for truth in make(2.0)(images, targets, rng(seed))[1]:
            shares, classes = shares_of(truth), np.array(classes_of(truth))
            assert len(shares) == len(classes)
            assert shares.sum() == pytest.approx(1, abs=1e-6)
            assert shares[classes == 8].sum() == pytest.approx(shares[classes == 9].sum(), abs=1e-6)
            fives = shares[classes == 5]
            assert fives[1::2].sum() == pytest.approx(3 * fives[0::2].sum(), abs=1e-6)


@pytest.mark.parametrize("make", [ImageCutMix, RICAP])
@pytest.mark.parametrize("per", ["batch", "image"])
def test_shares_are_the_counted_pixels(make, per) -> None:
    images, targets = batch(9, 15, 22)
    partners, shapes = Counter(), set()
    for seed in range(30):
        mixed, truths = make(per=per)(images, targets, rng(seed))
        for position, truth in enumerate(truths):
            counted = Counter(mixed[position, 0].flatten().tolist())
            claimed: Counter[int] = Counter()
            for label, share in zip(classes_of(truth), shares_of(truth)):
                claimed[label] += share * 15 * 22
            assert claimed == pytest.approx(counted, abs=1e-3)
            partners.update(label for label in counted if label != position)
            shapes.add((seed, round(float(max(shares_of(truth))), 4)))
        if make is ImageCutMix:  # a pixel stays at its place
            assert torch.equal(mixed[:, 1:], images[:, 1:])
        else:  # every patch is a piece of its image: rows and columns go on by one within it
            for image in mixed.long():
                inside = image[0, 1:] == image[0, :-1]
                steps = (image[1, 1:] - image[1, :-1])[inside]
                assert (steps == 1).float().mean() > 0.9  # two patches of one image may meet
    assert sorted(partners) == list(range(9))
    assert (len(shapes) > 60) == (per == "image")


def seen_shares(make, value: float, *, count: int, size: tuple[int, int]) -> np.ndarray:
    """The first image's share in mixed images of a batch, drawn for each image."""
    images = torch.zeros(count, 3, *size, dtype=torch.uint8)
    targets = [target_of(i, size) for i in range(count)]
    truths = make(value, per="image")(images, targets, rng(1))[1]
    own = [shares_of(t)[classes_of(t).index(i)] if i in classes_of(t) else 0 for i, t in enumerate(truths)]
    return np.array(own, dtype=np.float64)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_lambda_has_the_beta_distribution(alpha) -> None:
    shares = seen_shares(ImageMixup, alpha, count=3000, size=(1, 1))
    assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > 0.01
    assert shares.mean() == pytest.approx(0.5, abs=0.03)
    assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.08)
    drawn = [ImageMixup(alpha)(*batch(2), rng(seed))[1][0] for seed in range(600)]
    mixed = [shares_of(truth)[0] for truth in drawn if len(classes_of(truth)) == 2]  # half meet themselves
    assert stats.kstest(mixed, stats.beta(alpha, alpha).cdf).pvalue > 0.01
    assert len(mixed) == pytest.approx(300, abs=60)


def test_cutmixs_area_is_lambda_less_what_hangs_over_the_edge() -> None:
    shares = seen_shares(ImageCutMix, 1e7, count=2500, size=(20, 30))  # lambda is 0.5
    expected = 1.0
    for side in (20, 30):
        length = round(side * 0.5**0.5)
        overlaps = [min(side, c - length // 2 + length) - max(0, c - length // 2) for c in range(side)]
        expected *= np.mean(overlaps) / side
    assert 1 - shares.mean() == pytest.approx(expected, abs=4 * float(shares.std()) / 50)
    assert 1 - shares.min() == pytest.approx(14 * 21 / 600)  # the whole box
    assert 1 - shares.max() == pytest.approx(7 * 11 / 600)  # its centre in the last pixel: 7 of 14 rows, 11 of 21
    narrow = seen_shares(ImageCutMix, 1.0, count=2500, size=(60, 60))
    assert stats.kstest(narrow, "uniform").statistic > 0.05  # clipping moves it from lambda's own law...
    assert narrow.mean() > 0.6  # ... towards the first image


def test_ricaps_shares_have_the_moments_of_two_betas() -> None:
    shares = seen_shares(RICAP, 0.3, count=3000, size=(64, 48))
    second = 1 / 4 + 1 / (4 * (2 * 0.3 + 1))  # of one coordinate: mean square of Beta(0.3, 0.3)
    assert shares.mean() == pytest.approx(1 / 4, abs=0.025)
    assert (shares**2).mean() == pytest.approx(second**2, rel=0.12)


@every_mixing
def test_p_is_the_share_of_what_is_mixed(make) -> None:
    images, targets = batch(400, 4, 4)
    whole = make(5.0, p=0.3, per="image")(images, targets, rng(0))[1]
    assert sum(len(classes_of(truth)) > 1 for truth in whole) == pytest.approx(120, abs=36)
    few = [make(5.0, p=0.3)(images[:40], targets[:40], rng(seed))[1] for seed in range(150)]
    counts = [sum(len(classes_of(truth)) > 1 for truth in truths) for truths in few]
    assert all(count == 0 or count > 30 for count in counts)  # a batch as a whole
    assert sum(count > 0 for count in counts) == pytest.approx(45, abs=22)


def test_one_of_mixings_chooses_for_each_batch() -> None:
    class Named:
        last_epochs_without = 0.0

        def __init__(self, name: str) -> None:
            self.name = name

        def __call__(self, images: Tensor, targets: list[Target], generator: np.random.Generator):
            return images, [self.name]

    images, targets = batch(2)
    choice = OneOfMixings([Named("a"), Named("b"), Named("c")], weights=[6, 0, 2], last_epochs_without=2)
    assert choice.last_epochs_without == 2
    counts = Counter(choice(images, targets, rng(seed))[1][0] for seed in range(400))
    assert counts["b"] == 0
    assert counts["a"] == pytest.approx(300, abs=40)
    even = OneOfMixings([Named("a"), Named("b")])
    counts = Counter(even(images, targets, rng(seed))[1][0] for seed in range(400))
    assert counts["a"] == pytest.approx(200, abs=45)
    nested = OneOfMixings([OneOfMixings([ImageCutMix()])])
    mixed, truths = nested(images, targets, rng(0))
    assert mixed.shape == images.shape
    assert len(truths) == 2


@pytest.mark.parametrize("mixing", [*(make() for make in MAKERS), OneOfMixings([ImageMixup()])])
def test_what_is_no_whole_image_of_a_class_is_refused(mixing) -> None:
    assert isinstance(mixing, ImageMixing)
    assert mixing.last_epochs_without == 0
    images, targets = batch(3)
    name = "Image|RICAP"
    for field, value in (
        ("classes", None),
        ("boxes", torch.tensor([[0.0, 0, 1, 1]])),
        ("mask", torch.zeros(6, 8, dtype=torch.uint8)),
    ):
        wrong = Target(**{f.name: getattr(targets[1], f.name) for f in fields(Target)})
        setattr(wrong, field, value)
        with pytest.raises(UserError, match=rf"({name}).*: 1.jpg is not of a classification data set"):
            mixing(images, [targets[0], wrong, targets[2]], rng(0))
    padded = target_of(2, (5, 8))
    with pytest.raises(UserError, match=rf"({name}).*: 2.jpg fills \(5, 8\) of the batch's \(6, 8\), the rest is padd"):
        mixing(images, [*targets[:2], padded], rng(0))


def test_mistakes_are_named_at_once() -> None:
    for make, shape in ((ImageMixup, "alpha"), (ImageCutMix, "alpha"), (RICAP, "beta")):
        with pytest.raises(UserError, match=rf"{shape}=0 .*per='pair' .*p=0 .*last_epochs_without=-1"):
            make(0, per="pair", p=0, last_epochs_without=-1)
    with pytest.raises(UserError, match="mixings is empty"):
        OneOfMixings([])
    wrong = ["mixup", ImageCutMix, ImageMixup(last_epochs_without=3)]
    message = r"epochs_without='2'.*'mixup' cannot mix.*ImageCutMix.* cannot mix.*ImageMixup has last_epochs.*weights="
    with pytest.raises(UserError, match=message):
        OneOfMixings(wrong, weights=[1, 2], last_epochs_without="2")  # type: ignore[arg-type]
    for weights in ([0, 0], [1, -1], [1, float("nan")], [1, "2"]):
        with pytest.raises(UserError, match=r"weights=.* must be 2 numbers, 0 or more, not all of them 0"):
            OneOfMixings([ImageMixup(), RICAP()], weights=weights)  # type: ignore[arg-type]
