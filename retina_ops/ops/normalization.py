"""What the sums of the RetinaNet loss are divided by, from the number of foreground anchors of each image."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

Normalization = str | Callable[[Tensor], Tensor]


def loss_divisors(normalization: Normalization, foreground: Tensor, op: str) -> Tensor:
    """The divisor of each image's sums. The host does not wait for the device.

    Args:
        normalization: as for `retina_ops.retinanet_loss`.
        foreground: number of foreground anchors of each image, int64 ``[B]``.
        op: the operator's name, for errors.

    Returns:
        float64 ``[B]`` on the device of ``foreground``.

    Raises:
        ValueError: an unknown normalization, or a callable that returns another shape.
    """
    if callable(normalization):
        divisor = normalization(foreground)
        if not isinstance(divisor, Tensor) or divisor.shape not in ((), foreground.shape):
            got = list(divisor.shape) if isinstance(divisor, Tensor) else type(divisor).__name__
            raise ValueError(f"{op}: normalization must return a tensor [] or {list(foreground.shape)}, got {got}")
    elif normalization == "image":
        divisor = foreground.clamp(min=1) * len(foreground)
    elif normalization == "batch":
        divisor = mean_foreground_per_process(foreground.sum())
    else:
        raise ValueError(
            f"{op}: normalization must be image, batch or a callable, such as EmaNormalizer(), got {normalization!r}"
        )
    return divisor.detach().to(foreground.device, torch.float64).expand(foreground.shape).contiguous()


def mean_foreground_per_process(foreground: Tensor) -> Tensor:
    """Foreground anchors per process, averaged over all processes; their total counts as at least 1.

    DistributedDataParallel averages the gradients of the processes, so that their sums are divided by the total.
    """
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        total = foreground.clone()
        dist.all_reduce(total)
        return total.clamp(min=1) / dist.get_world_size()
    return foreground.clamp(min=1)


class EmaNormalizer(nn.Module):
    """A moving average of the number of foreground anchors per batch, by which detectron2 divides the RetinaNet loss.

    Pass it as ``normalization`` of :func:`retinanet_loss`. Each call in training mode updates the average; calls in
    evaluation mode do not. With ``torch.distributed``, all processes update it with the same number: the average over
    the processes. The host does not wait for the device. The average is a buffer that stays float32 when the model is
    cast. A state dict without it, of a model trained with another normalization, can be loaded.

    Args:
        initial: the average before the first batch, in anchors.
        momentum: weight of the old average in the new one, in [0, 1).

    Returns:
        When called with the number of foreground anchors of each image, int64 ``[B]``: the average, float32 ``[]``.

    Raises:
        ValueError: ``initial`` that is not positive and finite, ``momentum`` outside [0, 1).

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
                count = mean_foreground_per_process(foreground.sum()).to(self.average.dtype)
                self.average.lerp_(count, 1 - self.momentum)
        return self.average.clone()  # a clone: the next update must not change what this loss has saved

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> EmaNormalizer:
        float32_average = self.average
        super()._apply(fn, recurse)
        if self.average.dtype != torch.float32:  # in half precision, small updates would be rounded away
            self.average = float32_average.to(self.average.device)
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        if f"{prefix}average" in state_dict:
            super()._load_from_state_dict(state_dict, prefix, *arguments)

    def extra_repr(self) -> str:
        return f"momentum={self.momentum}"
