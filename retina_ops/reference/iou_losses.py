"""The IoU losses of pairs of boxes in plain PyTorch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from retina_ops.reference._box_terms import aspect_angle, widen

__all__ = ["complete_box_iou_loss", "distance_box_iou_loss", "generalized_box_iou_loss"]


def _iou(boxes1: Tensor, boxes2: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """IoU and union area of each pair."""
    overlap = torch.min(boxes1[..., 2:], boxes2[..., 2:]) - torch.max(boxes1[..., :2], boxes2[..., :2])
    # torch.where instead of clamp: boxes that do not overlap get no gradient.
    overlap = torch.where((overlap > 0).all(-1, keepdim=True), overlap, 0.0)
    intersection = overlap[..., 0] * overlap[..., 1]
    size1, size2 = boxes1[..., 2:] - boxes1[..., :2], boxes2[..., 2:] - boxes2[..., :2]
    union = size1[..., 0] * size1[..., 1] + size2[..., 0] * size2[..., 1] - intersection
    return intersection / (union + eps), union


def _enclosing(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Width and height of the smallest box that encloses both."""
    return torch.max(boxes1[..., 2:], boxes2[..., 2:]) - torch.min(boxes1[..., :2], boxes2[..., :2])


def _reduce(loss: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return loss
    return loss.mean() if reduction == "mean" and loss.numel() > 0 else loss.sum()


def generalized_box_iou_loss(boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1e-7) -> Tensor:
    """The definition of :func:`retina_ops.generalized_box_iou_loss`; computes in float32, or in float64 for float64."""
    boxes1, boxes2 = widen(boxes1), widen(boxes2)
    iou, union = _iou(boxes1, boxes2, eps)
    width, height = _enclosing(boxes1, boxes2).unbind(-1)
    area = width * height
    return _reduce(1 - (iou - (area - union) / (area + eps)), reduction)


def _distance_loss_and_iou(boxes1: Tensor, boxes2: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """1 - distance IoU of each pair, and IoU."""
    iou, _ = _iou(boxes1, boxes2, eps)
    diagonal = _enclosing(boxes1, boxes2).square().sum(-1) + eps
    centres = ((boxes1[..., :2] + boxes1[..., 2:]) / 2 - (boxes2[..., :2] + boxes2[..., 2:]) / 2).square().sum(-1)
    return 1 - iou + centres / diagonal, iou


def distance_box_iou_loss(boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1e-7) -> Tensor:
    """The definition of :func:`retina_ops.distance_box_iou_loss`; computes in float32, or in float64 for float64."""
    return _reduce(_distance_loss_and_iou(widen(boxes1), widen(boxes2), eps)[0], reduction)


def complete_box_iou_loss(boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1e-7) -> Tensor:
    """The definition of :func:`retina_ops.complete_box_iou_loss`; computes in float32, or in float64 for float64."""
    boxes1, boxes2 = widen(boxes1), widen(boxes2)
    loss, iou = _distance_loss_and_iou(boxes1, boxes2, 1e-7)  # as in torchvision, whatever eps is
    v = 4 / math.pi**2 * (aspect_angle(boxes2) - aspect_angle(boxes1)) ** 2
    with torch.no_grad():
        alpha = v / (1 - iou + v + eps)
    return _reduce(loss + alpha * v, reduction)
