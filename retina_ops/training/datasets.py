"""The data sets of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..data.cache import CachedDataset
from ..data.dataset import Category, DetectionDataset
from ..data.loading import AspectRatioBatchSampler
from ..data.opening import open_dataset
from ..data.transforms import AugmentedDataset, build_transforms
from .config import DataConfig, TrainConfig
from .distributed import World
from .log import RunLog


@dataclass(frozen=True)
class RunDatasets:
    """Training, validation and test set; the last two may be missing."""

    train: DetectionDataset
    val: DetectionDataset | None
    test: DetectionDataset | None

    @property
    def categories(self) -> list[Category]:
        """Those of the training set: the others are opened with them."""
        return self.train.categories


def open_run_datasets(config: DataConfig) -> RunDatasets:
    """Opens what a configuration names.

    Raises:
        DataError: a set that is missing, empty or malformed, or with a category that training does not have.
    """
    images = config.images or None
    train = open_dataset(config.train, images, split="train", on_bad_image=config.on_bad_image)

    def other(path: str, split: str) -> DetectionDataset | None:
        if not path:
            return None
        return open_dataset(path, images, split=split, categories=train.categories, on_bad_image=config.on_bad_image)

    val = config.val
    if not val and not Path(config.train).is_file():  # a folder of splits, or the built-in set
        val = config.train
    return RunDatasets(train, other(val, "val"), other(config.test, "test"))


def training_batches(
    train: DetectionDataset, config: TrainConfig, world: World, log: RunLog
) -> tuple[AugmentedDataset, AspectRatioBatchSampler]:
    """The augmented training set and the order of its batches, for one process."""
    if config.data.cache:
        with log.progress("loading images", len(train)) as progress:
            train = CachedDataset(train, config.model.min_size, config.model.max_size, progress=progress)
    augmented = AugmentedDataset(train, build_transforms(config.augmentation), seed=config.seed)
    sampler = AspectRatioBatchSampler(
        train, config.batch_size, seed=config.seed, rank=world.rank, world_size=world.size
    )
    return augmented, sampler
