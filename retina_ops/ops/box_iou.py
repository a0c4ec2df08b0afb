"""Pairwise IoU of every kind: the public functions, fakes and autograd. The formulas: ``csrc/common/iou_terms.h``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from retina_ops.ops._checks import check_boxes, no_forward_mode, promoted
from retina_ops.ops._torchscript import no_torchscript
from retina_ops.reference import boxes as reference

# The operators' `kind`.
_GENERALIZED, _DISTANCE, _COMPLETE, _PLAIN = range(4)
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
    return _pairwise("box_iou", boxes1, boxes2, _PLAIN, 0.0, fmt)


@no_torchscript
def generalized_box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Generalized IoU of every box of one set with every box of another: IoU less the share of the smallest enclosing
    box that neither covers.

    Rezatofighi et al. 2019, "Generalized Intersection over Union", algorithm 1; torchvision's signature.

    Args:
        boxes1: ``[..., N, 4]`` (x1, y1, x2, y2), float16, bfloat16, float32, float64 or integer.
        boxes2: ``[..., M, 4]``; leading dimensions broadcast.

    Returns:
        ``[..., N, M]``, in [-1, 1]; float64 for float64 boxes and float32 for all others. NaN for two boxes without
        area. Differentiable, twice too.

    Raises:
        RuntimeError: shapes, dtypes or devices that do not fit.

    Example:
        >>> import torch
        >>> generalized_box_iou(torch.tensor([[0, 0, 1, 1]]), torch.tensor([[3, 0, 4, 1], [0, 0, 1, 1]]))
        tensor([[-0.5000,  1.0000]])
    """
    return _pairwise("generalized_box_iou", boxes1, boxes2, _GENERALIZED, 0.0)


@no_torchscript
def distance_box_iou(boxes1: Tensor, boxes2: Tensor, eps: float = 1e-7) -> Tensor:
    """Distance IoU of every box of one set with every box of another: IoU less the squared distance of the centres over
    the squared diagonal of the smallest enclosing box.

    Zheng et al. 2020, "Distance-IoU Loss", equation 6; torchvision's signature.

    Args:
        boxes1: ``[..., N, 4]`` (x1, y1, x2, y2), float16, bfloat16, float32, float64 or integer.
        boxes2: ``[..., M, 4]``; leading dimensions broadcast.
        eps: added to the squared diagonal, square pixels.

    Returns:
        ``[..., N, M]``, in [-1, 1]; float64 for float64 boxes and float32 for all others. NaN for two boxes without
        area. Differentiable, twice too.

    Raises:
        RuntimeError: shapes, dtypes or devices that do not fit.

    Example:
        >>> import torch
        >>> distance_box_iou(torch.tensor([[0, 0, 4, 3]]), torch.tensor([[4, 3, 8, 6], [0, 0, 4, 3]]))
        tensor([[-0.2500,  1.0000]])
    """
    return _pairwise("distance_box_iou", boxes1, boxes2, _DISTANCE, float(eps))


@no_torchscript
def complete_box_iou(boxes1: Tensor, boxes2: Tensor, eps: float = 1e-7) -> Tensor:
    """Complete IoU of every box of one set with every box of another: the distance IoU less a penalty for unlike aspect
    ratios.

    Zheng et al. 2020, "Distance-IoU Loss", equations 8 to 11; torchvision's signature. The penalty's weight alpha is a
    constant in the gradient.

    Args:
        boxes1: ``[..., N, 4]`` (x1, y1, x2, y2), float16, bfloat16, float32, float64 or integer.
        boxes2: ``[..., M, 4]``; leading dimensions broadcast.
        eps: added to the squared diagonal and to alpha's denominator.

    Returns:
        ``[..., N, M]``; float64 for float64 boxes and float32 for all others. NaN for two boxes without area, and for
        a point. Differentiable, twice too; gradients are finite for a box without height.

    Raises:
        RuntimeError: shapes, dtypes or devices that do not fit.

    Example:
        >>> import torch
        >>> complete_box_iou(torch.tensor([[0, 0, 2, 2]]), torch.tensor([[0, 0, 2, 2], [4, 4, 6, 6]]))
        tensor([[ 1.0000, -0.4444]])
    """
    return _pairwise("complete_box_iou", boxes1, boxes2, _COMPLETE, float(eps))


def _pairwise(op: str, boxes1: Tensor, boxes2: Tensor, kind: int, eps: float, fmt: str = "xyxy") -> Tensor:
    check_boxes(op, 2, boxes1=boxes1, boxes2=boxes2)
    no_forward_mode(op, boxes1, boxes2)
    integers = not boxes1.is_floating_point() and not boxes2.is_floating_point()
    if integers:
        boxes1, boxes2 = boxes1.double(), boxes2.double()  # exact areas, one rounding of the quotient
    elif boxes1.dtype != boxes2.dtype:
        dtype = promoted(boxes1.dtype, boxes2.dtype)
        boxes1, boxes2 = boxes1.to(dtype), boxes2.to(dtype)
    if fmt != "xyxy":
        boxes1, boxes2 = _to_xyxy(boxes1, fmt), _to_xyxy(boxes2, fmt)
    if boxes1.shape[:-2] != boxes2.shape[:-2] and boxes1.dim() >= 2 and boxes2.dim() >= 2:
        try:
            leading = torch.broadcast_shapes(boxes1.shape[:-2], boxes2.shape[:-2])
        except RuntimeError:
            raise RuntimeError(
                f"{op}: leading dimensions must broadcast, got {list(boxes1.shape)} and {list(boxes2.shape)}"
            ) from None
        boxes1, boxes2 = boxes1.expand(*leading, -1, -1), boxes2.expand(*leading, -1, -1)
    iou: Tensor = torch.ops.retina_ops.box_iou(boxes1, boxes2, kind, eps)
    return iou.float() if integers else iou


def _to_xyxy(boxes: Tensor, fmt: str) -> Tensor:
    if boxes.dtype in (torch.float16, torch.bfloat16):
        boxes = boxes.float()
    first, size = boxes[..., :2], boxes[..., 2:]
    if fmt == "cxcywh":
        first = first - 0.5 * size
    return torch.cat([first, first + size], dim=-1)


def _check_shapes(op: str, boxes1: Tensor, boxes2: Tensor) -> torch.dtype:
    """The fakes' check; returns the dtype of similarities."""
    torch._check(boxes1.is_floating_point(), lambda: f"{op}: boxes1 must be floating, got {boxes1.dtype}")
    torch._check(
        boxes1.dtype == boxes2.dtype,
        lambda: f"{op}: boxes1 and boxes2 must have one dtype, got {boxes1.dtype} and {boxes2.dtype}",
    )
    torch._check(
        boxes1.dim() >= 2
        and boxes1.dim() == boxes2.dim()
        and boxes1.shape[-1] == boxes2.shape[-1] == 4
        and boxes1.shape[:-2] == boxes2.shape[:-2],
        lambda: (
            f"{op}: boxes1 must be [..., N, 4] and boxes2 [..., M, 4], got {list(boxes1.shape)} and "
            f"{list(boxes2.shape)}"
        ),
    )
    return torch.float64 if boxes1.dtype == torch.float64 else torch.float32


@torch.library.register_fake("retina_ops::box_iou")
def _(boxes1, boxes2, kind, eps):  # type: ignore[no-untyped-def]
    dtype = _check_shapes("box_iou", boxes1, boxes2)
    return boxes1.new_empty((*boxes1.shape[:-1], boxes2.shape[-2]), dtype=dtype)


@torch.library.register_fake("retina_ops::box_iou_backward")
def _(grad, boxes1, boxes2, kind, eps, for_boxes1, for_boxes2):  # type: ignore[no-untyped-def]
    _check_shapes("box_iou_backward", boxes1, boxes2)
    return boxes1.new_empty(boxes1.shape if for_boxes1 else 0), boxes2.new_empty(boxes2.shape if for_boxes2 else 0)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    boxes1, boxes2, ctx.kind, ctx.eps = inputs
    ctx.save_for_backward(boxes1, boxes2)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    boxes1, boxes2 = ctx.saved_tensors
    wanted = ctx.needs_input_grad[:2]
    grads = torch.ops.retina_ops.box_iou_backward(grad, boxes1, boxes2, ctx.kind, ctx.eps, *wanted)
    return *(each if flag else None for each, flag in zip(grads, wanted, strict=True)), None, None


def _setup_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.kind, ctx.eps, *ctx.wanted = inputs[3:]


def _backward_backward(ctx: Any, *grad_grads: Tensor) -> tuple[Tensor | None, ...]:
    """Differentiates the plain PyTorch formula, whose graph autograd keeps for yet higher derivatives."""
    with torch.enable_grad():
        # Views: where grad depends on the boxes, their derivative must not be taken through it too.
        inputs = [t.view_as(t) if t.requires_grad else t.detach().requires_grad_() for t in ctx.saved_tensors]
        grad, *boxes = inputs
        similarity = _formula(ctx.kind, ctx.eps)(*boxes)
        first = torch.autograd.grad(similarity, boxes, grad, create_graph=True)
        product = similarity.new_zeros(())
        for each, upstream, flag in zip(first, grad_grads, ctx.wanted, strict=True):
            product = product + (each * upstream).sum(dtype=grad.dtype) if flag else product
        second = torch.autograd.grad(product, inputs, create_graph=True, allow_unused=True)
    return *second, None, None, None, None


def _formula(kind: int, eps: float) -> Callable[[Tensor, Tensor], Tensor]:
    if kind == _DISTANCE:
        return lambda a, b: reference.distance_box_iou(a, b, eps)
    if kind == _COMPLETE:
        return lambda a, b: reference.complete_box_iou(a, b, eps)
    return reference.generalized_box_iou if kind == _GENERALIZED else reference.box_iou


torch.library.register_autograd("retina_ops::box_iou", _backward, setup_context=_setup)
torch.library.register_autograd("retina_ops::box_iou_backward", _backward_backward, setup_context=_setup_backward)
