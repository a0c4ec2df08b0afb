"""From a data set to batches: grouping by aspect ratio, sharing among processes, collating."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from ..errors import needs_extra
from .dataset import DetectionDataset, Target
from .transforms import mix_seed

with needs_extra("train"):
    import torch
    from torch import Tensor
    from torch.utils.data import DataLoader, Sampler


def collate(batch: Sequence[tuple[Tensor, Target]]) -> tuple[list[Tensor], list[Target]]:
    """A batch as (list of images, list of targets): images may differ in size."""
    images, targets = zip(*batch, strict=True)
    return list(images), list(targets)


class AspectRatioBatchSampler(Sampler[list[int]]):
    """Batches of images of similar shape, so that little of a batch is padding.

    Images fall into ``groups`` by the logarithm of width / height (edges at fixed powers of two, so that landscape
    and portrait never share a group). Each group is cut into batches; what is left over of all groups is joined in
    order of shape. Every process gets the same number of batches, of images of the same group at each step. An epoch
    holds every image once; among several processes the last batch repeats a few where they cannot be shared evenly.

    Args:
        sizes: (height, width) of each image, or a data set that tells them.
        batch_size: images a batch and process.
        shuffle: False keeps the order of the data set and does not group.
        seed: with the epoch decides the order; the same on every process.
        rank, world_size: this process and the number of processes.
        drop_last: leave out the last batch where it is short.
        groups: edges of log2(width / height); the default puts square images (within a factor 1.19) together.
    """

    def __init__(
        self,
        sizes: Sequence[tuple[int, int]] | DetectionDataset,
        batch_size: int,
        *,
        shuffle: bool = True,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
        groups: Sequence[float] = (-1.0, -0.25, 0.25, 1.0),
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be in [0, world_size), got rank {rank} of {world_size}")
        if isinstance(sizes, DetectionDataset):
            sizes = [sizes.image_size(index) for index in range(len(sizes))]
        if len(sizes) == 0:
            raise ValueError("the data set is empty: there is nothing to sample")
        self.batch_size, self.shuffle, self.seed = batch_size, shuffle, seed
        self.rank, self.world_size, self.drop_last = rank, world_size, drop_last
        self.epoch = self.first_batch = 0
        ratio = torch.tensor([math.log2(width / height) for height, width in sizes], dtype=torch.float64)
        self._ratio = ratio
        self._group = torch.bucketize(ratio, torch.tensor(list(groups), dtype=torch.float64))

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Choose the epoch, which decides the order, and the batch to begin with, for a run that is resumed."""
        self.epoch, self.first_batch = epoch, first_batch

    def __len__(self) -> int:
        together = self.batch_size * self.world_size
        return len(self._group) // together if self.drop_last else -(-len(self._group) // together)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self._batches()[self.first_batch :]:
            yield batch[self.rank :: self.world_size]

    def _batches(self) -> list[list[int]]:
        """Batches over all processes; lengths are multiples of the world size."""
        together = self.batch_size * self.world_size
        count = len(self._group)
        if not self.shuffle:
            order = list(range(count))
            batches = [order[start : start + together] for start in range(0, count, together)]
        else:
            generator = torch.Generator().manual_seed(mix_seed(self.seed, self.epoch))
            permutation = torch.randperm(count, generator=generator)
            groups = [permutation[self._group[permutation] == group] for group in self._group.unique()]
            batches = [
                group[start : start + together].tolist()
                for group in groups
                for start in range(0, len(group) - together + 1, together)
            ]
            rest = torch.cat([group[len(group) - len(group) % together :] for group in groups])
            by_shape = rest[self._ratio[rest].argsort(stable=True)].tolist()
            batches += [by_shape[start : start + together] for start in range(0, len(by_shape), together)]
            batches = [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]
        if self.drop_last:
            batches = [batch for batch in batches if len(batch) == together]
        for batch in batches:
            short = -len(batch) % self.world_size
            batch += [batch[i % len(batch)] for i in range(short)] if short else []
        return batches


def shard_indices(count: int, rank: int, world_size: int) -> list[int]:
    """The items of one process for evaluation: every item exactly once over all processes."""
    return list(range(rank, count, world_size))


def detection_loader(
    dataset: DetectionDataset,
    batch_sampler: AspectRatioBatchSampler | Sequence[Sequence[int]],
    *,
    workers: int = 0,
    pin_memory: bool = False,
) -> DataLoader[Any]:
    """Batches of (list of images, list of targets). Workers live through epochs and leave the threads to the model."""
    return DataLoader(
        dataset,
        batch_sampler=batch_sampler,  # type: ignore[arg-type]
        collate_fn=collate,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=pin_memory,
    )
