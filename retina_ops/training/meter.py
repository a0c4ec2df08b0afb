"""Mean losses and speed between two lines of the log."""

from __future__ import annotations

import time
from collections.abc import Mapping

from ..errors import needs_extra

with needs_extra("train"):
    import torch
    from torch import Tensor


class LossMeter:
    """Adds up losses on their device. Only `means` waits for the device.

    Attributes:
        batches: number of batches added.
    """

    def __init__(self) -> None:
        self.batches = 0
        self._started = time.monotonic()
        self._sums: dict[str, Tensor] = {}

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Adds the losses of a batch, scalars by name."""
        for name, loss in losses.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(loss)) + loss.detach()
        self.batches += 1

    def means(self) -> dict[str, float]:
        """The mean of each loss over the batches."""
        return {name: float(total) / self.batches for name, total in self._sums.items()}

    def batches_per_second(self) -> float:
        """Number of batches per second since the creation."""
        return self.batches / (time.monotonic() - self._started)
