"""The average-precision loss: the public function, shapes and the update. Algorithm: ``csrc/ap_loss/ap_loss.h``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from retina_ops.ops._autograd import keep_gradients, no_forward_mode, take_gradients, wanted_in_forward
from retina_ops.ops._checks import accumulate_dtype, expect
from retina_ops.ops._torchscript import no_torchscript

_OP = "ap_loss"
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
_DELTAS = (1e-280, 1e280)  # the kernels divide by delta
_loss = torch.ops.retina_ops.ap_loss.default
_update = torch.ops.retina_ops.ap_loss_backward.default


@no_torchscript
def ap_loss(logits: Tensor, targets: Tensor, *, delta: float = 1.0, ignore_index: int = -1) -> Tensor:
    r"""Average-precision loss: the mean over the positives of 1 minus the interpolated precision at their rank.

    Chen et al. 2019, "Towards Accurate One-Stage Object Detection with AP-Loss". All logits are ranked together, over
    images and classes. The rank of a positive with logit s counts other logits x by
    :math:`H(x - s) = \mathrm{clamp}((x - s) / (2 \delta) + 1/2, 0, 1)`. The backward is the error-driven update,
    not a derivative of the loss. Time grows as n + P log P with n logits and P positives; no pair is visited.

    Args:
        logits: any shape, float16, bfloat16, float32 or float64; ``[..., K]`` with class-index targets. Infinite logits
            count as the largest finite number.
        targets: integer, of shape ``logits.shape[:-1]``: class k in [0, K), K for background, ``ignore_index`` for rows
            that are not ranked. Or floating, of the shape of ``logits``: above 0 positive, 0 negative, below 0 ignored.
        delta: half the width of the ramp of H, in logits; in [1e-280, 1e280].
        ignore_index: the label of ignored rows; used with class-index targets only.

    Returns:
        A scalar: float32 for float16 and bfloat16 logits, the dtype of ``logits`` for others. 0, with an update of 0,
        if there is no positive; NaN, as is the update, if a logit that is not ignored is NaN. The same bits for any
        number of threads.

    Raises:
        ValueError: invalid ``delta``; targets that require grad.
        RuntimeError: shapes, dtypes or devices that do not fit; on CPU, a label outside [0, K] (on CUDA the loss is
            NaN); a second derivative, which the update does not have.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[2.0, -1.0], [0.5, 1.5], [0.0, 0.0]], requires_grad=True)
        >>> loss = ap_loss(logits, torch.tensor([0, 2, -1]))  # class 0, background, ignored
        >>> round(loss.item(), 4)
        0.2
        >>> loss.backward()
        >>> logits.grad
        tensor([[-0.2000,  0.0000],
                [ 0.0000,  0.2000],
                [ 0.0000,  0.0000]])
    """
    if not _DELTAS[0] <= delta <= _DELTAS[1]:  # nor NaN
        raise ValueError(f"{_OP}: delta must be in [1e-280, 1e280], got {delta}")
    if targets.requires_grad:
        raise ValueError(f"{_OP}: targets must not require grad")
    no_forward_mode(_OP, logits)
    loss: Tensor = _loss(logits, _as_targets(logits, targets), float(delta), ignore_index, *wanted_in_forward(logits))[
        0
    ]
    return loss


def _as_targets(logits: Tensor, targets: Tensor) -> Tensor:
    """Converts targets to a dtype that the operator takes."""
    if targets.dtype in _INTEGERS:
        if targets.shape == logits.shape and logits.dim() > 0:
            raise RuntimeError(
                f"{_OP}: integer targets are class indices of shape {list(logits.shape[:-1])}, got "
                f"{list(targets.shape)}; make dense targets floating"
            )
        return targets.long()
    if targets.dtype == logits.dtype or not targets.is_floating_point():
        return targets
    return targets.to(accumulate_dtype(logits))


def _check(logits: Tensor, targets: Tensor) -> None:
    expect(logits.is_floating_point(), f"{_OP}: logits must be floating", logits.dtype)
    shape = list(logits.shape)
    if targets.dtype == torch.int64:
        fits = logits.dim() >= 1 and targets.shape == logits.shape[:-1]
        expect(fits, f"{_OP}: class-index targets must have the shape {shape[:-1]}", targets.shape)
    else:
        fits = targets.shape == logits.shape
        expect(fits, f"{_OP}: floating targets must have the shape of logits {shape}", targets.shape)


def _fake_loss(
    logits: Tensor, targets: Tensor, delta: float, ignore_index: int, with_grad: bool
) -> tuple[Tensor, Tensor]:
    _check(logits, targets)
    return logits.new_empty((), dtype=accumulate_dtype(logits)), logits.new_empty(logits.shape if with_grad else 0)


def _fake_update(grad_output: Tensor, logits: Tensor, targets: Tensor, delta: float, ignore_index: int) -> Tensor:
    _check(logits, targets)
    return logits.new_empty(logits.shape)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    logits, targets, *ctx.options, with_grad = inputs
    ctx.save_for_backward(logits, targets)
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[1])
    keep_gradients(ctx, output[1:], [with_grad])


def _backward(ctx: Any, grad: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    others = (None,) * 4
    if grad is None:
        return None, *others
    taken = take_gradients(ctx, [grad])
    return (_update(grad, *ctx.saved_tensors, *ctx.options) if taken is None else taken[0]), *others


def _no_second_derivative(ctx: Any, *grad_grads: Tensor) -> tuple[Tensor | None, ...]:
    raise RuntimeError(f"{_OP}: second derivatives are not supported: the backward is an update, not a derivative")


torch.library.register_fake(f"retina_ops::{_OP}", _fake_loss)
torch.library.register_fake(f"retina_ops::{_OP}_backward", _fake_update)
torch.library.register_autograd(f"retina_ops::{_OP}", _backward, setup_context=_setup)
torch.library.register_autograd(f"retina_ops::{_OP}_backward", _no_second_derivative)
