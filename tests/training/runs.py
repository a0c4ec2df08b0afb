"""Small runs for the tests of training and of the commands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from retina_ops.data import write_coco
from retina_ops.data.digits import DigitScenes
from retina_ops.data.transforms import AugmentationConfig
from retina_ops.models import LossOptions, ModelConfig
from retina_ops.training import DataConfig, OptimizerConfig, ScheduleConfig, TrainConfig


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """The networks of these tests are so small that a second thread costs more time than it saves."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def write_digits(folder: Path, images: int = 8) -> Path:
    """A COCO data set of digits scenes. The splits train and val have the same scenes."""
    for split in ("train", "val"):
        write_coco(DigitScenes("train", images), folder, split)
    return folder


def small_config(data: Path, **changes: object) -> TrainConfig:
    """A run of a few seconds, in float32 so that results can be compared."""
    config = TrainConfig(
        data=DataConfig(train=str(data)),
        model=ModelConfig(
            architecture="retinanet_small_fpn",
            min_size=128,
            max_size=128,
            fpn_channels=32,
            head_depth=1,
            base_sizes=(8, 16, 32, 64, 128),
            loss=LossOptions(normalization="batch"),
        ),
        augmentation=AugmentationConfig(horizontal_flip=0.0),
        optimizer=OptimizerConfig(name="adamw", lr=1e-3, clip_norm=0.0),
        schedule=ScheduleConfig(warmup_steps=2),
        epochs=2,
        batch_size=4,
        precision="fp32",
        device="cpu",
    )
    for name, value in changes.items():
        assert hasattr(config, name)
        setattr(config, name, value)
    return config
