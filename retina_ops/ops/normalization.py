"""What the sums of the RetinaNet loss are divided by, from the foreground anchors of each image."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

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
        raise ValueError(
            f"{op}: normalization must be image, batch or a callable, such as EmaNormalizer(), got {normalization!r}"
        )
    return divisor.detach().to(foreground.device, torch.float64).expand(foreground.shape).contiguous()


def positives_of_all(positives: Tensor) -> Tensor:
    """Foreground anchors a process, on average over all, at least 1 in all: DDP averages the gradients."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        total = positives.clone()
        dist.all_reduce(total)
        return total.clamp(min=1) / dist.get_world_size()
    return positives.clamp(min=1)


class EmaNormalizer(nn.Module):
    """A moving average of the foreground anchors of a batch: what detectron2 divides the RetinaNet loss by.

    For ``normalization`` of :func:`retinanet_loss`. In training mode each call moves the average, in evaluation mode
    none does. With ``torch.distributed`` all processes move it by the same number: their average. Nothing waits for
    the device. The average is a buffer, float32 whatever the model is cast to; a state dict without it, of a model
    that was trained with another normalization, is loaded all the same.

    Args:
        initial: the average before the first batch, in anchors.
        momentum: share of the old average in the new one, in [0, 1).

    Returns:
        When called with the foreground anchors of each image, int64 ``[B]``: the average, float32 ``[]``.

    Raises:
        ValueError: ``initial`` that is not positive, ``momentum`` outside [0, 1).

    Example:
        >>> import torch
        >>> normalizer = EmaNormalizer(initial=100.0, momentum=0.9)
        >>> normalizer(torch.tensor([30, 10]))  # 0.9 * 100 + 0.1 * 40
        tensor(94.)
        >>> normalizer.eval()(torch.tensor([5, 5]))
        tensor(94.)
    """

    average: Tensor

    def __init__(self, initial: float = 100.0, momentum: float = 0.9) -> None:
        super().__init__()
        if not (initial > 0 and math.isfinite(initial)):
            raise ValueError(f"EmaNormalizer: initial must be positive and finite, got {initial}")
        if not 0 <= momentum < 1:
            raise ValueError(f"EmaNormalizer: momentum must be in [0, 1), got {momentum}")
        self.momentum = momentum
        self.register_buffer("average", torch.tensor(float(initial), dtype=torch.float32))

    def forward(self, foreground: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                positives = positives_of_all(foreground.sum()).to(self.average.dtype)
                self.average.lerp_(positives, 1 - self.momentum)
        return self.average.clone()  # a loss that is kept must not see the next batch

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> EmaNormalizer:
        kept = self.average
        super()._apply(fn, recurse)
        if self.average.dtype != torch.float32:  # half precision would not move at all near a large average
            self.average = kept.to(self.average.device)
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        if f"{prefix}average" in state_dict:
            super()._load_from_state_dict(state_dict, prefix, *arguments)

    def extra_repr(self) -> str:
        return f"momentum={self.momentum}"
