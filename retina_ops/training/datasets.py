"""The data sets of a run."""

from __future__ import annotations

from dataclasses import dataclass

from ..data.cache import CachedDataset
from ..data.dataset import Category, DetectionDataset
from ..data.loading import AspectRatioBatchSampler
from ..data.opening import has_split, open_dataset
from ..data.transforms import AugmentedDataset, build_transforms
from .config import DataConfig, TrainConfig
from .distributed import World
from .log import RunLog


@dataclass(frozen=True)
class RunDatasets:
    """The training, validation and test set. The last two are optional."""

    train: DetectionDataset
    val: DetectionDataset | None
    test: DetectionDataset | None

    @property
    def categories(self) -> list[Category]:
        """The categories of the training set, which the other sets have as well."""
        return self.train.categories


def open_run_datasets(config: DataConfig) -> RunDatasets:
    """Opens the data sets of a configuration.

    Raises:
        DataError: a data set is missing, empty or malformed, or has a category that the training set does not have.
    """
    images = config.images or None
    train = open_dataset(
        config.train,
        images,
        split="train",
        on_bad_image=config.on_bad_image,
        on_bad_annotation=config.on_bad_annotation,
        exif=config.exif,
    )

    def other(path: str, split: str) -> DetectionDataset | None:
        if not path:
            return None
        return open_dataset(
            path,
            images,
            split=split,
            categories=train.categories,
            on_bad_image=config.on_bad_image,
            on_bad_annotation=config.on_bad_annotation,
            exif=config.exif,
        )

    val = config.val
    if not val and has_split(config.train, "val"):
        val = config.train
    return RunDatasets(train, other(val, "val"), other(config.test, "test"))


def training_batches(
    train: DetectionDataset, config: TrainConfig, world: World, log: RunLog
) -> tuple[AugmentedDataset, AspectRatioBatchSampler]:
    """The augmented training set, and the sampler of this process's batches."""
    if config.data.cache:
        with log.progress("loading images", len(train)) as progress:
            train = CachedDataset(train, config.model.min_size, config.model.max_size, progress=progress)
    augmented = AugmentedDataset(train, build_transforms(config.augmentation), seed=config.seed)
    sampler = AspectRatioBatchSampler(
        train, config.batch_size, seed=config.seed, rank=world.rank, world_size=world.size
    )
    return augmented, sampler
