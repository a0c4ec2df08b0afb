"""The average-precision loss in plain PyTorch: a loop over positives, as its authors and mmdetection write it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["ap_loss"]


def ap_loss(logits: Tensor, targets: Tensor, *, delta: float = 1.0, ignore_index: int = -1) -> Tensor:
    """The definition of :func:`retina_ops.ap_loss`; computes in the dtype of ``logits``."""
    if targets.is_floating_point():
        positive, counted = targets > 0, ~(targets < 0)
    else:
        columns = torch.arange(logits.shape[-1], device=logits.device)
        counted = (targets != ignore_index)[..., None].expand_as(logits)
        positive = (targets[..., None] == columns) & counted
    loss: Tensor = _ErrorDrivenUpdate.apply(logits, positive, counted, delta)  # type: ignore[no-untyped-call]
    return loss


class _ErrorDrivenUpdate(torch.autograd.Function):
    """The loss, whose backward is the update of Chen et al. 2019, algorithm 1."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, positive: Tensor, counted: Tensor, delta: float) -> Tensor:  # type: ignore[override]
        update = torch.zeros_like(logits)
        loss = logits.new_zeros(())
        if logits[counted].isnan().any():
            update[counted] = torch.nan
            loss = loss * torch.nan
        elif positive.any():
            loss = _rank_positives(logits, positive, counted, delta, update)
        ctx.save_for_backward(update)
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        (update,) = ctx.saved_tensors
        return grad * update, None, None, None


def _rank_positives(logits: Tensor, positive: Tensor, counted: Tensor, delta: float, update: Tensor) -> Tensor:
    most = torch.finfo(logits.dtype).max
    logits = logits.clamp(-most, most)
    positives, negatives = logits[positive], logits[counted & ~positive]
    relevant = negatives >= positives.min() - delta  # others are below every positive
    negatives = negatives[relevant]
    negative_update, errors = torch.zeros_like(negatives), torch.zeros_like(positives)
    least = torch.ones_like(positives[0])
    for i in positives.argsort():
        of_positives = ((positives - positives[i]) / (2 * delta) + 0.5).clamp(0, 1)
        of_negatives = ((negatives - positives[i]) / (2 * delta) + 0.5).clamp(0, 1)
        a, b = of_positives.sum() + 0.5, of_negatives.sum()  # the positive itself counts 1
        error = b / (a + b)  # 1 - precision
        interpolated = torch.minimum(error, least)
        scale = torch.where(error > 0, interpolated / error, 0)
        negative_update += of_negatives * (scale / (a + b))
        errors[i] = least = interpolated
    all_negatives = torch.zeros_like(relevant, dtype=logits.dtype)
    all_negatives[relevant] = negative_update / len(positives)
    update[counted & ~positive] = all_negatives
    update[positive] = -errors / len(positives)
    return errors.mean()
