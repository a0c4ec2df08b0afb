"""Inputs that several benchmarks share."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from retina_ops.models.anchors import default_anchor_generator


def random_boxes(count: int, device: str, field: tuple[int, int] = (1000, 1000)) -> Tensor:
    """Boxes of 4 to 104 pixels at random places of a field (width, height)."""
    size = torch.rand(count, 2, device=device) * 100 + 4
    corner = torch.rand(count, 2, device=device) * (torch.tensor(field, device=device) - size)
    return torch.cat([corner, corner + size], dim=1)


def image_anchors(height: int, width: int, device: str) -> Tensor:
    """All anchors of the paper's five levels on an image whose sides are multiples of 32."""
    generator: AnchorGenerator = default_anchor_generator()
    maps = [torch.empty(1, 1, -(-height // s), -(-width // s), device=device) for s in (8, 16, 32, 64, 128)]
    return generator(ImageList(torch.empty(1, 1, height, width, device=device), [(height, width)]), maps)[0]
