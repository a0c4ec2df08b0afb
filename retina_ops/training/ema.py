"""An exponential moving average of the weights, which usually has a higher AP than the weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import needs_extra

with needs_extra("train"):
    import torch
    from torch import Tensor, nn
    from torch.optim.swa_utils import AveragedModel


def averaged_model(model: nn.Module, decay: float) -> AveragedModel:
    """Averages weights and buffers with decay min(``decay``, (1 + t) / (10 + t)) after t updates.

    The smaller decay at the beginning makes the average forget the random initial weights in short runs, too.
    """

    @torch.no_grad()
    def average(averages: Any, currents: Any, updates: Tensor | int) -> None:
        done = int(updates)
        weight = 1 - min(decay, (1 + done) / (10 + done))
        if averages[0].is_floating_point():
            torch._foreach_lerp_(_list(averages), _list(currents), weight)
        else:  # counters of batch norm
            torch._foreach_copy_(_list(averages), _list(currents))

    return AveragedModel(model, multi_avg_fn=average, use_buffers=True)


def _list(tensors: Sequence[Tensor]) -> list[Tensor]:
    return list(tensors)
