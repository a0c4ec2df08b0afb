"""Sigmoid focal loss in plain PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["sigmoid_focal_loss"]


def sigmoid_focal_loss(
    inputs: Tensor,
    targets: Tensor,
    alpha: float | Tensor = 0.25,
    gamma: float = 2.0,
    reduction: str = "none",
    *,
    ignore_index: int = -1,
) -> Tensor:
    """The definition of :func:`retina_ops.sigmoid_focal_loss`; computes in the dtype of ``inputs``."""
    if targets.is_floating_point():
        counted = torch.ones_like(inputs, dtype=torch.bool)
        dense = targets.to(inputs.dtype)
    else:
        classes = inputs.shape[-1]
        counted = (targets != ignore_index)[..., None].expand_as(inputs)
        labels = torch.where(targets == ignore_index, classes, targets)
        dense = F.one_hot(labels, classes + 1)[..., :classes].to(inputs.dtype)
        inputs = torch.where(counted, inputs, 0.0)  # NaN in an ignored row must not reach the loss
    # logsigmoid computes log p_t without cancellation. Soft targets weight both classes' terms.
    cross_entropy = -(dense * F.logsigmoid(inputs) + (1 - dense) * F.logsigmoid(-inputs))
    one_minus_p_t = torch.sigmoid(inputs) * (1 - dense) + torch.sigmoid(-inputs) * dense
    loss = cross_entropy if gamma == 0 else cross_entropy * one_minus_p_t**gamma
    if isinstance(alpha, Tensor) or alpha >= 0:
        loss = loss * (alpha * dense + (1 - alpha) * (1 - dense))
    loss = torch.where(counted, loss, 0.0)
    if reduction == "none":
        return loss
    total = loss.sum()
    return total if reduction == "sum" else total / counted.sum()
