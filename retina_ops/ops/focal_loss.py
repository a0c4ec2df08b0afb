"""Sigmoid focal loss: the public function, fakes and autograd. The formula: ``csrc/focal_loss/focal_loss.h``."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from retina_ops.ops._checks import is_batched, no_forward_mode
from retina_ops.ops._torchscript import no_torchscript

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
_REDUCTIONS = ("none", "mean", "sum")
_OP = "sigmoid_focal_loss"


@no_torchscript
def sigmoid_focal_loss(
    inputs: Tensor,
    targets: Tensor,
    alpha: float | Tensor = 0.25,
    gamma: float = 2.0,
    reduction: str = "none",
    *,
    ignore_index: int = -1,
) -> Tensor:
    r"""Focal loss of independent binary classifiers, :math:`-\alpha_t (1 - p_t)^\gamma \log p_t`.

    Lin et al. 2017, "Focal Loss for Dense Object Detection", equation 5; torchvision's signature. Beside
    torchvision's dense targets it takes class indices, which need no one-hot tensor, and rows to ignore.

    Args:
        inputs: logits, float16, bfloat16, float32 or float64, any shape; ``[..., K]`` with class-index targets.
        targets: floating, of the shape of ``inputs``: probabilities in [0, 1]. Or integer, of shape
            ``inputs.shape[:-1]``: class k in [0, K), K for background, ``ignore_index`` for no loss and no gradient.
        alpha: weight of positives in [0, 1], ``1 - alpha`` for negatives; -1 for no weights; or a tensor ``[K]`` with
            one weight a class (alpha_k for positives of column k, 1 - alpha_k for its negatives).
        gamma: focusing exponent, at least 0.
        reduction: ``"none"``, ``"mean"`` (over the elements of rows that are not ignored; NaN if there are none) or
            ``"sum"``.
        ignore_index: the label of ignored rows, with class-index targets only.

    Returns:
        ``"none"``: losses of the shape and dtype of ``inputs``. Otherwise a scalar, float32 for half inputs and the
        dtype of ``inputs`` for the others.

    Raises:
        ValueError: bad ``reduction``, ``alpha`` or ``gamma``, or targets or alpha that require grad.
        RuntimeError: shapes, dtypes or devices that do not fit; on CPU, a label outside [0, K]. On CUDA the loss of
            such a row is NaN (an error under ``RETINA_OPS_DEBUG=1``).

    Example:
        >>> import torch
        >>> logits = torch.zeros(3, 2)             # 3 anchors, 2 classes
        >>> labels = torch.tensor([1, 2, -1])      # class 1, background, ignored
        >>> round(sigmoid_focal_loss(logits, labels, reduction="sum").item(), 4)
        0.4332
    """
    _check_options(alpha, gamma, reduction)
    no_forward_mode(_OP, inputs)
    per_class = None
    if isinstance(alpha, Tensor):
        if alpha.requires_grad:
            raise ValueError(f"{_OP}: alpha must not require grad")
        per_class = alpha.to(device=inputs.device, dtype=_accumulate_dtype(inputs))
        alpha = 0.0
    if targets.requires_grad:
        raise ValueError(f"{_OP}: targets must not require grad")
    targets = _as_targets(inputs, targets)
    options = (per_class, float(alpha), float(gamma), ignore_index)
    if reduction == "none":
        loss: Tensor = torch.ops.retina_ops.sigmoid_focal_loss(inputs, targets, *options)
        return loss
    # float16 gradients are left to the backward: a loss scaler's factor must be in them before they are rounded.
    with_grad = (
        torch.is_grad_enabled()
        and inputs.requires_grad
        and inputs.dtype != torch.float16
        and not torch.compiler.is_compiling()
    )
    reduced: Tensor = torch.ops.retina_ops.sigmoid_focal_loss_reduced(
        inputs, targets, *options, reduction == "mean", with_grad
    )[0]
    return reduced


def _check_options(alpha: float | Tensor, gamma: float, reduction: str) -> None:
    if not isinstance(alpha, Tensor) and alpha != -1 and not 0 <= alpha <= 1:
        raise ValueError(f"Invalid alpha value: {alpha}. alpha must be in the range [0,1] or -1 for ignore.")
    if not 0 <= gamma < math.inf:  # not isfinite: a tracer's number has none
        raise ValueError(f"Invalid gamma value: {gamma}. gamma must be finite and at least 0.")
    if reduction not in _REDUCTIONS:
        raise ValueError(
            f"Invalid Value for arg 'reduction': '{reduction} \n Supported reduction modes: 'none', 'mean', 'sum'"
        )


def _as_targets(inputs: Tensor, targets: Tensor) -> Tensor:
    """Targets in a dtype that the operator takes."""
    if targets.dtype in _INTEGERS:
        if targets.shape == inputs.shape and inputs.dim() > 0:
            raise RuntimeError(
                f"{_OP}: integer targets are class indices of shape {list(inputs.shape[:-1])}, got "
                f"{list(targets.shape)}; make dense targets floating"
            )
        return targets.long()
    if targets.dtype == inputs.dtype or not targets.is_floating_point():
        return targets
    return targets.to(torch.float64 if inputs.dtype == torch.float64 else torch.float32)


def _accumulate_dtype(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


# --- shapes -----------------------------------------------------------------------------------------------------------


def _check_shapes(inputs: Tensor, targets: Tensor) -> None:
    torch._check(inputs.is_floating_point(), lambda: f"{_OP}: inputs must be floating, got {inputs.dtype}")
    if targets.dtype == torch.int64:
        torch._check(
            inputs.dim() >= 1 and targets.shape == inputs.shape[:-1],
            lambda: (
                f"{_OP}: class-index targets must have the shape of inputs without its last dimension, got inputs "
                f"{list(inputs.shape)} and targets {list(targets.shape)}"
            ),
        )
    else:
        torch._check(
            targets.shape == inputs.shape,
            lambda: (
                f"{_OP}: floating targets must have the shape of inputs, got inputs {list(inputs.shape)} and "
                f"targets {list(targets.shape)}"
            ),
        )


@torch.library.register_fake("retina_ops::sigmoid_focal_loss")
def _(inputs, targets, alpha_per_class, alpha, gamma, ignore_index):  # type: ignore[no-untyped-def]
    _check_shapes(inputs, targets)
    return torch.empty_like(inputs, memory_format=torch.contiguous_format)


@torch.library.register_fake("retina_ops::sigmoid_focal_loss_backward")
def _(grad_output, inputs, targets, alpha_per_class, alpha, gamma, ignore_index, order):  # type: ignore[no-untyped-def]
    _check_shapes(inputs, targets)
    return torch.empty_like(inputs, memory_format=torch.contiguous_format)


@torch.library.register_fake("retina_ops::sigmoid_focal_loss_reduced")
def _(inputs, targets, alpha_per_class, alpha, gamma, ignore_index, mean, with_grad):  # type: ignore[no-untyped-def]
    _check_shapes(inputs, targets)
    loss = inputs.new_empty((), dtype=_accumulate_dtype(inputs))
    grad = torch.empty_like(inputs, memory_format=torch.contiguous_format) if with_grad else inputs.new_empty(0)
    return loss, grad


@torch.library.register_fake("retina_ops::scale_gradient_")
def _(grad, scale):  # type: ignore[no-untyped-def]
    return None


# --- autograd ---------------------------------------------------------------------------------------------------------


def _setup_loss(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    logits, targets, per_class, *options = inputs
    ctx.save_for_backward(logits, targets, per_class)
    ctx.options = options


def _backward_loss(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    logits, targets, per_class = ctx.saved_tensors
    grad = torch.ops.retina_ops.sigmoid_focal_loss_backward(grad_output, logits, targets, per_class, *ctx.options, 1)
    return grad, None, None, None, None, None


def _setup_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    grad_output, logits, targets, per_class, *options, order = inputs
    if order != 1:
        raise RuntimeError(f"{_OP}: third derivatives are not supported")
    ctx.save_for_backward(grad_output, logits, targets, per_class)
    ctx.options = options


def _backward_backward(ctx: Any, grad_grad: Tensor) -> tuple[Tensor | None, ...]:
    grad_output, logits, targets, per_class = ctx.saved_tensors
    derivative = torch.ops.retina_ops.sigmoid_focal_loss_backward
    for_upstream = for_logits = None
    if ctx.needs_input_grad[0]:
        for_upstream = derivative(grad_grad, logits, targets, per_class, *ctx.options, 1)
        if grad_output.dim() == 0:
            for_upstream = for_upstream.sum(dtype=grad_output.dtype)
    if ctx.needs_input_grad[1]:
        upstream = (grad_grad * grad_output).to(logits.dtype)
        for_logits = derivative(upstream, logits, targets, per_class, *ctx.options, 2)
    return for_upstream, for_logits, None, None, None, None, None, None


def _setup_reduced(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    logits, targets, per_class, *options, mean, with_grad = inputs
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(logits, targets, per_class)
    ctx.options = options
    ctx.mean = mean
    # Kept for the first backward, outside the graph; a tracer (its tensors are a subclass) recomputes instead.
    ctx.grad = output[1] if with_grad and type(output[1]) is Tensor else None


def _backward_reduced(ctx: Any, grad_loss: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    nothing = (None,) * 7
    if grad_loss is None:
        return None, *nothing
    if ctx.grad is not None and not torch.is_grad_enabled() and not is_batched(grad_loss):
        # The gradient that the forward wrote, for the first backward; it is given away, so a second one recomputes.
        grad, ctx.grad = ctx.grad, None
        torch.ops.retina_ops.scale_gradient_(grad, grad_loss)
        return grad, *nothing
    logits, targets, per_class = ctx.saved_tensors
    if ctx.mean:
        grad_loss = grad_loss / _elements_counted(logits, targets, ctx.options[-1])
    grad = torch.ops.retina_ops.sigmoid_focal_loss_backward(grad_loss, logits, targets, per_class, *ctx.options, 1)
    return grad, *nothing


def _elements_counted(logits: Tensor, targets: Tensor, ignore_index: int) -> Tensor | int:
    """What the mean divides by: the elements of rows that are not ignored."""
    if targets.dtype != torch.int64:
        return logits.numel()
    return (targets != ignore_index).sum() * logits.shape[-1]


torch.library.register_autograd("retina_ops::sigmoid_focal_loss", _backward_loss, setup_context=_setup_loss)
torch.library.register_autograd(
    "retina_ops::sigmoid_focal_loss_backward", _backward_backward, setup_context=_setup_backward
)
torch.library.register_autograd(
    "retina_ops::sigmoid_focal_loss_reduced", _backward_reduced, setup_context=_setup_reduced
)
