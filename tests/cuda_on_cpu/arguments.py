"""Arguments that the launches of several rooms take."""

from __future__ import annotations

import torch
from torch import Tensor

from .device import Array, Field


def limits(first: int = 0, most_blocks: int = 2**62) -> dict[str, Field]:
    """LaunchLimits of csrc/common/launch.cuh."""
    return {"first": first, "most_blocks": most_blocks}


def output(tensor: Tensor, *, offset: int = 0, first: int = 0) -> Array:
    """Memory as it is allocated: its content is not read."""
    return Array(tensor, False, offset, first)


def arithmetic(*dtypes: torch.dtype) -> torch.dtype:
    """The dtype that kernels compute in."""
    return torch.float64 if torch.float64 in dtypes else torch.float32


def padded_boxes(boxes: list[Tensor], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Boxes [images, most boxes, 4] and their counts [images]."""
    capacity = max(8, *(len(each) for each in boxes))
    padded = torch.zeros(len(boxes), capacity, 4, dtype=dtype)
    for row, each in zip(padded, boxes, strict=True):
        row[: len(each)] = each
    return padded, torch.tensor([len(each) for each in boxes], dtype=torch.int32)


LEVEL_ALIGNMENT = 64  # kLevelAlignment of csrc/common/head_levels.h


def level_starts(levels: list[Tensor]) -> list[int]:
    """Where each level begins in an array of all of them, and where the last one ends, padded."""
    starts = [0]
    for level in levels:
        starts.append(-(-(starts[-1] + level.numel()) // LEVEL_ALIGNMENT) * LEVEL_ALIGNMENT)
    return starts


def head_levels(levels: list[Tensor], *, offset: int = 0, first: int = 0) -> dict[str, Field]:
    """HeadLevels of csrc/common/head_levels.h.

    Args:
        levels: planar ``[B, A, C, cells]`` or by anchor ``[B, anchors, C]``, as `as_levels` gives them.
        offset: elements that each level lies past a 64-byte boundary.
        first: index of the first image.
    """
    described, anchors = [], 0
    for level, start in zip(levels, level_starts(levels), strict=False):
        is_planar = level.dim() == 4
        cells, per_cell = (level.shape[3], level.shape[1]) if is_planar else (level.shape[1], 1)
        described.append(
            {
                "values": Array(level.contiguous(), offset=offset, first=first),
                "cells": cells,
                "per_cell": per_cell,
                "first_anchor": anchors,
                "start": start - first * level[0].numel(),
                "is_planar": is_planar,
            }
        )
        anchors += cells * per_cell
    return {
        "level": described,
        "count": len(levels),
        "dtype": levels[0].dtype,
        "batch": first + levels[0].shape[0],
        "channels": levels[0].shape[2],
        "anchors": anchors,
        "elements": level_starts(levels)[-1],
    }
