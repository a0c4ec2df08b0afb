"""Batches of a data set: grouped by aspect ratio, distributed over processes, collated."""

from __future__ import annotations

import math
import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ..errors import WorkerError, needs_extra
from .dataset import DetectionDataset, Target
from .transforms import mix_seed

with needs_extra("train"):
    import torch
    from torch import Tensor
    from torch.utils.data import DataLoader, Sampler

# Edges of the groups of log2(width / height). Landscape and portrait images never share a group, and nearly square
# images (within a factor of 1.19) have a group of their own.
_GROUP_EDGES = (-1.0, -0.25, 0.25, 1.0)


def collate(batch: Sequence[tuple[Tensor, Target]]) -> tuple[list[Tensor], list[Target]]:
    """A batch as (list of images, list of targets). The images may have different sizes."""
    images, targets = zip(*batch, strict=True)
    return list(images), list(targets)


class AspectRatioBatchSampler(Sampler[list[int]]):
    """Shuffled batches of images with similar aspect ratios, so that batches need little padding.

    Images are grouped by log2(width / height), and each group is divided into batches. The images that remain of all
    groups are sorted by aspect ratio and divided into batches, too. Every process gets the same number of batches; at
    each step, all processes get images of the same group. An epoch has every image once. With several processes, a
    batch may repeat a few images, so that all processes get the same number.

    Args:
        sizes: (height, width) of each image, or a data set.
        batch_size: images per batch and process.
        seed: a non-negative integer, the same on all processes. The order depends on the seed and the epoch.
        rank, world_size: the number of this process, and how many processes there are.
    """

    def __init__(
        self,
        sizes: Sequence[tuple[int, int]] | DetectionDataset,
        batch_size: int,
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be in [0, world_size), got rank {rank} of {world_size}")
        if isinstance(sizes, DetectionDataset):
            sizes = [sizes.image_size(index) for index in range(len(sizes))]
        if len(sizes) == 0:
            raise ValueError("the data set is empty: there is nothing to sample")
        self.batch_size, self.seed = batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.epoch = self.first_batch = 0
        ratio = torch.tensor([math.log2(width / height) for height, width in sizes], dtype=torch.float64)
        self._ratio = ratio
        self._group = torch.bucketize(ratio, torch.tensor(_GROUP_EDGES, dtype=torch.float64))

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Sets the epoch, on which the order depends, and the batch to start from when a run is resumed."""
        self.epoch, self.first_batch = epoch, first_batch

    def __len__(self) -> int:
        return -(-len(self._group) // (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self._batches()[self.first_batch :]:
            yield batch[self.rank :: self.world_size]

    def _batches(self) -> list[list[int]]:
        """The batches of all processes together. Their lengths are multiples of the number of processes."""
        length = self.batch_size * self.world_size
        generator = torch.Generator().manual_seed(mix_seed(self.seed, self.epoch))
        permutation = torch.randperm(len(self._group), generator=generator)
        groups = [permutation[self._group[permutation] == group] for group in self._group.unique()]
        batches = [
            group[start : start + length].tolist()
            for group in groups
            for start in range(0, len(group) - length + 1, length)
        ]
        remaining = torch.cat([group[len(group) - len(group) % length :] for group in groups])
        sorted_by_ratio = remaining[self._ratio[remaining].argsort(stable=True)].tolist()
        batches += [sorted_by_ratio[start : start + length] for start in range(0, len(sorted_by_ratio), length)]
        batches = [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]
        for batch in batches:
            batch += [batch[i % len(batch)] for i in range(-len(batch) % self.world_size)]
        return batches


def shard_indices(count: int, rank: int, world_size: int) -> list[int]:
    """The indices that a process evaluates. Over all processes, every index occurs exactly once."""
    return list(range(rank, count, world_size))


def detection_loader(
    dataset: DetectionDataset,
    batch_sampler: AspectRatioBatchSampler | Sequence[Sequence[int]],
    *,
    workers: int = 0,
    pin_memory: bool = False,
) -> DataLoader[Any]:
    """A data loader of batches (list of images, list of targets). Its worker processes stay alive between epochs."""
    return DataLoader(
        dataset,
        batch_sampler=batch_sampler,  # type: ignore[arg-type]
        collate_fn=collate,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=pin_memory,
        worker_init_fn=_leave_signals_to_parent,
    )


def _leave_signals_to_parent(worker: int) -> None:
    """The terminal and cluster schedulers signal all processes, but the parent still needs its workers to end well."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@contextmanager
def worker_failures_in_one_line() -> Iterator[None]:
    """Turns the error of a data loader whose worker died in the ``with`` statement into one line.

    Raises:
        WorkerError: a worker died.
    """
    try:
        yield
    except RuntimeError as error:
        found = re.search(r"DataLoader worker \(pid.*?\) .*", str(error))
        if found is None:
            raise
        cause = found[0].partition(". ")[0].rstrip(".")
        raise WorkerError(f"{cause}: often the memory ran out; use fewer workers (--data.workers, --workers)") from None
