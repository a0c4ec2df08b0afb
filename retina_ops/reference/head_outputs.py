"""The outputs of a detection head, one row an anchor."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def by_anchor(cls_logits: Sequence[Tensor], bbox_regression: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Levels ``[B, A * K, H, W]`` and ``[B, A * 4, H, W]`` as ``[B, H * W * A, K]`` and ``[B, H * W * A, 4]``.

    Anchors go by row, column and place in the cell, as torchvision's generator numbers them. Levels that have this
    shape already stay.
    """
    rows = []
    for cls, box in zip(cls_logits, bbox_regression, strict=True):
        per_cell = box.shape[1] // 4 if box.dim() == 4 else 1
        rows.append((_rows(cls, per_cell), _rows(box, per_cell)))
    return [cls for cls, _ in rows], [box for _, box in rows]


def _rows(level: Tensor, per_cell: int) -> Tensor:
    if level.dim() == 3:
        return level
    batch, channels, height, width = level.shape
    values = channels // per_cell
    maps = level.view(batch, per_cell, values, height, width)
    return maps.permute(0, 3, 4, 1, 2).reshape(batch, height * width * per_cell, values)
