"""Box coding in plain PyTorch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["decode_boxes", "encode_boxes"]

LOG_LIMIT = math.log(1000.0 / 16)  # torchvision's limit of log(decoded size / proposal's size)
Weights = tuple[float, float, float, float]


def _centre_and_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """(x, y) of the centre, and (width, height)."""
    size = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + 0.5 * size, size


def encode_boxes(reference_boxes: Tensor, proposals: Tensor, weights: Weights = (1, 1, 1, 1)) -> Tensor:
    """The definition of :func:`retina_ops.encode_boxes`, in the dtype of the boxes."""
    scale = reference_boxes.new_tensor(weights)
    centre, size = _centre_and_size(reference_boxes)
    proposal_centre, proposal_size = _centre_and_size(proposals)
    offset = scale[:2] * (centre - proposal_centre) / proposal_size
    return torch.cat([offset, scale[2:] * torch.log(size / proposal_size)], dim=-1)


def decode_boxes(
    rel_codes: Tensor,
    boxes: Tensor,
    weights: Weights = (1, 1, 1, 1),
    *,
    image_size: tuple[float, float] | None = None,
) -> Tensor:
    """The definition of :func:`retina_ops.decode_boxes`, in the dtype of the boxes."""
    deltas = rel_codes.to(boxes.dtype) / boxes.new_tensor(weights)
    proposal_centre, proposal_size = _centre_and_size(boxes)
    centre = deltas[..., :2] * proposal_size + proposal_centre
    half = 0.5 * (deltas[..., 2:].clamp(max=LOG_LIMIT).exp() * proposal_size)
    corners = torch.cat([centre - half, centre + half], dim=-1)
    if image_size is None:
        return corners
    height, width = image_size
    return torch.stack([corners[..., i].clamp(0, (width, height)[i % 2]) for i in range(4)], dim=-1)
