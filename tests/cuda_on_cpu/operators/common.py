"""What the launches of several operators need."""

from __future__ import annotations

import torch
from torch import Tensor

from ..device import Array

DTYPES = {torch.float16: 0, torch.bfloat16: 1, torch.float32: 2, torch.float64: 3}  # csrc/common/half_block.h


def arithmetic(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def padded_boxes(boxes: list[Tensor], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    capacity = max(8, *(len(each) for each in boxes))
    padded = torch.zeros(len(boxes), capacity, 4, dtype=dtype)
    for row, each in zip(padded, boxes, strict=True):
        row[: len(each)] = each
    return padded, torch.tensor([len(each) for each in boxes], dtype=torch.int32)


def level_arguments(
    logits: list[Tensor], deltas: list[Tensor], offset: int
) -> tuple[dict[str, float], dict[str, Array | Tensor | None]]:
    """Scalars and arrays of levels as `as_levels` gives them; each array lies `offset` elements past 16 bytes."""
    scalars: dict[str, float] = {"levels": len(logits), "batch": logits[0].shape[0], "classes": logits[0].shape[2]}
    arrays: dict[str, Array | Tensor | None] = {}
    for name, levels in (("logits", logits), ("deltas", deltas)):
        scalars[f"{name}_dtype"] = DTYPES[levels[0].dtype]
        for i, level in enumerate(levels):
            planar = level.dim() == 4
            scalars[f"{name}_cells{i}"] = level.shape[3 if planar else 1]
            scalars[f"{name}_per_cell{i}"] = level.shape[1] if planar else 1
            scalars[f"{name}_is_planar{i}"] = planar
            arrays[f"{name}{i}"] = Array(level.contiguous(), offset=offset * level.element_size())
    return scalars, arrays
