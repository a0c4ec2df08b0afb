"""Pairwise IoU of every kind in plain PyTorch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from retina_ops.reference._box_terms import aspect_angle, widen

__all__ = ["box_iou", "complete_box_iou", "distance_box_iou", "generalized_box_iou"]


def to_xyxy(boxes: Tensor, fmt: str) -> Tensor:
    """Converts boxes ``[..., 4]`` of format xyxy, xywh or cxcywh to (x1, y1, x2, y2)."""
    if fmt == "xyxy":
        return boxes
    first, size = boxes[..., :2], boxes[..., 2:]
    if fmt == "cxcywh":
        first = first - 0.5 * size
    return torch.cat([first, first + size], dim=-1)


def _pairs(boxes1: Tensor, boxes2: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes ``[..., N, 1, 4]`` and ``[..., 1, M, 4]`` in float32, or float64 if either is."""
    wide = torch.float64 if torch.float64 in (boxes1.dtype, boxes2.dtype) else torch.float32
    return boxes1.to(wide)[..., :, None, :], boxes2.to(wide)[..., None, :, :]


def _iou_and_union(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and union area of boxes that broadcast."""
    area1, area2 = ((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]) for boxes in (a, b))
    width, height = (torch.min(a[..., 2:], b[..., 2:]) - torch.max(a[..., :2], b[..., :2])).relu().unbind(-1)
    intersection = width * height
    union = area1 + area2 - intersection
    return intersection / union, union


def _enclosing(a: Tensor, b: Tensor) -> Tensor:
    """Width and height of the smallest box that encloses both."""
    return (torch.max(a[..., 2:], b[..., 2:]) - torch.min(a[..., :2], b[..., :2])).relu()


def box_iou(boxes1: Tensor, boxes2: Tensor, fmt: str = "xyxy") -> Tensor:
    """The definition of :func:`retina_ops.box_iou`; computes in float32, or in float64 for float64 boxes."""
    boxes1, boxes2 = (to_xyxy(widen(boxes), fmt) for boxes in (boxes1, boxes2))
    return _iou_and_union(*_pairs(boxes1, boxes2))[0]


def generalized_box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """The definition of :func:`retina_ops.generalized_box_iou`."""
    a, b = _pairs(boxes1, boxes2)
    iou, union = _iou_and_union(a, b)
    width, height = _enclosing(a, b).unbind(-1)
    area = width * height
    return iou - (area - union) / area


def _distance_and_iou(a: Tensor, b: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Distance IoU, and IoU."""
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
