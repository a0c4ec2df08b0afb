"""What the launches of several operators need."""

from __future__ import annotations

import torch
from torch import Tensor

DTYPES = {torch.float16: 0, torch.bfloat16: 1, torch.float32: 2, torch.float64: 3}  # csrc/common/half_block.h


def arithmetic(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def padded_boxes(boxes: list[Tensor], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    capacity = max(8, *(len(each) for each in boxes))
    padded = torch.zeros(len(boxes), capacity, 4, dtype=dtype)
    for row, each in zip(padded, boxes, strict=True):
        row[: len(each)] = each
    return padded, torch.tensor([len(each) for each in boxes], dtype=torch.int32)
