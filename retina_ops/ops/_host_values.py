"""Numbers of the host as a tensor on a device, without a synchronisation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def to_device(rows: Sequence[Sequence[float]], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Numbers as a tensor ``[rows, columns]``, with at least one column.

    They are copied to CUDA from pinned memory. A CUDA graph would copy from that memory in each replay, when it may
    hold something else; while a graph is captured, the numbers are arguments of fill kernels instead.
    """
    if device.type != "cuda" or torch.compiler.is_compiling():  # compilers do not trace pinned memory
        return torch.tensor(rows, dtype=dtype).to(device, non_blocking=True)
    if torch.cuda.is_current_stream_capturing():
        return fill_on_device(rows, dtype, device)
    return torch.tensor(rows, dtype=dtype, pin_memory=True).to(device, non_blocking=True)


def fill_on_device(rows: Sequence[Sequence[float]], dtype: torch.dtype, device: torch.device) -> Tensor:
    """The same tensor, made by one fill kernel per number."""
    return torch.stack([torch.stack([torch.full((), n, dtype=dtype, device=device) for n in row]) for row in rows])
