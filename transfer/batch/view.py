"""The data set as a request sees it: decode, join, mix, augment, all from the request's seed.

Nothing global is seeded or read, so a sample is the same in any worker, in any order and after any resume.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from transfer.ops.reduced_scale import reduced_scale
from transfer.types import AnyDataset, Request, Sample, UserError

MAXIMUM_REPLACEMENTS = 10
REPLACEMENT_STREAM, JOIN_STREAM = 1, 2

AugmentCall = Callable[[Sample, Request, np.random.Generator], Sample]
Combine = Callable[[Sample, Sample, Request, np.random.Generator], Sample]
"""(first, second, request, rng) -> the mixed sample; `request.mix.weight` is the first one's share."""
Join = Callable[[Sequence[Sample], Request, np.random.Generator], Sample]
"""(the image and its partners, request, rng) -> one sample made of all of them."""


class ViewedSample(NamedTuple):
    """What a worker makes of one request, and collate takes."""

    sample: Sample
    request: Request
    skipped: tuple[str, ...] = ()
    """Files that could not be read and were replaced."""


class SampleError(UserError):
    """A user's mistake met in a worker: takes off the worker's traceback, which torch puts around the message."""

    def __init__(self, message: str) -> None:
        super().__init__(message.rpartition("SampleError: ")[2].rstrip())


class TrainingView(Dataset[ViewedSample]):
    """A data set indexed by requests."""

    def __init__(
        self,
        dataset: AnyDataset,
        augment: AugmentCall,
        *,
        on_broken: Literal["stop", "skip"] = "stop",
        combine: Combine | None = None,
        join: Join | None = None,
        decode_at_least: int | None = None,
    ) -> None:
        """Join a data set and an augmentation.

        Args:
            dataset: images with boxes or masks.
            augment: makes the training (or test) sample; draws from the generator it is given and from nothing else.
            on_broken: "stop" raises at a file that cannot be read; "skip" replaces it by another image, drawn from the
                request's seed, and reports the file. For evaluation use "stop": a replacement would count twice.
            combine: mixes two decoded samples before `augment`; needed where requests carry a `mix`.
            join: makes one sample of several decoded ones, before `combine`; needed where requests carry `partners`.
            decode_at_least: pixels that the short side of a JPEG keeps which is decoded at a reduced scale; None: each
                photograph is decoded as it is. See `transfer.ops.reduced_scale`.

        Raises:
            UserError: for another `on_broken`.
        """
        if on_broken not in ("stop", "skip"):
            raise UserError(f"TrainingView: on_broken={on_broken!r} is neither 'stop' nor 'skip'")
        self.dataset = dataset
        self.augment = augment
        self.on_broken = on_broken
        self.combine = combine
        self.join = join
        self.decode_at_least = decode_at_least
        self.at_work: Tensor | None = None

    def share_work(self, workers: int) -> None:
        """Let worker processes note which image they are at, in memory that outlives them."""
        self.at_work = torch.full((workers,), -1, dtype=torch.int64).share_memory_() if workers else None

    def work_of(self, worker: int) -> str:
        """What a worker process noted last, for a message: "while it prepared FILE"."""
        index = -1 if self.at_work is None else int(self.at_work[worker])
        return "before it prepared anything" if index < 0 else f"while it prepared {self._path(index)}, or after"

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, request: Request) -> ViewedSample:
        """The sample of a request.

        Raises:
            UserError: when a file cannot be read (or no replacement for it), naming it.
            RuntimeError: when anything else fails, naming the file and the request.
        """
        skipped: list[str] = []
        if self.at_work is not None and (worker := get_worker_info()) is not None:
            self.at_work[worker.id] = request.index
        try:
            replacements = _replacements(request.seed, len(self.dataset))
            sample = self._read(request.index, replacements, skipped)
            second = None if request.mix is None else self._read(request.mix.index, replacements, skipped)
            partners = [self._read(index, replacements, skipped) for index in request.partners]
            return ViewedSample(self._make(sample, second, partners, request), request, tuple(skipped))
        except UserError as error:
            raise SampleError(str(error)) from error

    def _make(self, sample: Sample, second: Sample | None, partners: list[Sample], request: Request) -> Sample:
        rng = np.random.default_rng(request.seed)
        files = ", ".join(partner.path for partner in (sample, *partners))
        files += "" if second is None else f" mixed with {second.path}"
        try:
            if partners:
                if self.join is None:
                    raise UserError("the batches draw mosaics, but TrainingView has join=None: pass what joins them")
                # A stream of its own: a mosaic does not move the augmentation's draws.
                sample = self.join([sample, *partners], request, np.random.default_rng([request.seed, JOIN_STREAM]))
            if second is not None:
                if self.combine is None:
                    raise UserError("the batches draw mixed pairs, but TrainingView has combine=None: pass what mixes")
                sample = self.combine(sample, second, request, rng)
            return self.augment(sample, request, rng)
        except UserError as error:
            raise UserError(_naming(sample.path, error)) from error
        except Exception as error:
            raise RuntimeError(f"{files}: {type(error).__name__}: {error} (while making {request})") from error

    def _read(self, index: int, replacements: Iterator[int], skipped: list[str]) -> Sample:
        # The decoded image or its first readable replacement; appends the unreadable files to `skipped`.
        unread: list[str] = []
        while len(unread) <= MAXIMUM_REPLACEMENTS:
            read = self._decode(index)
            if isinstance(read, Sample):
                skipped += unread
                return read
            if self.on_broken == "stop":
                raise read
            unread.append(self._path(index))
            index = next(replacements)
        raise UserError(
            f"{len(unread)} images drawn one after the other could not be read: {', '.join(unread)}. {read}"
        )

    def _decode(self, index: int) -> Sample | UserError:
        try:
            if self.decode_at_least is None:
                return self.dataset[index]
            with reduced_scale(self.decode_at_least) as readings:
                sample = self.dataset[index]
            return readings.fit(sample)
        except UserError as error:
            return UserError(_naming(self._path(index), error))
        except Exception as error:
            raise RuntimeError(f"{self._path(index)}: {type(error).__name__}: {error} (while decoding)") from error

    def _path(self, index: int) -> str:
        try:
            return self.dataset.record(index).path
        except Exception:  # the record may be what is broken: the position still finds the image
            return f"image {index} of the data set"


def _replacements(seed: int, images: int) -> Iterator[int]:
    """Images to take for unreadable ones; nothing is made before the first is asked for."""
    # A stream of its own: whether a file was replaced does not move the augmentation's draws.
    rng = np.random.default_rng([seed, REPLACEMENT_STREAM])
    while True:
        yield int(rng.integers(images))


def _naming(path: str, error: UserError) -> str:
    message = str(error)
    return message if path in message else f"{path}: {message}"
