"""Sigmoid focal loss: the public function, shapes and derivatives. The formula: ``csrc/focal_loss/focal_loss.h``."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from retina_ops.ops._autograd import no_forward_mode, wanted_in_forward
from retina_ops.ops._checks import accumulate_dtype, check_reduction, expect
from retina_ops.ops._registration import register_differentiable
from retina_ops.ops._torchscript import no_torchscript

_OP = "sigmoid_focal_loss"
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
_loss = torch.ops.retina_ops.sigmoid_focal_loss.default
_reduced_loss = torch.ops.retina_ops.sigmoid_focal_loss_reduced.default
_derivative = torch.ops.retina_ops.sigmoid_focal_loss_backward.default


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

    Lin et al. 2017, "Focal Loss for Dense Object Detection", equation 5. The signature is torchvision's. Targets may
    also be class indices, without a one-hot tensor, and rows may be ignored.

    Args:
        inputs: logits of any shape, float16, bfloat16, float32 or float64; ``[..., K]`` with class-index targets.
        targets: floating, of the shape of ``inputs``: probabilities in [0, 1]. Or integer, of shape
            ``inputs.shape[:-1]``: class k in [0, K), K for background, ``ignore_index`` for rows without loss and
            gradient.
        alpha: weight of positives in [0, 1]; negatives have ``1 - alpha``. -1 for no weights. Or a tensor ``[K]`` with
            one weight per class: alpha_k for the positives of column k, 1 - alpha_k for its negatives.
        gamma: focusing exponent, at least 0.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``: over the elements of rows that are not ignored, NaN if there are
            none.
        ignore_index: the label of ignored rows; used with class-index targets only.

    Returns:
        ``"none"``: losses of the shape and dtype of ``inputs``. Otherwise a scalar: float32 for float16 and bfloat16
        inputs, the dtype of ``inputs`` for others. Twice differentiable.

    Raises:
        ValueError: invalid ``reduction``, ``alpha`` or ``gamma``; targets or alpha that require grad.
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
        per_class = alpha.to(device=inputs.device, dtype=accumulate_dtype(inputs))
        alpha = 0.0
    if targets.requires_grad:
        raise ValueError(f"{_OP}: targets must not require grad")
    targets = _as_targets(inputs, targets)
    options = (per_class, float(alpha), float(gamma), ignore_index)
    if reduction == "none":
        loss: Tensor = _loss(inputs, targets, *options)
    else:
        loss = _reduced_loss(inputs, targets, *options, reduction == "mean", *wanted_in_forward(inputs))[0]
    return loss


def _check_options(alpha: float | Tensor, gamma: float, reduction: str) -> None:
    if not isinstance(alpha, Tensor) and alpha != -1 and not 0 <= alpha <= 1:
        raise ValueError(f"Invalid alpha value: {alpha}. alpha must be in the range [0,1] or -1 for ignore.")
    if not 0 <= gamma < math.inf:  # math.isfinite rejects SymFloat.
        raise ValueError(f"Invalid gamma value: {gamma}. gamma must be finite and at least 0.")
    check_reduction(reduction)


def _as_targets(inputs: Tensor, targets: Tensor) -> Tensor:
    """Converts targets to a dtype that the operator takes."""
    if targets.dtype in _INTEGERS:
        if targets.shape == inputs.shape and inputs.dim() > 0:
            raise RuntimeError(
                f"{_OP}: integer targets are class indices of shape {list(inputs.shape[:-1])}, got "
                f"{list(targets.shape)}; make dense targets floating"
            )
        return targets.long()
    if targets.dtype == inputs.dtype or not targets.is_floating_point():
        return targets
    return targets.to(accumulate_dtype(inputs))


def _fake_loss(
    inputs: Tensor, targets: Tensor, alpha_per_class: Tensor | None, alpha: float, gamma: float, ignore_index: int
) -> Tensor:
    expect(inputs.is_floating_point(), f"{_OP}: inputs must be floating", inputs.dtype)
    shape = list(inputs.shape)
    if targets.dtype == torch.int64:
        fits = inputs.dim() >= 1 and targets.shape == inputs.shape[:-1]
        expect(fits, f"{_OP}: class-index targets must have the shape {shape[:-1]}", targets.shape)
    else:
        fits = targets.shape == inputs.shape
        expect(fits, f"{_OP}: floating targets must have the shape of inputs {shape}", targets.shape)
    return inputs.new_empty(inputs.shape)


def _count_of_mean(
    inputs: Tensor, targets: Tensor, alpha_per_class: Tensor | None, alpha: float, gamma: float, ignore_index: int
) -> Tensor | int:
    """The elements of rows that are not ignored."""
    if targets.dtype != torch.int64:
        return inputs.numel()
    return (targets != ignore_index).sum() * inputs.shape[-1]


register_differentiable(
    f"retina_ops::{_OP}", _fake_loss, differentiable=1, mean_over=_count_of_mean, backward_options=(1,)
)


# --- second derivatives, which the backward operator computes itself: its last argument is the order ------------------


def _setup_second(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, alpha, gamma, ignore_index, order = inputs
    if order != 1:
        raise RuntimeError(f"{_OP}: third derivatives are not supported")
    ctx.save_for_backward(*tensors)
    ctx.options = (alpha, gamma, ignore_index)


def _second_derivative(ctx: Any, grad_grad: Tensor) -> tuple[Tensor | None, ...]:
    grad_output, inputs, targets, alpha_per_class = ctx.saved_tensors
    for_upstream = for_inputs = None
    if ctx.needs_input_grad[0]:
        for_upstream = _derivative(grad_grad, inputs, targets, alpha_per_class, *ctx.options, 1)
        if grad_output.dim() == 0:
            for_upstream = for_upstream.sum(dtype=grad_output.dtype)
    if ctx.needs_input_grad[1]:
        upstream = (grad_grad * grad_output).to(inputs.dtype)
        for_inputs = _derivative(upstream, inputs, targets, alpha_per_class, *ctx.options, 2)
    return for_upstream, for_inputs, None, None, None, None, None, None


torch.library.register_autograd(
    "retina_ops::sigmoid_focal_loss_backward", _second_derivative, setup_context=_setup_second
)
