"""Overlap and coding of boxes in plain PyTorch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from retina_ops.reference.iou_losses import aspect_angle

__all__ = ["box_iou", "complete_box_iou", "decode_boxes", "distance_box_iou", "encode_boxes", "generalized_box_iou"]

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


def _pairs(boxes1: Tensor, boxes2: Tensor) -> tuple[Tensor, Tensor]:
    """Every box of one set beside every box of the other, in float32, float64 for float64."""
    wide = torch.float64 if torch.float64 in (boxes1.dtype, boxes2.dtype) else torch.float32
    return boxes1.to(wide)[..., :, None, :], boxes2.to(wide)[..., None, :, :]


def _iou_and_union(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    area1, area2 = ((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]) for boxes in (a, b))
    width, height = (torch.min(a[..., 2:], b[..., 2:]) - torch.max(a[..., :2], b[..., :2])).relu().unbind(-1)
    intersection = width * height
    union = area1 + area2 - intersection
    return intersection / union, union


def _enclosing(a: Tensor, b: Tensor) -> Tensor:
    """Width and height of the smallest box around both."""
    return (torch.max(a[..., 2:], b[..., 2:]) - torch.min(a[..., :2], b[..., :2])).relu()


def box_iou(boxes1: Tensor, boxes2: Tensor, fmt: str = "xyxy") -> Tensor:
    """The definition of :func:`retina_ops.box_iou`; arithmetic in float32, float64 for float64."""
    boxes1, boxes2 = (to_xyxy(b if b.dtype == torch.float64 else b.float(), fmt) for b in (boxes1, boxes2))
    return _iou_and_union(*_pairs(boxes1, boxes2))[0]


def generalized_box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """The definition of :func:`retina_ops.generalized_box_iou`."""
    a, b = _pairs(boxes1, boxes2)
    iou, union = _iou_and_union(a, b)
    width, height = _enclosing(a, b).unbind(-1)
    area = width * height
    return iou - (area - union) / area


def _distance_and_iou(a: Tensor, b: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    iou, _ = _iou_and_union(a, b)
    diagonal = _enclosing(a, b).square().sum(-1) + eps
    centres = ((a[..., :2] + a[..., 2:]) / 2 - (b[..., :2] + b[..., 2:]) / 2).square().sum(-1)
    return iou - centres / diagonal, iou


def distance_box_iou(boxes1: Tensor, boxes2: Tensor, eps: float = 1e-7) -> Tensor:
    """The definition of :func:`retina_ops.distance_box_iou`."""
    return _distance_and_iou(*_pairs(boxes1, boxes2), eps)[0]


def complete_box_iou(boxes1: Tensor, boxes2: Tensor, eps: float = 1e-7) -> Tensor:
    """The definition of :func:`retina_ops.complete_box_iou`."""
    a, b = _pairs(boxes1, boxes2)
    distance, iou = _distance_and_iou(a, b, eps)
    v = 4 / math.pi**2 * (aspect_angle(a) - aspect_angle(b)) ** 2
    with torch.no_grad():
        alpha = v / (1 - iou + v + eps)
    return distance - alpha * v


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
