"""The outputs of a detection head as the fused operators take them: ``csrc/common/head_levels.h``.

Each level becomes a view in the order of its memory: ``[B, anchors, C]`` for channels-last maps and for rows, or
``[B, A, C, H * W]`` for contiguous maps, whose anchors of a cell are apart. ``C`` is the number of classes, or 4.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def check_levels(op: str, cls_logits: Sequence[Tensor], bbox_regression: Sequence[Tensor]) -> None:
    """Checks that the maps are those of a detection head.

    Args:
        op: the operator's name, for errors.
        cls_logits: each level ``[B, A * K, H, W]``, contiguous or channels-last, or ``[B, H * W * A, K]``.
        bbox_regression: each level ``[B, A * 4, H, W]`` or ``[B, H * W * A, 4]``.

    Raises:
        RuntimeError: they are not.
    """
    if isinstance(cls_logits, Tensor) or isinstance(bbox_regression, Tensor):
        raise RuntimeError(f"{op}: cls_logits and bbox_regression must be lists of one tensor per level")
    if len(cls_logits) != len(bbox_regression) or len(cls_logits) == 0:
        raise RuntimeError(
            f"{op}: cls_logits and bbox_regression must have the same levels, at least one, "
            f"got {len(cls_logits)} and {len(bbox_regression)}"
        )
    for level, (logits, deltas) in enumerate(zip(cls_logits, bbox_regression, strict=True)):
        anchors_per_cell = _anchors_per_cell(deltas)
        if (
            logits.dim() != deltas.dim()
            or logits.dim() not in (3, 4)
            or (deltas.dim() == 4 and deltas.shape[1] % 4)
            or anchors_per_cell < 1
            or logits.shape[1] % anchors_per_cell
        ):
            raise RuntimeError(
                f"{op}: level {level} must be cls_logits [B, A * K, H, W] and bbox_regression [B, A * 4, H, W], or "
                f"[B, N, K] and [B, N, 4], got {list(logits.shape)} and {list(deltas.shape)}"
            )


def as_levels(
    op: str, cls_logits: Sequence[Tensor], bbox_regression: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """`check_levels`, then `memory_order_levels`."""
    check_levels(op, cls_logits, bbox_regression)
    return memory_order_levels(cls_logits, bbox_regression)


def memory_order_levels(
    cls_logits: Sequence[Tensor], bbox_regression: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Views of checked maps in the order of their memory; only maps that are dense in neither format are copied."""
    logits_levels, deltas_levels = [], []
    for logits, deltas in zip(cls_logits, bbox_regression, strict=True):
        anchors_per_cell = _anchors_per_cell(deltas)
        logits_levels.append(_in_memory_order(logits, anchors_per_cell))
        deltas_levels.append(_in_memory_order(deltas, anchors_per_cell))
    return logits_levels, deltas_levels


def view_as_map(values: Tensor, like: Tensor) -> Tensor:
    """Values in a level's memory order, such as its gradient, as a view in the shape of the map `like`."""
    if like.dim() == 4 and not _is_planar(like):
        batch, channels, height, width = like.shape
        return values.view(batch, height, width, channels).permute(0, 3, 1, 2)
    return values.view(like.shape)


def count_anchors(level: Tensor) -> int:
    """Anchors per image of a level in memory order."""
    return level.shape[1] if level.dim() == 3 else level.shape[1] * level.shape[3]


def _is_planar(level: Tensor) -> bool:
    return level.is_contiguous() or not level.is_contiguous(memory_format=torch.channels_last)


def _anchors_per_cell(deltas: Tensor) -> int:
    return deltas.shape[1] // 4 if deltas.dim() == 4 else 1


def _in_memory_order(level: Tensor, anchors_per_cell: int) -> Tensor:
    if level.dim() == 3:
        return level
    batch, channels, height, width = level.shape
    values = channels // anchors_per_cell
    if not _is_planar(level):
        return level.permute(0, 2, 3, 1).reshape(batch, height * width * anchors_per_cell, values)
    return level.contiguous().view(batch, anchors_per_cell, values, height * width)
