"""Who is drawn, with which seed, at which shape, together with whom: everything from (run seed, position) alone.

Position means the global iteration: the number of global batches (over all ranks) made before. Nothing is remembered
between two batches, so a sampler started at iteration s gives exactly the tail of the run from 0; a global batch is
the same for any number of ranks (each takes a contiguous slice); and workers, which draw from a request's seed only,
cannot change a run.

Rules: an epoch has floor(length / batch_size) batches and draws each image at most once, unless an `order` says
otherwise (orders.py); what is left over is dropped and has its turn in another epoch's order. A data set smaller than a
batch is repeated within its one batch, so that there is an iteration at all; each repetition has its own seed.

Aspect grouping (it saves padding where images keep their aspect): within an epoch, images at least as high as wide and
images wider than high go into separate batches; the leftovers of both share the last batch that can be filled, and
then the batches' order is shuffled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from transfer.batch.orders import Order
from transfer.batch.shapes import Shapes
from transfer.types import Mix, Request, Size, UserError

# First word of each stream's spawn key, so that no two kinds of draw share numbers (shapes.py has 2).
ORDER_STREAM, IMAGE_STREAM, MIX_STREAM, GATHER_STREAM, BLEND_STREAM = 0, 1, 3, 4, 5

Mixer = Callable[[np.random.Generator, int, int], Mix | None]
"""(rng, index of the image, length of the data set) -> the second image of a pair, or None."""

Gatherer = Callable[[np.random.Generator, int, int], tuple[int, ...]]
"""(rng, index of the image, length of the data set) -> the other images of a mosaic, or none of them."""


def _stream(seed: int, *key: int) -> np.random.SeedSequence:
    # A spawn key, not a longer entropy: SeedSequence([7]) and SeedSequence([7, 0]) are the same stream.
    return np.random.SeedSequence(seed, spawn_key=key)


class RequestBatches(Sampler[list[Request]]):
    """Batch sampler of training: this rank's slice of each global batch, from `start` to `iterations`."""

    def __init__(
        self,
        length: int,
        *,
        batch_size: int,
        seed: int,
        shapes: Shapes | None = None,
        rank: int = 0,
        world_size: int = 1,
        start: int = 0,
        iterations: int | None = None,
        shuffle: bool = True,
        aspect: Sequence[float] | None = None,
        mixer: Mixer | None = None,
        mix_until: int | None = None,
        gatherer: Gatherer | None = None,
        gather_until: int | None = None,
        blend_until: int | None = 0,
        order: Order | None = None,
    ) -> None:
        """Set the run.

        Args:
            length: images in the data set.
            batch_size: images of a global batch, over all ranks; a multiple of `world_size`.
            seed: the run's seed, not negative.
            shapes: how a batch's shape is chosen; None: the augmentation decides.
            rank: of this process, in [0, world_size).
            world_size: number of processes.
            start: first global iteration to make.
            iterations: global iterations of the whole run (the first one not made); None: without end.
            shuffle: draw a new order each epoch; otherwise images come in the data set's order.
            aspect: height / width of each image, to group like with like; None: no grouping.
            mixer: draws the second image of a mixed pair; None: no mixing.
            mix_until: first global iteration without mixing; None: mixing to the end.
            gatherer: draws the other images of a mosaic; None: no mosaics.
            gather_until: first global iteration without mosaics; None: mosaics to the end.
            blend_until: first global iteration whose images are not mixed with one another; None: mixed to the end.
            order: which images an epoch draws, and how often; None: each once, shuffled.

        Raises:
            UserError: with every argument that does not fit.
        """
        problems = _problems(length, batch_size, seed, rank, world_size, aspect)
        if start < 0:
            problems.append(f"start={start} must not be negative")
        if problems:
            raise UserError("RequestBatches: " + "; ".join(problems))
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.shapes = shapes
        self.rank = rank
        self.world_size = world_size
        self.start = start
        self.iterations = iterations
        self.shuffle = shuffle
        self.mixer = mixer
        self.mix_until = mix_until
        self.gatherer = gatherer
        self.gather_until = gather_until
        self.blend_until = blend_until
        self.order = order
        self.drawn = length if order is None else order.length(length)
        """Images that an epoch draws, before what is left over is dropped."""
        self._tall = None if aspect is None else np.asarray(aspect, dtype=np.float64) >= 1  # [length] bool

    @property
    def iterations_per_epoch(self) -> int:
        """Global batches of an epoch: floor(images drawn / batch_size), but at least 1."""
        return max(1, self.drawn // self.batch_size)

    def epoch_of(self, iteration: int) -> int:
        """The epoch, counted from 0, that the global iteration falls in."""
        return iteration // self.iterations_per_epoch

    def __len__(self) -> int:
        """Batches left from `start` to the end of the run."""
        if self.iterations is None:
            raise TypeError("RequestBatches without `iterations` has no end, so no length")
        return max(0, self.iterations - self.start)

    def __iter__(self) -> Iterator[list[Request]]:
        """This rank's slice of each global batch from `start`; every call starts there again."""
        share = self.batch_size // self.world_size
        epoch, batches = -1, np.empty((0, self.batch_size), dtype=np.int64)
        iteration = self.start
        while self.iterations is None or iteration < self.iterations:
            if epoch != self.epoch_of(iteration):
                epoch = self.epoch_of(iteration)
                batches = self.epoch_batches(epoch)
            indices = batches[iteration % self.iterations_per_epoch]
            yield self._requests(iteration, indices, range(self.rank * share, (self.rank + 1) * share))
            iteration += 1

    def epoch_batches(self, epoch: int) -> np.ndarray:
        """The images of every global batch of an epoch.

        Args:
            epoch: counted from 0.

        Returns:
            [iterations_per_epoch, batch_size] int64 indices into the data set.
        """
        rng = np.random.default_rng(_stream(self.seed, ORDER_STREAM, epoch))
        if self.order is not None:
            order = self.order.draw(rng, self.length)
        else:
            order = rng.permutation(self.length) if self.shuffle else np.arange(self.length)
        if self.drawn < self.batch_size:
            return np.resize(order, (1, self.batch_size))
        if self._tall is not None:
            order = self._grouped(order, self._tall[order])
        batches = order[: self.iterations_per_epoch * self.batch_size].reshape(-1, self.batch_size)
        if self._tall is not None and self.shuffle:
            batches = rng.permutation(batches)  # along the first axis: whole batches change places
        return batches

    def _grouped(self, order: np.ndarray, tall: np.ndarray) -> np.ndarray:
        # Full batches of each kind first; the two remainders, each shorter than a batch, end the epoch together.
        full, left = [], []
        for kind in (order[tall], order[~tall]):
            whole = len(kind) // self.batch_size * self.batch_size
            full.append(kind[:whole])
            left.append(kind[whole:])
        return np.concatenate(full + left)

    def _requests(self, iteration: int, indices: np.ndarray, slots: range) -> list[Request]:
        size = None if self.shapes is None else self.shapes.shape(self.seed, iteration)
        mixer = self.mixer if self.mix_until is None or iteration < self.mix_until else None
        gatherer = self.gatherer if self.gather_until is None or iteration < self.gather_until else None
        blend = None
        if self.blend_until is None or iteration < self.blend_until:
            blend = self._seed(BLEND_STREAM, iteration)
        requests = []
        for slot in slots:
            index = int(indices[slot])
            # The position in the whole run, not in the epoch: an image drawn again gets a new seed.
            position = iteration * self.batch_size + slot
            mix = None if mixer is None else mixer(self._rng(MIX_STREAM, position), index, self.length)
            partners = () if gatherer is None else gatherer(self._rng(GATHER_STREAM, position), index, self.length)
            requests.append(Request(index, self._seed(IMAGE_STREAM, position), size, mix, partners, blend))
        return requests

    def _seed(self, stream: int, position: int) -> int:
        state = _stream(self.seed, stream, position).generate_state(1, np.uint64)[0]
        return int(state >> np.uint64(1))

    def _rng(self, stream: int, position: int) -> np.random.Generator:
        return np.random.default_rng(_stream(self.seed, stream, position))


def evaluation_batches(
    length: int,
    batch_size: int,
    *,
    rank: int = 0,
    world_size: int = 1,
    aspect: Sequence[float] | None = None,
    size: Size | None = None,
) -> list[list[Request]]:
    """Every image exactly once over the ranks, for testing.

    The batches do not depend on the number of ranks (rank r takes batches r, r + world_size, ...), so neither do the
    figures.

    Args:
        length: images in the data set.
        batch_size: images of one batch on one process; the last batch may be smaller.
        rank: of this process, in [0, world_size).
        world_size: number of processes; a rank may have one batch less than another.
        aspect: height / width of each image; given, images are sorted by it, which saves padding. None: in order.
        size: the shape of every batch, or None: the augmentation decides.

    Returns:
        Batches of requests with seed 0.

    Raises:
        UserError: with every argument that does not fit.
    """
    # A batch belongs to one process here, so any batch size divides.
    problems = _problems(length, batch_size * world_size, 0, rank, world_size, aspect)
    if problems:
        raise UserError("evaluation_batches: " + "; ".join(problems))
    order = np.arange(length) if aspect is None else np.argsort(np.asarray(aspect), kind="stable")
    starts = range(rank * batch_size, length, world_size * batch_size)
    return [[Request(int(index), 0, size) for index in order[first : first + batch_size]] for first in starts]


def _problems(
    length: int, batch_size: int, seed: int, rank: int, world_size: int, aspect: Sequence[float] | None
) -> list[str]:
    problems = []
    if length < 1:
        problems.append(f"length={length}: the data set has no image")
    if seed < 0:
        problems.append(f"seed={seed} must not be negative")
    if world_size < 1 or not 0 <= rank < world_size:
        problems.append(f"rank={rank} must be in [0, world_size={world_size})")
    if batch_size < 1:
        problems.append(f"batch_size={batch_size} must be at least 1")
    elif world_size > 0 and batch_size % world_size:
        nearest = max(1, round(batch_size / world_size)) * world_size
        problems.append(
            f"batch_size={batch_size} is not a multiple of world_size={world_size}; the nearest is {nearest}"
        )
    if aspect is not None and len(aspect) != length:
        problems.append(f"aspect has {len(aspect)} entries for {length} images")
    return problems
