"""Overlap and coding of boxes in plain PyTorch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LOG_LIMIT = math.log(1000.0 / 16)  # torchvision's limit of a decoded size over its proposal's
Weights = tuple[float, float, float, float]


def to_xyxy(boxes: Tensor, fmt: str) -> Tensor:
    """Boxes ``[..., 4]`` of format xyxy, xywh or cxcywh as (x1, y1, x2, y2)."""
    if fmt == "xyxy":
        return boxes
    first, size = boxes[..., :2], boxes[..., 2:]
    if fmt == "cxcywh":
        first = first - 0.5 * size
    return torch.cat([first, first + size], dim=-1)


def box_iou(boxes1: Tensor, boxes2: Tensor, fmt: str = "xyxy") -> Tensor:
    """The definition of :func:`retina_ops.box_iou`; arithmetic in float32, float64 for float64."""
    boxes1, boxes2 = (to_xyxy(b if b.dtype == torch.float64 else b.float(), fmt) for b in (boxes1, boxes2))
    area1, area2 = ((b[..., 2] - b[..., 0]) * (b[..., 3] - b[..., 1]) for b in (boxes1, boxes2))
    low = torch.max(boxes1[..., :, None, :2], boxes2[..., None, :, :2])
    high = torch.min(boxes1[..., :, None, 2:], boxes2[..., None, :, 2:])
    width, height = (high - low).clamp(min=0).unbind(-1)
    intersection = width * height
    return intersection / (area1[..., :, None] + area2[..., None, :] - intersection)


def _centre_and_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
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
    image_size: tuple[int, int] | None = None,
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
