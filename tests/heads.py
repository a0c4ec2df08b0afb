"""Head outputs for tests: logits as a trained network gives them, dense ones, and those full of ties."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Maps = tuple[list[Tensor], list[Tensor], Tensor]
SIZES = ((12, 9), (6, 5), (3, 3), (1, 2))  # (height, width) of four levels


def head_outputs(
    batch: int,
    classes: int,
    *,
    per_cell: int = 3,
    sizes: Sequence[tuple[int, int]] = SIZES,
    kind: str = "trained",
    dtype: torch.dtype = torch.float32,
    delta_dtype: torch.dtype | None = None,
    device: str = "cpu",
) -> Maps:
    """Maps ``[B, A * K, H, W]`` and ``[B, A * 4, H, W]`` of each level, and the anchors of all levels.

    kind: "trained" (a prior of 0.01 and few confident anchors), "dense" (most scores above 0.05), "ties" (few values,
    infinities, NaN and scores that round to 1) or "constant".
    """
    logits, deltas, anchors = [], [], []
    for level, (height, width) in enumerate(sizes):
        maps = torch.randn(batch, per_cell * classes, height, width, device=device)
        if kind == "trained":
            confident = torch.rand_like(maps) < 0.03
            maps = torch.where(confident, maps * 2, maps * 0.5 - 4.6)
        elif kind == "dense":
            maps = maps * 2
        elif kind == "ties":
            maps = maps.round()
            maps[torch.rand_like(maps) < 0.1] = float("nan")
            maps[torch.rand_like(maps) < 0.05] = float("inf")
            maps[torch.rand_like(maps) < 0.05] = -float("inf")
            maps[torch.rand_like(maps) < 0.2] = 30.0
            maps[torch.rand_like(maps) < 0.2] = 20.0
        else:
            maps = torch.full_like(maps, 1.5)
        logits.append(maps.to(dtype))
        spread = torch.randn(batch, per_cell * 4, height, width, device=device) * 0.4
        deltas.append(spread.to(dtype if delta_dtype is None else delta_dtype))
        stride = 8.0 * 2**level
        rows = (torch.arange(height, device=device) + 0.5) * stride
        columns = (torch.arange(width, device=device) + 0.5) * stride
        centres = torch.stack([columns.repeat(height), rows.repeat_interleave(width)], dim=1)
        half = stride * torch.rand(per_cell, 2, device=device) + stride
        corners = torch.cat([centres[:, None] - half, centres[:, None] + half], dim=2)
        anchors.append(corners.reshape(-1, 4))
    return logits, deltas, torch.cat(anchors)


def channels_last(levels: list[Tensor]) -> list[Tensor]:
    return [level.to(memory_format=torch.channels_last) for level in levels]
