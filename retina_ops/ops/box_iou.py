"""Pairwise IoU: the public function, fake and autograd. The formula: ``csrc/common/box.h``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from retina_ops.ops._torchscript import no_torchscript

_OP = "box_iou"
_FORMATS = ("xyxy", "xywh", "cxcywh")


@no_torchscript
def box_iou(boxes1: Tensor, boxes2: Tensor, fmt: str = "xyxy") -> Tensor:
    """Intersection over union of every box of one set with every box of another. torchvision's signature.

    Args:
        boxes1: ``[..., N, 4]``, float16, bfloat16, float32, float64 or integer.
        boxes2: ``[..., M, 4]``; leading dimensions broadcast.
        fmt: ``"xyxy"`` (x1, y1, x2, y2), ``"xywh"`` (x1, y1, width, height) or ``"cxcywh"`` (centre, width, height).

    Returns:
        ``[..., N, M]``, float64 for float64 boxes and float32 for all others. 0 / 0, of boxes without area, is NaN.
        Differentiable, twice too.

    Raises:
        ValueError: unknown ``fmt``.
        RuntimeError: shapes, dtypes or devices that do not fit.

    Example:
        >>> import torch
        >>> box_iou(torch.tensor([[0, 0, 2, 2]]), torch.tensor([[1, 0, 3, 2], [0, 0, 2, 2]]))
        tensor([[0.3333, 1.0000]])
    """
    if fmt not in _FORMATS:
        raise ValueError(f"Unsupported format '{fmt}'. Supported axis-aligned formats: {_FORMATS}.")
    integers = not boxes1.is_floating_point() and not boxes2.is_floating_point()
    if integers:
        boxes1, boxes2 = boxes1.double(), boxes2.double()  # exact areas, one rounding of the quotient
    elif boxes1.dtype != boxes2.dtype:
        dtype = torch.promote_types(boxes1.dtype, boxes2.dtype)
        boxes1, boxes2 = boxes1.to(dtype), boxes2.to(dtype)
    if fmt != "xyxy":
        boxes1, boxes2 = _to_xyxy(boxes1, fmt), _to_xyxy(boxes2, fmt)
    if boxes1.shape[:-2] != boxes2.shape[:-2] and boxes1.dim() >= 2 and boxes2.dim() >= 2:
        leading = torch.broadcast_shapes(boxes1.shape[:-2], boxes2.shape[:-2])
        boxes1, boxes2 = boxes1.expand(*leading, -1, -1), boxes2.expand(*leading, -1, -1)
    iou: Tensor = torch.ops.retina_ops.box_iou(boxes1, boxes2)
    return iou.float() if integers else iou


def _to_xyxy(boxes: Tensor, fmt: str) -> Tensor:
    if boxes.dtype in (torch.float16, torch.bfloat16):
        boxes = boxes.float()
    first, size = boxes[..., :2], boxes[..., 2:]
    if fmt == "cxcywh":
        first = first - 0.5 * size
    return torch.cat([first, first + size], dim=-1)


@torch.library.register_fake("retina_ops::box_iou")
def _(boxes1, boxes2):  # type: ignore[no-untyped-def]
    torch._check(boxes1.is_floating_point(), lambda: f"{_OP}: boxes1 must be floating, got {boxes1.dtype}")
    torch._check(
        boxes1.dtype == boxes2.dtype,
        lambda: f"{_OP}: boxes1 and boxes2 must have one dtype, got {boxes1.dtype} and {boxes2.dtype}",
    )
    torch._check(
        boxes1.dim() >= 2
        and boxes1.dim() == boxes2.dim()
        and boxes1.shape[-1] == boxes2.shape[-1] == 4
        and boxes1.shape[:-2] == boxes2.shape[:-2],
        lambda: (
            f"{_OP}: boxes1 must be [..., N, 4] and boxes2 [..., M, 4], got {list(boxes1.shape)} and "
            f"{list(boxes2.shape)}"
        ),
    )
    dtype = torch.float64 if boxes1.dtype == torch.float64 else torch.float32
    return boxes1.new_empty((*boxes1.shape[:-1], boxes2.shape[-2]), dtype=dtype)


def _setup(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
    """In plain PyTorch, which makes it differentiable again: a pairwise IoU is rarely trained through."""
    boxes1, boxes2 = ctx.saved_tensors
    a, b = (boxes.to(grad.dtype) for boxes in (boxes1, boxes2))
    a, b = a[..., :, None, :], b[..., None, :, :]
    size_a, size_b = a[..., 2:] - a[..., :2], b[..., 2:] - b[..., :2]
    overlap = torch.min(a[..., 2:], b[..., 2:]) - torch.max(a[..., :2], b[..., :2])
    inside = (overlap > 0).to(grad.dtype)
    side = overlap * inside
    intersection = side[..., 0] * side[..., 1]
    union = size_a[..., 0] * size_a[..., 1] + size_b[..., 0] * size_b[..., 1] - intersection
    by_intersection = grad * (union + intersection) / (union * union)
    by_area = -grad * intersection / (union * union)
    by_side = by_intersection[..., None] * side.flip(-1) * inside
    grads = []
    for mine, other, size, summed in ((a, b, size_a, -2), (b, a, size_b, -3)):
        # torch.max and torch.min share the gradient between equal values.
        low = (mine[..., :2] > other[..., :2]).to(grad.dtype) + 0.5 * (mine[..., :2] == other[..., :2])
        high = (mine[..., 2:] < other[..., 2:]).to(grad.dtype) + 0.5 * (mine[..., 2:] == other[..., 2:])
        by_size = by_area[..., None] * size.flip(-1)
        corners = torch.cat([-by_side * low - by_size, by_side * high + by_size], dim=-1)
        grads.append(corners.sum(summed))
    return grads[0].to(boxes1.dtype), grads[1].to(boxes2.dtype)


torch.library.register_autograd("retina_ops::box_iou", _backward, setup_context=_setup)
