"""Numbers of the host as a tensor on a device, without a wait for it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def to_device(rows: Sequence[Sequence[float]], dtype: torch.dtype, device: torch.device) -> Tensor:
    """``[rows, columns]``, of at least one column.

    To CUDA they are copied from pinned memory. A CUDA graph under capture would read that memory again in each replay,
    when it may hold something else: it gets the numbers as arguments of kernels that fill.
    """
    if device.type != "cuda" or torch.compiler.is_compiling():  # tracers know no pinned memory
        return torch.tensor(rows, dtype=dtype).to(device, non_blocking=True)
    if torch.cuda.is_current_stream_capturing():
        return filled(rows, dtype, device)
    return torch.tensor(rows, dtype=dtype, pin_memory=True).to(device, non_blocking=True)


def filled(rows: Sequence[Sequence[float]], dtype: torch.dtype, device: torch.device) -> Tensor:
    """The same by one kernel a number."""
    return torch.stack([torch.stack([torch.full((), n, dtype=dtype, device=device) for n in row]) for row in rows])
