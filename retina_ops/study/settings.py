"""The settings that all runs of a study share, and how a run departs from them."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from ..data.transforms import AugmentationConfig
from ..models import LossOptions, ModelConfig
from ..training import DataConfig, OptimizerConfig, ScheduleConfig, TrainConfig
from .experiment import Budget, StudyData


def base_config(data: StudyData, budget: Budget) -> TrainConfig:
    """A small RetinaNet that a CPU trains from random weights. It computes in float32 on every machine."""
    is_digits = data.name == "digits"
    return TrainConfig(
        data=DataConfig(train=data.train, val=data.val, test=data.test, cache=True),
        model=ModelConfig(
            architecture="retinanet_small_fpn",
            min_size=192 if is_digits else 240,
            max_size=192 if is_digits else 320,
            fpn_channels=64,
            head_depth=2,
            head_norm=True,
            base_sizes=(12, 24, 48, 96, 192) if is_digits else (16, 32, 64, 128, 256),
            aspect_ratios=(1.4,) if is_digits else (0.5, 1.0, 2.0),  # digits are higher than wide
            detections_per_img=100,
            loss=LossOptions(normalization="batch"),
        ),
        augmentation=AugmentationConfig(horizontal_flip=0.0)
        if is_digits
        else AugmentationConfig(horizontal_flip=0.5, vertical_flip=0.5, zoom=(0.8, 1.5), photometric=0.2),
        optimizer=OptimizerConfig(name="adamw", lr=2e-3 if is_digits else 1e-3, weight_decay=0.05),
        schedule=ScheduleConfig(warmup_steps=max(1, budget.steps // 20)),
        epochs=1_000_000,
        max_steps=budget.steps,
        batch_size=8,
        precision="fp32",
        ema_decay=0.998,
        validate_every=1 if is_digits else max(1, budget.steps // 250),
    )


def changed(config: TrainConfig, **changes: Any) -> TrainConfig:
    """A copy with other settings. A double underscore stands for a dot: ``model__loss__gamma=2.0``."""
    config = deepcopy(config)
    for path, value in changes.items():
        *parents, name = path.split("__")
        target: Any = config
        for parent in parents:
            target = getattr(target, parent)
        if not hasattr(target, name):
            raise ValueError(f"unknown setting {path.replace('__', '.')}")
        if isinstance(target, LossOptions):
            raise ValueError("LossOptions cannot be changed in place: use with_loss")
        setattr(target, name, value)
    return config


def with_loss(config: TrainConfig, **options: Any) -> TrainConfig:
    """A copy with other options of the loss."""
    from dataclasses import replace

    return changed(config, model__loss=replace(config.model.loss, **options))
