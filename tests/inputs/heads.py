"""Outputs of a detection head, anchors and ground truth for tests of the fused operators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inputs.boxes import random_boxes

Maps = tuple[list[Tensor], list[Tensor], Tensor]
SIZES = ((12, 9), (6, 5), (3, 3), (1, 2))  # (height, width) of four levels


@dataclass
class Head:
    """cls_logits and bbox_regression by level, anchors [N, 4], and for each image boxes [M, 4] and labels [M]."""

    cls_logits: list[Tensor]
    bbox_regression: list[Tensor]
    anchors: Tensor
    gt_boxes: list[Tensor]
    gt_labels: list[Tensor]

    @property
    def outputs(self) -> list[Tensor]:
        return [*self.cls_logits, *self.bbox_regression]


def random_head(
    sizes: list[tuple[int, int]],
    boxes: list[int],
    *,
    per_cell: int = 3,
    classes: int = 7,
    layout: str = "planar",
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> Head:
    """A head of levels of `sizes` (height, width) for images with so many `boxes`.

    layout: "planar" (contiguous maps), "channels_last", or "rows" ([B, N, K]). Some anchors are close to boxes.
    """
    batch = len(boxes)
    cls_logits, bbox_regression = [], []
    for height, width in sizes:
        logits = torch.randn(batch, per_cell * classes, height, width, dtype=torch.float64) * 2 - 2
        deltas = torch.randn(batch, per_cell * 4, height, width, dtype=torch.float64) * 0.3
        for values, into in ((logits, cls_logits), (deltas, bbox_regression)):
            level = values.to(dtype).to(device)
            if layout == "channels_last":
                level = level.contiguous(memory_format=torch.channels_last)
            elif layout == "rows":
                level = level.permute(0, 2, 3, 1).reshape(batch, height * width * per_cell, -1).contiguous()
            into.append(level.requires_grad_())
    count = sum(height * width * per_cell for height, width in sizes)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    anchors = random_boxes(count, high=40, width=120, height=120).to(wide).to(device)
    gt_boxes, gt_labels = [], []
    for number in boxes:
        chosen = torch.randperm(count)[:number]
        near = torch.rand(number, 4, dtype=torch.float64).to(wide).to(device)
        gt_boxes.append(anchors[chosen.to(device)] + near * torch.tensor([-1, -1, 2, 2], device=device))
        gt_labels.append(torch.randint(0, classes, (number,)).to(device))
    return Head(cls_logits, bbox_regression, anchors, gt_boxes, gt_labels)


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
