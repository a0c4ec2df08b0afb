"""Batches by aspect ratio, distributed over processes."""

from __future__ import annotations

import itertools
import os
import pickle

import pytest
import torch
from torch.utils.data import DataLoader

from retina_ops.data import AspectRatioBatchSampler, collate, shard_indices
from retina_ops.data.cache import CachedDataset
from retina_ops.data.digits import DigitScenes

LANDSCAPE, PORTRAIT, SQUARE = (480, 640), (640, 480), (500, 510)
SIZES = [LANDSCAPE] * 37 + [PORTRAIT] * 18 + [SQUARE] * 6


def epoch_of(world_size: int, epoch: int = 0, **options) -> list[list[list[int]]]:
    """The batches of each process."""
    found = []
    for rank in range(world_size):
        sampler = AspectRatioBatchSampler(SIZES, 4, rank=rank, world_size=world_size, **options)
        sampler.set_epoch(epoch)
        found.append(list(sampler))
        assert len(found[-1]) == len(sampler)
    return found


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_every_image_once(world_size: int) -> None:
    ranks = epoch_of(world_size)
    assert len({len(batches) for batches in ranks}) == 1
    assert all(batch for batches in ranks for batch in batches)
    every = list(itertools.chain.from_iterable(itertools.chain.from_iterable(ranks)))
    assert set(every) == set(range(len(SIZES)))
    assert len(every) - len(SIZES) < world_size  # repeated for batches of equal length
    for batches in zip(*ranks, strict=True):
        assert len({len(batch) for batch in batches}) == 1


def test_batches_have_one_shape() -> None:
    (batches,) = epoch_of(1)
    mixed = [batch for batch in batches if len({SIZES[index] for index in batch}) > 1]
    assert len(mixed) <= 2  # 1, 2 and 2 images remain of 37, 18 and 6
    steps = [[index for batch in step for index in batch] for step in zip(*epoch_of(2), strict=True)]
    assert len(steps) == 8 and sum(len({SIZES[index] for index in step}) > 1 for step in steps) <= 2


def test_order_depends_on_seed_and_epoch() -> None:
    assert epoch_of(2, seed=1) == epoch_of(2, seed=1)
    assert epoch_of(2, seed=1) != epoch_of(2, seed=2)
    assert epoch_of(2, epoch=0) != epoch_of(2, epoch=1)


def test_rejects_bad_options() -> None:
    with pytest.raises(ValueError, match="batch_size"):
        AspectRatioBatchSampler(SIZES, 0)
    with pytest.raises(ValueError, match="rank 2 of 2"):
        AspectRatioBatchSampler(SIZES, 1, rank=2, world_size=2)
    with pytest.raises(ValueError, match="empty"):
        AspectRatioBatchSampler([], 1)


def test_shards_and_collate() -> None:
    shards = [shard_indices(10, rank, 3) for rank in range(3)]
    assert sorted(itertools.chain.from_iterable(shards)) == list(range(10))
    scenes = DigitScenes("val", 3)
    images, targets = collate([scenes[0], scenes[2]])
    assert torch.equal(images[1], scenes.load_image(2)) and targets[0]["image_id"] == 1
    assert len(AspectRatioBatchSampler(scenes, 2)) == 2


def test_a_cache_needs_few_open_files_in_spawned_workers() -> None:
    """Each tensor that is sent to a spawned process needs an open file, of which there are 1,024."""
    from multiprocessing.reduction import ForkingPickler

    cached = CachedDataset(DigitScenes("train", 30), 64, 64)
    before = len(os.listdir("/proc/self/fd"))
    sent = ForkingPickler.dumps(cached)
    assert len(os.listdir("/proc/self/fd")) - before < 12
    received = pickle.loads(sent)
    for index in (0, 17, 29, -1):
        image, target = cached[index]
        assert torch.equal(image, received[index][0]) and image.shape == (3, 64, 64)
        assert target.keys() == received[index][1].keys() and target["image_id"] == cached.image_id(index)
        for name in ("boxes", "labels", "area", "iscrowd"):
            assert torch.equal(target[name], received[index][1][name]) and len(target[name]) == len(target["boxes"])


def test_a_spawned_worker_reads_a_cache() -> None:
    cached = CachedDataset(DigitScenes("train", 4), 64, 64)
    loader = DataLoader(cached, batch_size=2, collate_fn=collate, num_workers=1, multiprocessing_context="spawn")
    images = [image for batch, _ in loader for image in batch]
    assert len(images) == 4 and all(torch.equal(image, cached[i][0]) for i, image in enumerate(images))
