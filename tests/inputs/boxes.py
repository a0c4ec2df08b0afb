"""Boxes for tests: random ones, and those that break implementations."""

from __future__ import annotations

import torch
from torch import Tensor


def random_boxes(
    count: int, device: str = "cpu", *, low: float = 4, high: float = 104, width: float = 1000, height: float = 1000
) -> Tensor:
    """Boxes [count, 4] inside an image, sides uniform between low and high pixels."""
    size = torch.rand(count, 2, device=device) * (high - low) + low
    corner = torch.rand(count, 2, device=device) * (torch.tensor([width, height], device=device) - size)
    return torch.cat([corner, corner + size], dim=1)


def odd_boxes(device: str = "cpu") -> Tensor:
    """Without area, reversed, huge, tiny, negative, infinite and NaN boxes, beside ordinary ones."""
    inf, nan = float("inf"), float("nan")
    rows = [
        [0, 0, 10, 10], [0, 0, 10, 10], [1, 1, 9, 9], [5, 5, 5, 5], [5, 5, 5, 9], [5, 5, 5, 5], [8, 8, 2, 2],
        [9, 1, 2, 8], [-10, -10, -2, -3], [-10, -10, 4, 4], [0, 0, 1e-22, 1e-22], [0, 0, 1e-22, 1e-22],
        [0, 0, 2e-22, 1e-22], [1e18, 1e18, 2e18, 2e18], [1e18, 1e18, 2e18, 2.1e18], [-3e19, -3e19, 3e19, 3e19],
        [-3e38, -3e38, 3e38, 3e38], [0, 0, inf, 4], [0, 0, inf, 4], [-inf, -inf, inf, inf], [nan, 0, 4, 4],
        [0, 0, nan, nan], [nan, nan, nan, nan], [1e7, 1e7, 1e7 + 8, 1e7 + 8], [1e7, 1e7, 1e7 + 8, 1e7 + 7],
    ]  # fmt: skip
    return torch.tensor(rows, dtype=torch.float32, device=device)


def boxes_at_iou(count: int, iou: float, device: str = "cpu") -> Tensor:
    """Pairs [2 * count, 4] of unit-height boxes whose IoUs lie within a few ulps of `iou`, on both sides."""
    scale = 2.0 ** torch.randint(-3, 9, (count,), device=device)
    shift = (1 - iou) / (1 + iou) * (1 + (torch.rand(count, device=device) - 0.5) * 1e-6)
    zero = torch.zeros(count, device=device)
    left = torch.stack([zero, zero, scale, scale], dim=1)
    right = torch.stack([shift * scale, zero, shift * scale + scale, scale], dim=1)
    move = torch.randint(0, 64, (count, 1), device=device) * 1000.0 * torch.tensor([1.0, 0, 1, 0], device=device)
    return torch.stack([left + move, right + move], dim=1).reshape(-1, 4)


def grid_pairs(device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Every pair [n, 4] of boxes with corners on a 3 x 3 grid: equal, touching, nested, apart, flat, or points."""
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0, 2.5])] * 4)
    boxes = corners[(corners[:, 0] <= corners[:, 2]) & (corners[:, 1] <= corners[:, 3])].double().to(device)
    count = len(boxes)
    return boxes.repeat_interleave(count, dim=0), boxes.repeat(count, 1)
