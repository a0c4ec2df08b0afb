"""Shapes and derivatives of the operators of the fused RetinaNet loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from retina_ops.ops._autograd import double_backward, keep_gradients, take_gradients
from retina_ops.ops._checks import accumulate_dtype, expect
from retina_ops.ops._head_outputs import count_anchors
from retina_ops.reference.retinanet_loss import matched_loss

BOX_LOSSES = ("l1", "smooth_l1", "giou", "diou", "ciou")  # in the order of csrc/retinanet_loss/retinanet_loss.h
Outputs = tuple[Sequence[Tensor], Sequence[Tensor]]  # levels of cls_logits and bbox_regression
_OP = "retinanet_loss"
_ALIGNMENT = 64  # kLevelAlignment of csrc/common/head_levels.h
# Arguments of the operator: cls_logits, bbox_regression, anchors, gt_boxes, gt_labels, matches and normalizer; then
# alpha, gamma, box_loss, smooth_l1_beta and four weights; then with_grad. The backward has two upstream gradients
# before them and no with_grad.
_TENSORS, _OPTIONS = 7, 8

_loss_backward = torch.ops.retina_ops.retinanet_loss_backward.default


# --- shapes -----------------------------------------------------------------------------------------------------------


def _level_offsets(levels: Sequence[Tensor]) -> list[int]:
    """Where each level begins in one array of all levels, and where the array ends."""
    offsets = [0]
    for level in levels:
        offsets.append(-(-(offsets[-1] + level.numel()) // _ALIGNMENT) * _ALIGNMENT)
    return offsets


def split_levels(values: Tensor, levels: Sequence[Tensor]) -> list[Tensor]:
    """One array of all levels, such as their gradient, as one flat view per level."""
    offsets = _level_offsets(levels)
    sizes = []
    for i, level in enumerate(levels):
        sizes += [level.numel(), offsets[i + 1] - offsets[i] - level.numel()]  # the level, and its padding
    return list(values.split(sizes)[::2])


def _check_shapes(cls_logits: list[Tensor], bbox_regression: list[Tensor], anchors: Tensor, matches: Tensor) -> None:
    for name, levels in (("cls_logits", cls_logits), ("bbox_regression", bbox_regression)):
        shapes = "[B, anchors, C] or [B, anchors of a cell, C, cells]"
        for level in levels:
            fits = level.is_floating_point() and level.dim() in (3, 4)
            expect(fits, f"{_OP}: a level of {name} must be floating {shapes}", level)
    total = sum(count_anchors(level) for level in cls_logits)
    fits = anchors.dim() == 2 and anchors.shape[0] == total and anchors.shape[1] == 4
    expect(fits, f"{_OP}: anchors must be [{total}, 4]", anchors.shape)
    fits = matches.dim() == 2 and matches.shape[1] == total and matches.dtype == torch.int64
    expect(fits, f"{_OP}: matches must be int64 [B, {total}]", matches)


@torch.library.register_fake("retina_ops::retinanet_loss")
def _(cls_logits, bbox_regression, anchors, gt_boxes, gt_labels, matches, normalizer, *options):  # type: ignore[no-untyped-def]
    _check_shapes(cls_logits, bbox_regression, anchors, matches)
    with_grad, outputs = options[-1], (cls_logits, bbox_regression)
    losses = [levels[0].new_empty((), dtype=accumulate_dtype(levels[0])) for levels in outputs]
    gradients = [levels[0].new_empty(_level_offsets(levels)[-1] if with_grad else 0) for levels in outputs]
    return *losses, *gradients


@torch.library.register_fake("retina_ops::retinanet_loss_backward")
def _(grad_classification, grad_box, cls_logits, bbox_regression, anchors, gt_boxes, gt_labels, matches, *rest):  # type: ignore[no-untyped-def]
    _check_shapes(cls_logits, bbox_regression, anchors, matches)
    return tuple(levels[0].new_empty(_level_offsets(levels)[-1]) for levels in (cls_logits, bbox_regression))


# --- first derivatives ------------------------------------------------------------------------------------------------


def flat_gradients(
    ctx: Any, grads: Sequence[Tensor | None], to_levels: Callable[..., Outputs] = lambda *outputs: outputs
) -> list[Tensor | None]:
    """Gradients by all levels of cls_logits and by all of bbox_regression, as two arrays for `split_levels`.

    A loss without upstream gradient gives None. Zeros instead would become NaN where the other loss is NaN.

    Args:
        ctx: with the outputs and then the other tensors saved, ``levels``, ``options`` and kept gradients.
        grads: the upstream gradients of both losses.
        to_levels: converts the saved outputs to the operator's levels.
    """
    kept = take_gradients(ctx, grads)
    if kept is not None:
        return kept
    saved = ctx.saved_tensors
    outputs = saved[: ctx.levels], saved[ctx.levels : 2 * ctx.levels]
    upstream = [
        levels[0].new_zeros((), dtype=accumulate_dtype(levels[0])) if grad is None else grad
        for grad, levels in zip(grads, outputs, strict=True)
    ]
    levels = [list(levels) for levels in to_levels(*outputs)]
    gradients = _loss_backward(*upstream, *levels, *saved[2 * ctx.levels :], *ctx.options)
    return [None if grad is None else gradient for grad, gradient in zip(grads, gradients, strict=True)]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    cls_logits, bbox_regression, *tensors = inputs[:_TENSORS]
    *ctx.options, with_grad = inputs[_TENSORS:]
    ctx.levels = len(cls_logits)
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[2:])
    ctx.save_for_backward(*cls_logits, *bbox_regression, *tensors)
    keep_gradients(ctx, output[2:], (with_grad, with_grad))


def _backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
    saved = ctx.saved_tensors
    per_output: list[list[Tensor | None]] = []
    for i, gradient in enumerate(flat_gradients(ctx, grads[:2])):
        levels = saved[i * ctx.levels : (i + 1) * ctx.levels]
        if gradient is None:
            per_output.append([None] * ctx.levels)
        else:
            parts = zip(split_levels(gradient, levels), levels, strict=True)
            per_output.append([part.view(level.shape) for part, level in parts])
    return *per_output, *(None,) * (_TENSORS - 2 + _OPTIONS + 1)


# --- second derivatives -----------------------------------------------------------------------------------------------


def _setup_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    grad_classification, grad_box, cls_logits, bbox_regression, *tensors = inputs[: 2 + _TENSORS]
    ctx.save_for_backward(grad_classification, grad_box, *cls_logits, *bbox_regression, *tensors)
    ctx.levels, ctx.options = len(cls_logits), inputs[2 + _TENSORS :]


def _second_backward(ctx: Any, *grad_grads: Tensor) -> tuple[Any, ...]:
    upstream, saved, count = ctx.saved_tensors[:2], ctx.saved_tensors[2:], ctx.levels
    levels = saved[: 2 * count]
    anchors, gt_boxes, gt_labels, matches, normalizer = saved[2 * count :]
    alpha, gamma, box_loss, smooth_l1_beta, wx, wy, ww, wh = ctx.options

    def reference(*levels: Tensor) -> tuple[Tensor, Tensor]:
        rows = [_as_rows(level) for level in levels]
        return matched_loss(
            rows[:count], rows[count:], anchors, matches, list(gt_boxes), list(gt_labels), normalizer,
            alpha=alpha, gamma=gamma, box_loss=BOX_LOSSES[box_loss], smooth_l1_beta=smooth_l1_beta,
            bbox_reg_weights=(wx, wy, ww, wh),
        )  # fmt: skip

    flat = [*split_levels(grad_grads[0], levels[:count]), *split_levels(grad_grads[1], levels[count:])]
    per_level = [part.view(level.shape) for part, level in zip(flat, levels, strict=True)]
    gradients = double_backward(reference, upstream, levels, per_level)
    of_levels = gradients[2 : 2 + count], gradients[2 + count :]
    return *gradients[:2], *of_levels, *(None,) * (_TENSORS - 2 + _OPTIONS)


def _as_rows(level: Tensor) -> Tensor:
    """A level in memory order as ``[B, anchors, C]``."""
    return level if level.dim() == 3 else level.permute(0, 3, 1, 2).reshape(level.shape[0], -1, level.shape[2])


torch.library.register_autograd("retina_ops::retinanet_loss", _backward, setup_context=_setup)
torch.library.register_autograd("retina_ops::retinanet_loss_backward", _second_backward, setup_context=_setup_backward)
