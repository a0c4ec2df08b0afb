"""The IoU losses: the public functions, shapes and derivatives. The formulas are in ``csrc/common/iou_terms.h``."""

from __future__ import annotations

import torch
from torch import Tensor

from retina_ops.ops._autograd import no_forward_mode, wanted_in_forward
from retina_ops.ops._checks import accumulate_dtype, broadcast_shape, check_boxes, check_reduction, expect
from retina_ops.ops._registration import register_differentiable
from retina_ops.ops._torchscript import no_torchscript
from retina_ops.reference import iou_losses as reference

_iou_loss = torch.ops.retina_ops.iou_loss.default
_iou_loss_reduced = torch.ops.retina_ops.iou_loss_reduced.default
_GENERALIZED, _DISTANCE, _COMPLETE = range(3)  # the operators' `kind`


@no_torchscript
def generalized_box_iou_loss(boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1e-7) -> Tensor:
    """1 - generalized IoU of each pair of boxes. It has a gradient for boxes that do not overlap, too.

    Rezatofighi et al. 2019, "Generalized Intersection over Union", algorithm 1. The signature is
    torchvision's. Sum and mean are computed in one pass with the gradient.

    Args:
        boxes1: ``[..., 4]`` (x1, y1, x2, y2), float16, bfloat16, float32, float64 or integer.
        boxes2: the other box of each pair; leading dimensions broadcast. The dtypes may differ.
        reduction: ``"none"``, ``"mean"`` (0 for no boxes) or ``"sum"``.
        eps: added to both denominators, which are areas in square pixels.

    Returns:
        ``[...]`` or a scalar, in [0, 2] for boxes with x1 <= x2 and y1 <= y2; float64 for float64 boxes and float32 for
        all others. Twice differentiable; gradients have the dtypes of the boxes.

    Raises:
        ValueError: unknown ``reduction``.
        RuntimeError: shapes, dtypes or devices that do not fit.

    Example:
        >>> import torch
        >>> generalized_box_iou_loss(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[1.0, 0, 2, 1]]))
        tensor([1.])
    """
    return _loss("generalized_box_iou_loss", boxes1, boxes2, reduction, _GENERALIZED, eps)


@no_torchscript
def distance_box_iou_loss(boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1e-7) -> Tensor:
    """1 - distance IoU of each pair of boxes.

    The distance IoU is the IoU minus the squared distance of the centres over the squared diagonal of the smallest
    enclosing box.

    Zheng et al. 2020, "Distance-IoU Loss", equation 7. The signature is torchvision's. Sum and mean are computed in
    one pass with the gradient.

    Args:
        boxes1: ``[..., 4]`` (x1, y1, x2, y2), float16, bfloat16, float32, float64 or integer.
        boxes2: the other box of each pair; leading dimensions broadcast. The dtypes may differ.
        reduction: ``"none"``, ``"mean"`` (0 for no boxes) or ``"sum"``.
        eps: added to both denominators, in square pixels.

    Returns:
        ``[...]`` or a scalar, in [0, 2] for boxes with x1 <= x2 and y1 <= y2; float64 for float64 boxes and float32 for
        all others. Twice differentiable; gradients have the dtypes of the boxes.

    Raises:
        ValueError: unknown ``reduction``.
        RuntimeError: shapes, dtypes or devices that do not fit.

    Example:
        >>> import torch
        >>> distance_box_iou_loss(torch.tensor([[0.0, 0, 4, 3]]), torch.tensor([[4.0, 3, 8, 6]]), reduction="sum")
        tensor(1.2500)
    """
    return _loss("distance_box_iou_loss", boxes1, boxes2, reduction, _DISTANCE, eps)


@no_torchscript
def complete_box_iou_loss(boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1e-7) -> Tensor:
    """1 - complete IoU of each pair of boxes: the distance IoU minus a penalty for different aspect ratios.

    Zheng et al. 2020, "Distance-IoU Loss", equations 8 to 11. The signature is torchvision's. The penalty's weight
    alpha is a constant in the gradient. Sum and mean are computed in one pass with the gradient.

    Args:
        boxes1: ``[..., 4]`` (x1, y1, x2, y2), float16, bfloat16, float32, float64 or integer.
        boxes2: the other box of each pair; leading dimensions broadcast. The dtypes may differ.
        reduction: ``"none"``, ``"mean"`` (0 for no boxes) or ``"sum"``.
        eps: added to the denominator of alpha. The other denominators always have 1e-7, as in torchvision.

    Returns:
        ``[...]`` or a scalar; float64 for float64 boxes and float32 for all others; NaN if a box is a point.
        Twice differentiable; gradients have the dtypes of the boxes and are finite for a box without height.

    Raises:
        ValueError: unknown ``reduction``.
        RuntimeError: shapes, dtypes or devices that do not fit.

    Example:
        >>> import torch
        >>> complete_box_iou_loss(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[0.0, 0, 2, 2]]))
        tensor([0.])
    """
    return _loss("complete_box_iou_loss", boxes1, boxes2, reduction, _COMPLETE, eps)


def _loss(op: str, boxes1: Tensor, boxes2: Tensor, reduction: str, kind: int, eps: float) -> Tensor:
    check_reduction(reduction)
    check_boxes(op, 1, boxes1=boxes1, boxes2=boxes2)
    no_forward_mode(op, boxes1, boxes2)
    boxes1, boxes2 = (boxes if boxes.is_floating_point() else boxes.float() for boxes in (boxes1, boxes2))
    if torch.float64 in (boxes1.dtype, boxes2.dtype):
        boxes1, boxes2 = boxes1.double(), boxes2.double()
    if boxes1.shape != boxes2.shape:
        shape = broadcast_shape(op, "boxes1 and boxes2", boxes1, boxes2)
        boxes1, boxes2 = boxes1.expand(shape), boxes2.expand(shape)
    if reduction == "none":
        loss: Tensor = _iou_loss(boxes1, boxes2, kind, float(eps))
    else:
        wanted = wanted_in_forward(boxes1, boxes2)
        loss = _iou_loss_reduced(boxes1, boxes2, kind, float(eps), reduction == "mean", *wanted)[0]
    return loss


def _fake_loss(boxes1: Tensor, boxes2: Tensor, kind: int, eps: float) -> Tensor:
    dtypes, both = (boxes1.dtype, boxes2.dtype), "boxes1 and boxes2 must be"
    expect(boxes1.is_floating_point() and boxes2.is_floating_point(), f"iou_loss: {both} floating", *dtypes)
    is_one_precision = accumulate_dtype(boxes1) == accumulate_dtype(boxes2)
    expect(is_one_precision, "iou_loss: both or none of boxes1 and boxes2 must be float64", *dtypes)
    fits = boxes1.dim() >= 1 and boxes1.shape[-1] == 4 and boxes1.shape == boxes2.shape
    expect(fits, f"iou_loss: {both} [..., 4] and of one shape", boxes1.shape, boxes2.shape)
    return boxes1.new_empty(boxes1.shape[:-1], dtype=accumulate_dtype(boxes1))


_REFERENCES = (  # by kind
    reference.generalized_box_iou_loss,
    reference.distance_box_iou_loss,
    reference.complete_box_iou_loss,
)


def _reference(boxes1: Tensor, boxes2: Tensor, kind: int, eps: float) -> Tensor:
    return _REFERENCES[kind](boxes1, boxes2, eps=eps)


def _count_of_mean(boxes1: Tensor, *others: object) -> int:
    return max(1, boxes1.numel() // 4)  # the mean of no losses is 0


register_differentiable(
    "retina_ops::iou_loss", _fake_loss, differentiable=2, reference=_reference, mean_over=_count_of_mean
)
