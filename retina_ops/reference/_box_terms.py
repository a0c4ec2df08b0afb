"""What the references of several box operators share."""

from __future__ import annotations

import torch
from torch import Tensor


def widen(boxes: Tensor) -> Tensor:
    """Boxes in the dtype of the arithmetic: float64 stays, all others become float32."""
    return boxes if boxes.dtype == torch.float64 else boxes.float()


def aspect_angle(boxes: Tensor) -> Tensor:
    """atan(width / height) of boxes ``[..., 4]``; NaN for a point. Its gradient is finite where the height is 0."""
    width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    upright = torch.where(height < 0, -1.0, 1.0).to(boxes.dtype)
    angle = torch.atan2(width * upright, height * upright)
    return torch.where((width == 0) & (height == 0), torch.nan, angle)
