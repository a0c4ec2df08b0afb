"""The IoU losses of matched boxes in plain PyTorch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["complete_box_iou_loss", "distance_box_iou_loss", "generalized_box_iou_loss"]


def _wide(boxes: Tensor) -> Tensor:
    return boxes if boxes.dtype == torch.float64 else boxes.float()


def aspect_angle(boxes: Tensor) -> Tensor:
    """atan(width / height) of boxes ``[..., 4]``, NaN for a point; its slope is finite where the height is 0."""
    width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    upright = torch.where(height < 0, -1.0, 1.0).to(boxes.dtype)
    angle = torch.atan2(width * upright, height * upright)
    return torch.where((width == 0) & (height == 0), torch.nan, angle)


def _iou(boxes1: Tensor, boxes2: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Intersection over union, and the union."""
    overlap = torch.min(boxes1[..., 2:], boxes2[..., 2:]) - torch.max(boxes1[..., :2], boxes2[..., :2])
    # Selected, not clamped: boxes that do not overlap pass no gradient.
    overlap = torch.where((overlap > 0).all(-1, keepdim=True), overlap, 0.0)
    intersection = overlap[..., 0] * overlap[..., 1]
    size1, size2 = boxes1[..., 2:] - boxes1[..., :2], boxes2[..., 2:] - boxes2[..., :2]
    union = size1[..., 0] * size1[..., 1] + size2[..., 0] * size2[..., 1] - intersection
    return intersection / (union + eps), union


def _enclosing(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Width and height of the smallest box around both."""
    return torch.max(boxes1[..., 2:], boxes2[..., 2:]) - torch.min(boxes1[..., :2], boxes2[..., :2])


def _reduce(loss: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return loss
    return loss.mean() if reduction == "mean" and loss.numel() > 0 else loss.sum()


def generalized_box_iou_loss(boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1e-7) -> Tensor:
    """The definition of :func:`retina_ops.generalized_box_iou_loss`; in float32, float64 for float64."""
    boxes1, boxes2 = _wide(boxes1), _wide(boxes2)
    iou, union = _iou(boxes1, boxes2, eps)
    width, height = _enclosing(boxes1, boxes2).unbind(-1)
    area = width * height
    return _reduce(1 - (iou - (area - union) / (area + eps)), reduction)


def _distance(boxes1: Tensor, boxes2: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    iou, _ = _iou(boxes1, boxes2, eps)
    diagonal = _enclosing(boxes1, boxes2).square().sum(-1) + eps
    centres = ((boxes1[..., :2] + boxes1[..., 2:]) / 2 - (boxes2[..., :2] + boxes2[..., 2:]) / 2).square().sum(-1)
    return 1 - iou + centres / diagonal, iou


def distance_box_iou_loss(boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1e-7) -> Tensor:
    """The definition of :func:`retina_ops.distance_box_iou_loss`; in float32, float64 for float64."""
    return _reduce(_distance(_wide(boxes1), _wide(boxes2), eps)[0], reduction)


def complete_box_iou_loss(boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1e-7) -> Tensor:
    """The definition of :func:`retina_ops.complete_box_iou_loss`; in float32, float64 for float64."""
    boxes1, boxes2 = _wide(boxes1), _wide(boxes2)
    loss, iou = _distance(boxes1, boxes2, 1e-7)
    v = 4 / math.pi**2 * (aspect_angle(boxes2) - aspect_angle(boxes1)) ** 2
    with torch.no_grad():
        alpha = v / (1 - iou + v + eps)
    return _reduce(loss + alpha * v, reduction)
