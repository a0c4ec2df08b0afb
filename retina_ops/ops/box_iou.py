"""Pairwise IoU of every kind: the public functions, shapes and derivatives. Formulas: ``csrc/common/iou_terms.h``."""

from __future__ import annotations

import torch
from torch import Tensor

from retina_ops.ops._autograd import no_forward_mode
from retina_ops.ops._checks import accumulate_dtype, broadcast_shape, check_boxes, expect, promoted_dtype
from retina_ops.ops._registration import register_differentiable
from retina_ops.ops._torchscript import no_torchscript
from retina_ops.reference.box_iou import box_iou as reference_iou
from retina_ops.reference.box_iou import complete_box_iou as reference_complete_iou
from retina_ops.reference.box_iou import distance_box_iou as reference_distance_iou
from retina_ops.reference.box_iou import generalized_box_iou as reference_generalized_iou

_pairwise_iou = torch.ops.retina_ops.box_iou.default
_GENERALIZED, _DISTANCE, _COMPLETE, _PLAIN = range(4)  # the operator's `kind`
_FORMATS = ("xyxy", "xywh", "cxcywh")


@no_torchscript
def box_iou(boxes1: Tensor, boxes2: Tensor, fmt: str = "xyxy") -> Tensor:
    """Intersection over union of every box of one set with every box of another. The signature is torchvision's.

    Args:
        boxes1: ``[..., N, 4]``, float16, bfloat16, float32, float64 or integer.
        boxes2: ``[..., M, 4]``; leading dimensions broadcast.
        fmt: ``"xyxy"`` (x1, y1, x2, y2), ``"xywh"`` (x1, y1, width, height) or ``"cxcywh"`` (centre, width, height).

    Returns:
        ``[..., N, M]``, float64 for float64 boxes and float32 for all others. NaN for two boxes without area.
        Twice differentiable.

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
    """Generalized IoU of every box of one set with every box of another.

    It is the IoU minus the share of the smallest enclosing box that neither box covers.

    Rezatofighi et al. 2019, "Generalized Intersection over Union", algorithm 1. The signature is
    torchvision's.

    Args:
        boxes1: ``[..., N, 4]`` (x1, y1, x2, y2), float16, bfloat16, float32, float64 or integer.
        boxes2: ``[..., M, 4]``; leading dimensions broadcast.

    Returns:
        ``[..., N, M]``, in [-1, 1]; float64 for float64 boxes and float32 for all others. NaN for two boxes without
        area. Twice differentiable.

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
    """Distance IoU of every box of one set with every box of another.

    It is the IoU minus the squared distance of the centres over the squared diagonal of the smallest enclosing box.

    Zheng et al. 2020, "Distance-IoU Loss", equation 6. The signature is torchvision's.

    Args:
        boxes1: ``[..., N, 4]`` (x1, y1, x2, y2), float16, bfloat16, float32, float64 or integer.
        boxes2: ``[..., M, 4]``; leading dimensions broadcast.
        eps: added to the squared diagonal, in square pixels.

    Returns:
        ``[..., N, M]``, in [-1, 1]; float64 for float64 boxes and float32 for all others. NaN for two boxes without
        area. Twice differentiable.

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
    """Complete IoU of every box of one set with every box of another.

    It is the distance IoU minus a penalty for different aspect ratios.

    Zheng et al. 2020, "Distance-IoU Loss", equations 8 to 11. The signature is torchvision's. The penalty's weight
    alpha is a constant in the gradient.

    Args:
        boxes1: ``[..., N, 4]`` (x1, y1, x2, y2), float16, bfloat16, float32, float64 or integer.
        boxes2: ``[..., M, 4]``; leading dimensions broadcast.
        eps: added to the squared diagonal, in square pixels, and to the denominator of alpha.

    Returns:
        ``[..., N, M]``; float64 for float64 boxes and float32 for all others. NaN for two boxes without area, and for
        a point. Twice differentiable; gradients are finite for a box without height.

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
    are_integers = not boxes1.is_floating_point() and not boxes2.is_floating_point()
    if are_integers:
        boxes1, boxes2 = boxes1.double(), boxes2.double()  # areas are exact; the quotient is rounded once
    elif boxes1.dtype != boxes2.dtype:
        dtype = promoted_dtype(boxes1.dtype, boxes2.dtype)
        boxes1, boxes2 = boxes1.to(dtype), boxes2.to(dtype)
    if fmt != "xyxy":
        boxes1, boxes2 = _to_xyxy(boxes1, fmt), _to_xyxy(boxes2, fmt)
    if boxes1.shape[:-2] != boxes2.shape[:-2]:
        leading = broadcast_shape(op, "leading dimensions", boxes1, boxes2, kept=2)
        boxes1, boxes2 = boxes1.expand(*leading, -1, -1), boxes2.expand(*leading, -1, -1)
    iou: Tensor = _pairwise_iou(boxes1, boxes2, kind, eps)
    return iou.float() if are_integers else iou


def _to_xyxy(boxes: Tensor, fmt: str) -> Tensor:
    if boxes.dtype in (torch.float16, torch.bfloat16):
        boxes = boxes.float()
    first, size = boxes[..., :2], boxes[..., 2:]
    if fmt == "cxcywh":
        first = first - 0.5 * size
    return torch.cat([first, first + size], dim=-1)


def _fake_iou(boxes1: Tensor, boxes2: Tensor, kind: int, eps: float) -> Tensor:
    expect(boxes1.is_floating_point(), "box_iou: boxes1 must be floating", boxes1.dtype)
    is_one_dtype = boxes1.dtype == boxes2.dtype
    expect(is_one_dtype, "box_iou: boxes1 and boxes2 must have one dtype", boxes1.dtype, boxes2.dtype)
    fits = (
        boxes1.dim() >= 2
        and boxes1.dim() == boxes2.dim()
        and boxes1.shape[-1] == boxes2.shape[-1] == 4
        and boxes1.shape[:-2] == boxes2.shape[:-2]
    )
    expect(fits, "box_iou: boxes1 must be [..., N, 4] and boxes2 [..., M, 4]", boxes1.shape, boxes2.shape)
    return boxes1.new_empty((*boxes1.shape[:-1], boxes2.shape[-2]), dtype=accumulate_dtype(boxes1))


def _reference(boxes1: Tensor, boxes2: Tensor, kind: int, eps: float) -> Tensor:
    if kind == _PLAIN:
        return reference_iou(boxes1, boxes2)
    if kind == _GENERALIZED:
        return reference_generalized_iou(boxes1, boxes2)
    function = reference_distance_iou if kind == _DISTANCE else reference_complete_iou
    return function(boxes1, boxes2, eps)


register_differentiable("retina_ops::box_iou", _fake_iou, differentiable=2, reference=_reference)
