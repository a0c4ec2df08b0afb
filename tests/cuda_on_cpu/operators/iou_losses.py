"""The launches of iou_losses/ on an emulated device, over tensors of the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from ..device import Array, Device
from .common import DTYPES, arithmetic

IOU_LOSSES = ("generalized_box_iou_loss", "distance_box_iou_loss", "complete_box_iou_loss")  # by `kind`


def iou_loss(
    device: Device,
    name: str,
    boxes1: Tensor,
    boxes2: Tensor,
    *,
    upstream: Tensor | float | None = None,
    wanted: tuple[bool, bool] = (True, True),
    first: int = 0,
    offset: int = 0,
) -> tuple[Tensor | None, ...]:
    """The loss of each pair; or, with `upstream`, the gradients that are wanted."""
    loss = torch.empty(len(boxes1), dtype=arithmetic(boxes1.dtype)) if upstream is None else None
    grads = _gradients(boxes1, boxes2, (upstream is not None and wanted[0], upstream is not None and wanted[1]))
    scalar = torch.tensor(upstream, dtype=torch.float64) if isinstance(upstream, float) else None
    arrays = _arrays(boxes1, boxes2, grads, offset) | {
        "loss": Array(loss, False) if loss is not None else None,
        "upstream": upstream if isinstance(upstream, Tensor) else None,
        "upstream_scalar": scalar,
    }
    device.run("iou_loss", _scalars(name, boxes1, boxes2, first), arrays)
    return (loss,) if upstream is None else grads


def iou_loss_reduced(
    device: Device,
    name: str,
    boxes1: Tensor,
    boxes2: Tensor,
    *,
    scale: float = 1.0,
    wanted: tuple[bool, bool] = (True, False),
    first: int = 0,
) -> tuple[Tensor | None, ...]:
    """`scale` times the sum of the losses, and the gradients of that."""
    result = torch.empty((), dtype=arithmetic(boxes1.dtype))
    done = torch.zeros(1, dtype=torch.int32)
    grads = _gradients(boxes1, boxes2, wanted)
    arrays = _arrays(boxes1, boxes2, grads, 0) | {
        "partial": Array(torch.empty(1024, dtype=torch.float64), False),
        "done": done,
        "result": Array(result, False),
    }
    device.run("iou_loss", _scalars(name, boxes1, boxes2, first) | {"scale": scale}, arrays)
    assert done.item() == 0
    return result, *grads


def _gradients(boxes1: Tensor, boxes2: Tensor, wanted: tuple[bool, bool]) -> tuple[Tensor | None, ...]:
    return tuple(
        torch.empty_like(boxes) if flag else None for boxes, flag in zip((boxes1, boxes2), wanted, strict=True)
    )


def _arrays(
    boxes1: Tensor, boxes2: Tensor, grads: tuple[Tensor | None, ...], offset: int
) -> dict[str, Array | Tensor | None]:
    return {
        "boxes1": Array(boxes1, offset=offset),
        "boxes2": boxes2,
        **{f"grad{i}": Array(g, False) if g is not None else None for i, g in enumerate(grads, 1)},
    }


def _scalars(name: str, boxes1: Tensor, boxes2: Tensor, first: int) -> dict[str, float]:
    return {
        "kind": IOU_LOSSES.index(name),
        "eps": 1e-7,
        "dtype1": DTYPES[boxes1.dtype],
        "dtype2": DTYPES[boxes2.dtype],
        "n": len(boxes1),
        "first": first,
        "scale": 1.0,
    }
