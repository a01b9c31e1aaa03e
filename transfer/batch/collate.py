"""Samples to a batch: one uint8 tensor, padded at the right and bottom, with the truth as tensors.

The pad value is the backbone's mean colour, so that padding is about zero after normalisation (box mixup pads with
zero itself, before it comes here). A worker hands the batch over ready-made: the training process only moves it to
the device. A mask is not padded: it stays of its image's size (in testing of the original size), and whoever stacks
masks counts the padding as ignored.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from transfer.batch.view import SampleError, TrainingView, ViewedSample
from transfer.types import Batch, Request, Sample, Size, Target, UserError

Blend = Callable[[Tensor, list[Target], np.random.Generator], tuple[Tensor, list[Target]]]
"""([B, 3, H, W] uint8, targets, rng) -> the same of images that were mixed with one another."""


class Collate:
    """Joins samples to a batch."""

    def __init__(self, pad_value: tuple[int, int, int], *, size_divisor: int = 32, blend: Blend | None = None) -> None:
        """Set the padding.

        Args:
            pad_value: RGB, 0..255.
            size_divisor: height and width of a batch are rounded up to a multiple of it, pixels. Where every request
                asks for the same size, the batch has exactly that size instead.
            blend: mixes the images of a batch with one another; needed where requests carry a `blend`.

        Raises:
            UserError: with every argument that does not fit.
        """
        problems = []
        if len(pad_value) != 3 or any(value != int(value) or not 0 <= value <= 255 for value in pad_value):
            problems.append(f"pad_value={pad_value!r} must be three integers in 0..255 (the mean colour times 255)")
        if size_divisor < 1:
            problems.append(f"size_divisor={size_divisor} must be at least 1 pixel")
        if problems:
            raise UserError("Collate: " + "; ".join(problems))
        self.pad_value = tuple(int(value) for value in pad_value)
        self.size_divisor = size_divisor
        self.blend = blend

    def __call__(self, items: Sequence[ViewedSample]) -> Batch:
        """Pad and stack.

        Args:
            items: what the view made, at least one.

        Returns:
            The batch; `dropped` is summed and `skipped` joined over the items.

        Raises:
            UserError: when an image is not [H, W, 3] uint8 or larger than its request asked for, or a mask fits neither
                the image nor the original, naming the file.
        """
        _check(items)
        height, width = self._batch_size(items)
        # numpy's memory, not torch's, of which the system takes and gives back every page with every large batch.
        pixels = np.empty((len(items), 3, height, width), np.uint8)  # [B, 3, H, W]
        dropped: Counter[str] = Counter()
        skipped: list[str] = []
        for planes, item in zip(pixels, items, strict=True):
            self._place(planes, item.sample.image)
            dropped.update(item.sample.dropped)
            skipped.extend(item.skipped)
        images, targets = torch.from_numpy(pixels), [_target(item.sample, item.request) for item in items]
        if (seed := items[0].request.blend) is not None:
            if self.blend is None:
                raise SampleError("the batches are to be blended, but Collate has blend=None: pass what mixes images")
            try:
                images, targets = self.blend(images, targets, np.random.default_rng(seed))
            except UserError as error:
                raise SampleError(str(error)) from error
        return Batch(images, targets, dict(dropped), skipped)

    def _batch_size(self, items: Sequence[ViewedSample]) -> Size:
        asked = {item.request.size for item in items}
        size = asked.pop() if len(asked) == 1 else None
        if size is not None:
            return size
        height = max(item.sample.image.shape[0] for item in items)
        width = max(item.sample.image.shape[1] for item in items)
        return -height % self.size_divisor + height, -width % self.size_divisor + width

    def _place(self, planes: np.ndarray, image: np.ndarray) -> None:
        # planes [3, H, W], image [h, w, 3]
        height, right = image.shape[0], planes.shape[2] - image.shape[1]
        if right:
            image = cv2.copyMakeBorder(image, 0, 0, 0, right, cv2.BORDER_CONSTANT, value=self.pad_value)
        # Into the planes themselves: a fifth of the time of numpy's strided copy. Only whole rows are quick.
        cv2.split(image, list(planes[:, :height]))
        planes[:, height:] = np.array(self.pad_value, np.uint8)[:, None, None]


def _check(items: Sequence[ViewedSample]) -> None:
    for sample, request, _ in items:
        shape = sample.image.shape
        if sample.image.dtype != np.uint8 or len(shape) != 3 or shape[2] != 3:
            raise SampleError(
                f"{sample.path}: the augmentation gave an image of shape {shape}, {sample.image.dtype}; batches "
                "need [H, W, 3] uint8 (the backbone normalises: take Normalize and ToFloat out of the augmentation)"
            )
        if request.size is not None and (shape[0] > request.size[0] or shape[1] > request.size[1]):
            raise SampleError(
                f"{sample.path}: the batch's shape is {request.size}, but the augmentation gave {shape[:2]}: let it "
                "end with ResizeTo(), LetterboxTo() or RandomCropWithMask(), or give the batches no shapes"
            )
        if sample.mask is not None:
            _check_mask(sample, sample.mask)


def _check_mask(sample: Sample, mask: np.ndarray) -> None:
    size = sample.image.shape[:2]
    if mask.dtype != np.uint8 or mask.ndim != 2:
        raise SampleError(f"{sample.path}: the mask is {mask.shape}, {mask.dtype}; it must be [H, W] uint8")
    if mask.shape not in (size, tuple(sample.original_size)):
        raise SampleError(
            f"{sample.path}: the mask is {mask.shape}, the image {size} and the original {sample.original_size}: in "
            "training the mask must follow every geometric step, in testing it must stay as it was (mask='keep')"
        )


def _target(sample: Sample, request: Request) -> Target:
    height, width = sample.image.shape[:2]
    return Target(
        boxes=torch.from_numpy(np.array(sample.boxes, dtype=np.float32).reshape(-1, 4)),  # copies: nothing shared
        labels=torch.from_numpy(np.array(sample.labels, dtype=np.int64)),
        difficult=torch.from_numpy(np.array(sample.difficult, dtype=np.bool_)),
        weights=torch.from_numpy(np.array(sample.weights, dtype=np.float32)),
        size=(height, width),
        index=sample.index,
        image_id=sample.image_id,
        path=sample.path,
        original_size=sample.original_size,
        scale=sample.scale,
        seed=request.seed,
        mask=None if sample.mask is None else torch.from_numpy(sample.mask.copy()),
        classes=None if sample.label is None else torch.tensor([sample.label]),
        shares=None if sample.label is None else torch.ones(1),
    )


def worker_init(worker: int) -> None:
    """Keep a worker to one thread, and leave signals to the training process, which ends its workers itself.

    A terminal sends Ctrl-C, and a scheduler SIGTERM, to the whole process group.
    """
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if hasattr(torch.multiprocessing, "_prctl_pr_set_pdeathsig"):  # Linux: a worker whose queue is full never looks
        torch.multiprocessing._prctl_pr_set_pdeathsig(signal.SIGKILL)  # whether the training process is still there


def make_loader(
    view: TrainingView,
    batches: Sampler[list[Request]] | Sequence[list[Request]],
    collate: Collate,
    *,
    workers: int = 0,
    prefetch: int = 2,
    pin_memory: bool = False,
) -> DataLoader:
    """Join view, batches and collate.

    Args:
        view: makes samples from requests.
        batches: RequestBatches, or the list of `evaluation_batches`.
        collate: joins samples to a batch.
        workers: processes that prepare batches; 0: the training process does.
        prefetch: batches each worker keeps ready.
        pin_memory: copy batches to page-locked memory, for a GPU.

    Returns:
        A loader whose items are `Batch`, the same for any number of workers.

    Raises:
        UserError: for a negative number of workers or no prefetching.
    """
    if workers < 0 or prefetch < 1:
        raise UserError(f"make_loader: workers={workers} must be at least 0 and prefetch={prefetch} at least 1")
    view.share_work(workers)
    return DataLoader(
        view,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=workers,
        prefetch_factor=prefetch if workers else None,
        persistent_workers=workers > 0,
        worker_init_fn=worker_init,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # its own: torch would draw the workers' base seed from the global generator
    )
