"""The learning rate as a function of progress, so that runs limited by time and by epochs have the same schedule."""

from __future__ import annotations

import math

from .config import ScheduleConfig


def lr_factor(config: ScheduleConfig, step: int, progress: float) -> float:
    """The factor of the learning rate. The warm-up ends at half of the run at the latest.

    Args:
        config: see `ScheduleConfig`.
        step: number of updates done.
        progress: fraction of the run that is done, 0 to 1.
    """
    progress = min(max(progress, 0.0), 1.0)
    warmup = min(1.0, max((step + 1) / (config.warmup_steps + 1), 2 * progress))
    if config.name == "cosine":
        return warmup * (config.final_factor + (1 - config.final_factor) * 0.5 * (1 + math.cos(math.pi * progress)))
    passed = sum(progress >= milestone for milestone in config.milestones)
    return float(warmup * config.step_factor**passed)
