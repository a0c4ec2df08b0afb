"""The outputs of a detection head as the fused operators take them: ``csrc/common/head_levels.h``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def check_levels(op: str, cls_logits: Sequence[Tensor], bbox_regression: Sequence[Tensor]) -> None:
    """Refuses maps that are not those of a detection head.

    Args:
        op: the operator's name, for errors.
        cls_logits: each level ``[B, A * K, H, W]``, contiguous or channels-last, or ``[B, H * W * A, K]``.
        bbox_regression: each level ``[B, A * 4, H, W]`` or ``[B, H * W * A, 4]``.

    Raises:
        RuntimeError: they are not.
    """
    if isinstance(cls_logits, Tensor) or isinstance(bbox_regression, Tensor):
        raise RuntimeError(f"{op}: cls_logits and bbox_regression must be lists of one tensor a level")
    if len(cls_logits) != len(bbox_regression) or len(cls_logits) == 0:
        raise RuntimeError(
            f"{op}: cls_logits and bbox_regression must have the same levels, at least one, "
            f"got {len(cls_logits)} and {len(bbox_regression)}"
        )
    for level, (cls, box) in enumerate(zip(cls_logits, bbox_regression, strict=True)):
        per_cell = _per_cell(box)
        rest = box.shape[1] % 4 if box.dim() == 4 else 0
        if cls.dim() != box.dim() or cls.dim() not in (3, 4) or rest or per_cell < 1 or cls.shape[1] % per_cell:
            raise RuntimeError(
                f"{op}: level {level} must be cls_logits [B, A * K, H, W] and bbox_regression [B, A * 4, H, W], or "
                f"[B, N, K] and [B, N, 4], got {list(cls.shape)} and {list(box.shape)}"
            )


def as_levels(
    op: str, cls_logits: Sequence[Tensor], bbox_regression: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Views of the levels in the order of their memory; nothing is copied but what is dense in neither format.

    Args:
        op, cls_logits, bbox_regression: as for `check_levels`, which raises where they are not.

    Returns:
        Both as lists of ``[B, anchors, C]`` (by anchor) and ``[B, A, C, H * W]`` (planar).
    """
    check_levels(op, cls_logits, bbox_regression)
    return levels_of(cls_logits, bbox_regression)


def levels_of(cls_logits: Sequence[Tensor], bbox_regression: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """`as_levels` of maps that have been checked."""
    logits, deltas = [], []
    for cls, box in zip(cls_logits, bbox_regression, strict=True):
        per_cell = _per_cell(box)
        logits.append(_in_memory_order(cls, per_cell))
        deltas.append(_in_memory_order(box, per_cell))
    return logits, deltas


def as_map(values: Tensor, like: Tensor) -> Tensor:
    """What belongs to a level of `as_levels`, such as its gradient, in the shape of the map that it came from."""
    if like.dim() == 4 and not _is_planar(like):
        batch, channels, height, width = like.shape
        return values.view(batch, height, width, channels).permute(0, 3, 1, 2)
    return values.view(like.shape)


def _is_planar(level: Tensor) -> bool:
    return level.is_contiguous() or not level.is_contiguous(memory_format=torch.channels_last)


def _per_cell(box: Tensor) -> int:
    return box.shape[1] // 4 if box.dim() == 4 else 1  # not divmod: a tracer's sizes have none


def _in_memory_order(level: Tensor, per_cell: int) -> Tensor:
    if level.dim() == 3:
        return level
    batch, channels, height, width = level.shape
    values = channels // per_cell
    if not _is_planar(level):
        return level.permute(0, 2, 3, 1).reshape(batch, height * width * per_cell, values)
    return level.contiguous().view(batch, per_cell, values, height * width)


def level_anchors(level: Tensor) -> int:
    """Anchors that a level of `as_levels` gives an image."""
    return level.shape[1] if level.dim() == 3 else level.shape[1] * level.shape[3]
