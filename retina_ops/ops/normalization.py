"""What the sums of the RetinaNet loss are divided by, from the foreground anchors of each image."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

Normalization = str | Callable[[Tensor], Tensor]


def divisors(normalization: Normalization, foreground: Tensor, op: str) -> Tensor:
    """float64 ``[B]`` on the device of ``foreground``, int64 ``[B]``; nothing waits for the device.

    Raises:
        ValueError: an unknown normalization, or a callable's result of another shape.
    """
    if callable(normalization):
        divisor = normalization(foreground)
        if not isinstance(divisor, Tensor) or divisor.shape not in ((), foreground.shape):
            got = list(divisor.shape) if isinstance(divisor, Tensor) else type(divisor).__name__
            raise ValueError(f"{op}: normalization must return a tensor [] or {list(foreground.shape)}, got {got}")
    elif normalization == "image":
        divisor = foreground.clamp(min=1) * len(foreground)
    elif normalization == "batch":
        divisor = positives_of_all(foreground.sum())
    else:
        raise ValueError(f"{op}: normalization must be image, batch or a callable, got {normalization!r}")
    return divisor.detach().to(foreground.device, torch.float64).expand(foreground.shape).contiguous()


def positives_of_all(positives: Tensor) -> Tensor:
    """Foreground anchors a process, on average over all, at least 1 in all: DDP averages the gradients."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        total = positives.clone()
        dist.all_reduce(total)
        return total.clamp(min=1) / dist.get_world_size()
    return positives.clamp(min=1)
