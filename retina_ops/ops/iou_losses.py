"""The IoU losses: the public functions, fakes and autograd. The formulas: ``csrc/common/iou_terms.h``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from retina_ops.ops._checks import check_boxes, is_batched, no_forward_mode
from retina_ops.ops._torchscript import no_torchscript
from retina_ops.reference import iou_losses as reference

_REDUCTIONS = ("none", "mean", "sum")
# The operators' `kind`.
_GENERALIZED, _DISTANCE, _COMPLETE = range(3)
_FORMULAS = (
    reference.generalized_box_iou_loss,
    reference.distance_box_iou_loss,
    reference.complete_box_iou_loss,
)


@no_torchscript
def generalized_box_iou_loss(boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1e-7) -> Tensor:
    """1 - generalized IoU of each box with its partner: also boxes that are apart are drawn together.

    Rezatofighi et al. 2019, "Generalized Intersection over Union", algorithm 1; torchvision's signature. Sum and mean
    are computed in one pass with the gradient.

    Args:
        boxes1: ``[..., 4]`` (x1, y1, x2, y2), float16, bfloat16, float32, float64 or integer.
        boxes2: the partners; leading dimensions broadcast. The dtypes may differ.
        reduction: ``"none"``, ``"mean"`` (0 for no boxes) or ``"sum"``.
        eps: added to both denominators, areas in square pixels.

    Returns:
        ``[...]`` or a scalar, in [0, 2] for boxes with x1 <= x2 and y1 <= y2; float64 for float64 boxes and float32 for
        all others. Differentiable, twice too; gradients have the dtypes of the boxes.

    Raises:
        ValueError: bad ``reduction``.
        RuntimeError: shapes, dtypes or devices that do not fit.

    Example:
        >>> import torch
        >>> generalized_box_iou_loss(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[1.0, 0, 2, 1]]))
        tensor([1.])
    """
    return _loss("generalized_box_iou_loss", boxes1, boxes2, reduction, _GENERALIZED, eps)


@no_torchscript
def distance_box_iou_loss(boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1e-7) -> Tensor:
    """1 - distance IoU of each box with its partner: IoU less the distance of the centres over the common diagonal.

    Zheng et al. 2020, "Distance-IoU Loss", equation 7; torchvision's signature. Sum and mean are computed in one pass
    with the gradient.

    Args:
        boxes1: ``[..., 4]`` (x1, y1, x2, y2), float16, bfloat16, float32, float64 or integer.
        boxes2: the partners; leading dimensions broadcast. The dtypes may differ.
        reduction: ``"none"``, ``"mean"`` (0 for no boxes) or ``"sum"``.
        eps: added to both denominators, square pixels.

    Returns:
        ``[...]`` or a scalar, in [0, 2] for boxes with x1 <= x2 and y1 <= y2; float64 for float64 boxes and float32 for
        all others. Differentiable, twice too; gradients have the dtypes of the boxes.

    Raises:
        ValueError: bad ``reduction``.
        RuntimeError: shapes, dtypes or devices that do not fit.

    Example:
        >>> import torch
        >>> distance_box_iou_loss(torch.tensor([[0.0, 0, 4, 3]]), torch.tensor([[4.0, 3, 8, 6]]), reduction="sum")
        tensor(1.2500)
    """
    return _loss("distance_box_iou_loss", boxes1, boxes2, reduction, _DISTANCE, eps)


@no_torchscript
def complete_box_iou_loss(boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1e-7) -> Tensor:
    """1 - complete IoU of each box with its partner: the distance IoU less a penalty for unlike aspect ratios.

    Zheng et al. 2020, "Distance-IoU Loss", equations 8 to 11; torchvision's signature. The penalty's weight alpha is
    a constant in the gradient. Sum and mean are computed in one pass with the gradient.

    Args:
        boxes1: ``[..., 4]`` (x1, y1, x2, y2), float16, bfloat16, float32, float64 or integer.
        boxes2: the partners; leading dimensions broadcast. The dtypes may differ.
        reduction: ``"none"``, ``"mean"`` (0 for no boxes) or ``"sum"``.
        eps: added to alpha's denominator; the others have 1e-7 whatever it is, as torchvision's.

    Returns:
        ``[...]`` or a scalar; float64 for float64 boxes and float32 for all others; NaN where a box is a point.
        Differentiable, twice too; gradients have the dtypes of the boxes and are finite for a box without height.

    Raises:
        ValueError: bad ``reduction``.
        RuntimeError: shapes, dtypes or devices that do not fit.

    Example:
        >>> import torch
        >>> complete_box_iou_loss(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[0.0, 0, 2, 2]]))
        tensor([0.])
    """
    return _loss("complete_box_iou_loss", boxes1, boxes2, reduction, _COMPLETE, eps)


def _loss(op: str, boxes1: Tensor, boxes2: Tensor, reduction: str, kind: int, eps: float) -> Tensor:
    if reduction not in _REDUCTIONS:
        raise ValueError(
            f"Invalid Value for arg 'reduction': '{reduction} \n Supported reduction modes: 'none', 'mean', 'sum'"
        )
    check_boxes(op, 1, boxes1=boxes1, boxes2=boxes2)
    no_forward_mode(op, boxes1, boxes2)
    boxes1, boxes2 = (b if b.is_floating_point() else b.float() for b in (boxes1, boxes2))
    if torch.float64 in (boxes1.dtype, boxes2.dtype):
        boxes1, boxes2 = boxes1.double(), boxes2.double()
    if boxes1.shape != boxes2.shape:
        try:
            boxes1, boxes2 = torch.broadcast_tensors(boxes1, boxes2)
        except RuntimeError:
            raise RuntimeError(
                f"{op}: boxes1 and boxes2 must broadcast, got {list(boxes1.shape)} and {list(boxes2.shape)}"
            ) from None
    if reduction == "none":
        loss: Tensor = torch.ops.retina_ops.iou_loss(boxes1, boxes2, kind, float(eps))
        return loss
    # float16 gradients are left to the backward: a loss scaler's factor must be in them before they are rounded.
    in_forward = (
        torch.is_grad_enabled()
        and torch.float16 not in (boxes1.dtype, boxes2.dtype)
        and not torch.compiler.is_compiling()
    )
    reduced: Tensor = torch.ops.retina_ops.iou_loss_reduced(
        boxes1,
        boxes2,
        kind,
        float(eps),
        reduction == "mean",
        in_forward and boxes1.requires_grad,
        in_forward and boxes2.requires_grad,
    )[0]
    return reduced


# --- shapes -----------------------------------------------------------------------------------------------------------


def _check_shapes(op: str, boxes1: Tensor, boxes2: Tensor) -> torch.dtype:
    """The fakes' check; returns the dtype of losses."""
    torch._check(
        boxes1.is_floating_point() and boxes2.is_floating_point(),
        lambda: f"{op}: boxes1 and boxes2 must be floating, got {boxes1.dtype} and {boxes2.dtype}",
    )
    torch._check(
        (boxes1.dtype == torch.float64) == (boxes2.dtype == torch.float64),
        lambda: f"{op}: both or none of boxes1 and boxes2 must be float64, got {boxes1.dtype} and {boxes2.dtype}",
    )
    torch._check(
        boxes1.dim() >= 1 and boxes1.shape[-1] == 4 and boxes1.shape == boxes2.shape,
        lambda: (
            f"{op}: boxes1 and boxes2 must be [..., 4] and of one shape, got {list(boxes1.shape)} and "
            f"{list(boxes2.shape)}"
        ),
    )
    return torch.float64 if boxes1.dtype == torch.float64 else torch.float32


def _new_gradient(boxes: Tensor, wanted: bool) -> Tensor:
    return boxes.new_empty(boxes.shape if wanted else 0)


@torch.library.register_fake("retina_ops::iou_loss")
def _(boxes1, boxes2, kind, eps):  # type: ignore[no-untyped-def]
    return boxes1.new_empty(boxes1.shape[:-1], dtype=_check_shapes("iou_loss", boxes1, boxes2))


@torch.library.register_fake("retina_ops::iou_loss_backward")
def _(grad_output, boxes1, boxes2, kind, eps, for_boxes1, for_boxes2):  # type: ignore[no-untyped-def]
    _check_shapes("iou_loss_backward", boxes1, boxes2)
    return _new_gradient(boxes1, for_boxes1), _new_gradient(boxes2, for_boxes2)


@torch.library.register_fake("retina_ops::iou_loss_reduced")
def _(boxes1, boxes2, kind, eps, mean, for_boxes1, for_boxes2):  # type: ignore[no-untyped-def]
    loss = boxes1.new_empty((), dtype=_check_shapes("iou_loss_reduced", boxes1, boxes2))
    return loss, _new_gradient(boxes1, for_boxes1), _new_gradient(boxes2, for_boxes2)


# --- autograd ---------------------------------------------------------------------------------------------------------


def _gradients(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, Tensor | None]:
    boxes1, boxes2 = ctx.saved_tensors
    wanted = ctx.needs_input_grad[:2]
    grads = torch.ops.retina_ops.iou_loss_backward(grad_output, boxes1, boxes2, ctx.kind, ctx.eps, *wanted)
    return grads[0] if wanted[0] else None, grads[1] if wanted[1] else None


def _setup_loss(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    boxes1, boxes2, ctx.kind, ctx.eps = inputs
    ctx.save_for_backward(boxes1, boxes2)


def _backward_loss(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    return *_gradients(ctx, grad_output), None, None


def _setup_reduced(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    boxes1, boxes2, ctx.kind, ctx.eps, ctx.mean, *written = inputs
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(boxes1, boxes2)
    # Kept for the first backward, outside the graph; a tracer (its tensors are a subclass) recomputes instead.
    ctx.grads = [
        grad if flag and type(grad) is Tensor else None for grad, flag in zip(output[1:], written, strict=True)
    ]


def _backward_reduced(ctx: Any, grad_loss: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    nothing = (None,) * 5
    if grad_loss is None:
        return None, None, *nothing
    wanted = ctx.needs_input_grad[:2]
    written = all(grad is not None for grad, flag in zip(ctx.grads, wanted, strict=True) if flag)
    if written and not torch.is_grad_enabled() and not is_batched(grad_loss):
        # The gradients that the forward wrote, for the first backward; given away, so a second one recomputes.
        grads, ctx.grads = ctx.grads, [None, None]
        for grad, flag in zip(grads, wanted, strict=True):
            if flag:
                torch.ops.retina_ops.scale_gradient_(grad, grad_loss)
        return *(grad if flag else None for grad, flag in zip(grads, wanted, strict=True)), *nothing
    if ctx.mean:
        grad_loss = grad_loss / max(1, ctx.saved_tensors[0].numel() // 4)
    return *_gradients(ctx, grad_loss), *nothing


def _setup_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.kind, ctx.eps, *ctx.wanted = inputs[3:]


def _backward_backward(ctx: Any, *grad_grads: Tensor) -> tuple[Tensor | None, ...]:
    """Differentiates the plain PyTorch formula, whose graph autograd keeps for yet higher derivatives."""
    with torch.enable_grad():
        # Views: where grad_output depends on the boxes, their derivative must not be taken through it too.
        inputs = [t.view_as(t) if t.requires_grad else t.detach().requires_grad_() for t in ctx.saved_tensors]
        grad_output, *boxes = inputs
        loss = _FORMULAS[ctx.kind](*boxes, eps=ctx.eps)
        first = torch.autograd.grad(loss, boxes, grad_output.to(loss.dtype).expand_as(loss), create_graph=True)
        product = loss.new_zeros(())
        for grad, upstream, flag in zip(first, grad_grads, ctx.wanted, strict=True):
            product = product + (grad * upstream).sum(dtype=loss.dtype) if flag else product
        second = torch.autograd.grad(product, inputs, create_graph=True, allow_unused=True)
    return *second, None, None, None, None


torch.library.register_autograd("retina_ops::iou_loss", _backward_loss, setup_context=_setup_loss)
torch.library.register_autograd("retina_ops::iou_loss_reduced", _backward_reduced, setup_context=_setup_reduced)
torch.library.register_autograd("retina_ops::iou_loss_backward", _backward_backward, setup_context=_setup_backward)
