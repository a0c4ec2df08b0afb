"""The launches of focal_loss/ on an emulated device, over tensors of the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from ..device import Array, Device
from .common import DTYPES, arithmetic

MOST_BLOCKS = 3  # so few that a thread takes several packs of a few thousand logits


def focal_loss(
    device: Device,
    logits: Tensor,
    targets: Tensor,
    alpha: float | Tensor = 0.25,
    gamma: float = 2.0,
    *,
    order: int = 0,
    upstream: Tensor | float = 1.0,
    ignore_index: int = -1,
    first: int = 0,
    offset: int = 0,
) -> Tensor:
    """The loss of each element (order 0), or its derivative times `upstream`. first: index of the first element."""
    out = torch.empty_like(logits)
    is_labels = not targets.is_floating_point()
    per_element = isinstance(upstream, Tensor)
    device.run(
        "focal_loss",
        _focal_scalars(logits, targets, alpha, gamma, ignore_index) | {"order": order, "first": first, "reduced": 0},
        {
            "logits": Array(logits, offset=offset),
            "labels": targets if is_labels else None,
            "soft_targets": None if is_labels else Array(targets, offset=targets.element_size() if offset else 0),
            "alpha_per_class": alpha.to(arithmetic(logits.dtype)) if isinstance(alpha, Tensor) else None,
            "value": Array(out, False, offset) if order == 0 else None,
            "derivative": Array(out, False, offset) if order else None,
            "upstream": Array(upstream, offset=offset) if isinstance(upstream, Tensor) and order else None,
            "upstream_scalar": torch.tensor(upstream, dtype=torch.float64) if order and not per_element else None,
        },
    )
    return out


def focal_loss_reduced(
    device: Device,
    logits: Tensor,
    targets: Tensor,
    alpha: float | Tensor = 0.25,
    gamma: float = 2.0,
    *,
    mean: bool = False,
    with_grad: bool = True,
    ignore_index: int = -1,
    first: int = 0,
) -> tuple[Tensor, Tensor | None]:
    """The sum or mean, and its gradient."""
    is_labels = not targets.is_floating_point()
    grad = torch.empty_like(logits) if with_grad else None
    result = torch.empty((), dtype=arithmetic(logits.dtype))
    done = torch.zeros(1, dtype=torch.int32)
    counted = None
    if mean:
        counted = count_labels(device, targets, logits.shape[-1], ignore_index)[:1].clone() if is_labels else None
        counted = torch.tensor([logits.numel()]) if counted is None else counted
    device.run(
        "focal_loss",
        _focal_scalars(logits, targets, alpha, gamma, ignore_index) | {"order": 1, "first": first, "reduced": 1},
        {
            "logits": logits,
            "labels": targets if is_labels else None,
            "soft_targets": None if is_labels else targets,
            "alpha_per_class": alpha.to(arithmetic(logits.dtype)) if isinstance(alpha, Tensor) else None,
            "derivative": Array(grad, False) if grad is not None else None,
            "partial": Array(torch.empty(MOST_BLOCKS, dtype=torch.float64), False),
            "done": done,
            "result": Array(result, False),
            "counted": counted,
        },
    )
    assert done.item() == 0
    return result, grad


def _focal_scalars(
    logits: Tensor, targets: Tensor, alpha: float | Tensor, gamma: float, ignore_index: int
) -> dict[str, float]:
    return {
        "dtype": DTYPES[logits.dtype],
        "soft_dtype": DTYPES.get(targets.dtype, 2),
        "classes": max(1, logits.shape[-1]),
        "n": logits.numel(),
        "ignore_index": ignore_index,
        "alpha": -1.0 if isinstance(alpha, Tensor) else alpha,
        "gamma": gamma,
        "most_blocks": MOST_BLOCKS,
    }


def count_labels(device: Device, labels: Tensor, classes: int, ignore_index: int = -1, *, first: int = 0) -> Tensor:
    """[2]: elements of rows that count, and rows with a bad label."""
    counts = torch.zeros(2, dtype=torch.int64)
    scalars = {"rows": len(labels), "classes": classes, "ignore_index": ignore_index, "first": first}
    device.run("focal_loss_count", scalars, {"labels": labels, "counts": counts})
    return counts


def scale_gradient(device: Device, grad: Tensor, scale: float, offset: int = 0, *, first: int = 0) -> Tensor:
    scaled = grad.clone()
    scalars = {"dtype": DTYPES[grad.dtype], "n": grad.numel(), "first": first, "most_blocks": MOST_BLOCKS}
    arrays = {"grad": Array(scaled, offset=offset), "scale": torch.tensor(scale, dtype=torch.float64)}
    device.run("scale_gradient", scalars, arrays)
    return scaled
