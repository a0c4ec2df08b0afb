"""The outputs of a detection head, one row per anchor."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def by_anchor(
    cls_logits: Sequence[Tensor] | Tensor, bbox_regression: Sequence[Tensor] | Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """Reshapes levels ``[B, A * K, H, W]`` and ``[B, A * 4, H, W]`` to ``[B, H * W * A, K]`` and ``[B, H * W * A, 4]``.

    Anchors are ordered by row, column and index within the cell, as by torchvision's anchor generator. Levels that
    have this shape already are returned as they are. One tensor is one level.
    """
    if isinstance(cls_logits, Tensor) or isinstance(bbox_regression, Tensor):
        cls_logits, bbox_regression = [cls_logits], [bbox_regression]  # type: ignore[list-item]
    rows = []
    for logits, deltas in zip(cls_logits, bbox_regression, strict=True):
        anchors_per_cell = deltas.shape[1] // 4 if deltas.dim() == 4 else 1
        rows.append((_rows(logits, anchors_per_cell), _rows(deltas, anchors_per_cell)))
    return [logits for logits, _ in rows], [deltas for _, deltas in rows]


def _rows(level: Tensor, anchors_per_cell: int) -> Tensor:
    if level.dim() == 3:
        return level
    batch, channels, height, width = level.shape
    values = channels // anchors_per_cell
    maps = level.view(batch, anchors_per_cell, values, height, width)
    return maps.permute(0, 3, 4, 1, 2).reshape(batch, height * width * anchors_per_cell, values)
