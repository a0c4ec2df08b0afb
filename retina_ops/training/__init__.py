"""Training in plain PyTorch, on one or several processes, from a typed configuration."""

from __future__ import annotations

from .config import DataConfig, OptimizerConfig, ScheduleConfig, TrainConfig
from .run import train
from .trainer import Trainer, TrainingError

__all__ = ["DataConfig", "OptimizerConfig", "ScheduleConfig", "TrainConfig", "Trainer", "TrainingError", "train"]
