"""Shapes and derivatives of the fused RetinaNet loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from retina_ops.ops._head_outputs import level_anchors
from retina_ops.reference.retinanet_loss import matched_loss

_OP = "retinanet_loss"
_ALIGNMENT = 64  # kLevelAlignment of csrc/common/head_levels.h
_OPTIONS = 9  # numbers after the tensors of both operators: alpha, gamma, box_loss, beta, four weights, with_grad
BOX_LOSSES = ("l1", "smooth_l1", "giou", "diou", "ciou")  # in the order of csrc/retinanet_loss/retinanet_loss.h


# --- shapes -----------------------------------------------------------------------------------------------------------


def _starts(levels: Sequence[Tensor]) -> list[int]:
    """Where each level begins in an array of all, and where the last one ends."""
    starts = [0]
    for level in levels:
        starts.append(-(-(starts[-1] + level.numel()) // _ALIGNMENT) * _ALIGNMENT)
    return starts


def _check_shapes(cls_logits: list[Tensor], bbox_regression: list[Tensor], anchors: Tensor, matches: Tensor) -> None:
    for name, levels in (("cls_logits", cls_logits), ("bbox_regression", bbox_regression)):
        for level in levels:
            torch._check(
                level.is_floating_point() and level.dim() in (3, 4),
                lambda name=name, level=level: (  # type: ignore[misc]
                    f"{_OP}: a level of {name} must be floating [B, anchors, C] or [B, anchors of a cell, C, cells], "
                    f"got {level.dtype} {list(level.shape)}"
                ),
            )
    total = sum(level_anchors(level) for level in cls_logits)
    torch._check(
        anchors.dim() == 2 and anchors.shape[0] == total and anchors.shape[1] == 4,
        lambda: f"{_OP}: anchors must be [{total}, 4], got {list(anchors.shape)}",
    )
    torch._check(
        matches.dim() == 2 and matches.shape[1] == total and matches.dtype == torch.int64,
        lambda: f"{_OP}: matches must be int64 [B, {total}], got {matches.dtype} {list(matches.shape)}",
    )


def _wide(level: Tensor) -> torch.dtype:
    return torch.float64 if level.dtype == torch.float64 else torch.float32


@torch.library.register_fake("retina_ops::retinanet_loss")
def _(cls_logits, bbox_regression, anchors, gt_boxes, gt_labels, matches, normalizer, *options):  # type: ignore[no-untyped-def]
    _check_shapes(cls_logits, bbox_regression, anchors, matches)
    kinds = (cls_logits, bbox_regression)
    losses = [levels[0].new_empty((), dtype=_wide(levels[0])) for levels in kinds]
    gradients = [levels[0].new_empty(_starts(levels)[-1] if options[-1] else 0) for levels in kinds]
    return *losses, *gradients


@torch.library.register_fake("retina_ops::retinanet_loss_backward")
def _(grad_classification, grad_box, cls_logits, bbox_regression, anchors, gt_boxes, gt_labels, matches, *rest):  # type: ignore[no-untyped-def]
    _check_shapes(cls_logits, bbox_regression, anchors, matches)
    return tuple(levels[0].new_empty(_starts(levels)[-1]) for levels in (cls_logits, bbox_regression))


# --- derivatives ------------------------------------------------------------------------------------------------------


def by_level(gradient: Tensor, levels: Sequence[Tensor]) -> list[Tensor]:
    """Flat views of the array of all levels, one a level."""
    starts = _starts(levels)
    sizes = [
        size for i, level in enumerate(levels) for size in (level.numel(), starts[i + 1] - starts[i] - level.numel())
    ]
    return list(gradient.split(sizes)[::2])


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    cls_logits, bbox_regression, *tensors = inputs[: len(inputs) - _OPTIONS]
    *options, with_grad = inputs[len(inputs) - _OPTIONS :]
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[2], output[3])
    ctx.save_for_backward(*cls_logits, *bbox_regression, *tensors)
    ctx.levels, ctx.options = len(cls_logits), options
    # Kept for the first backward, outside the graph; a tracer (its tensors are a subclass) recomputes instead.
    ctx.gradients = output[2:] if with_grad and type(output[2]) is Tensor else None


def upstream_of(grads: tuple[Tensor | None, ...], *kinds: Sequence[Tensor]) -> list[Tensor]:
    """The gradients by both losses, zeros where there is none."""
    return [
        levels[0].new_zeros((), dtype=_wide(levels[0])) if grad is None else grad
        for grad, levels in zip(grads[:2], kinds, strict=True)
    ]


def has_gradients(ctx: Any) -> bool:
    """Are those that the forward wrote still there, and all that is asked for?"""
    return ctx.gradients is not None and not torch.is_grad_enabled()


def taken_gradients(ctx: Any, upstream: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Those that the forward wrote, times the gradients from above; given away, so that another backward recomputes."""
    (of_logits, of_deltas), ctx.gradients = ctx.gradients, None
    torch.ops.retina_ops.scale_gradient_(of_logits, upstream[0])
    torch.ops.retina_ops.scale_gradient_(of_deltas, upstream[1])
    return of_logits, of_deltas


def _backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
    saved = ctx.saved_tensors
    kinds = list(saved[: ctx.levels]), list(saved[ctx.levels : 2 * ctx.levels])
    upstream = upstream_of(grads, *kinds)
    if has_gradients(ctx):
        gradients = taken_gradients(ctx, upstream)
    else:
        gradients = torch.ops.retina_ops.retinanet_loss_backward(
            *upstream, *kinds, *saved[2 * ctx.levels :], *ctx.options
        )
    # A loss that nothing depends on has no gradient: not zeros, which would be NaN beside a NaN.
    per_level = [
        [None] * ctx.levels
        if grad is None
        else [part.view(level.shape) for part, level in zip(by_level(gradient, levels), levels, strict=True)]
        for grad, gradient, levels in zip(grads, gradients, kinds, strict=False)
    ]
    return *per_level, *(None,) * (5 + _OPTIONS)


def _setup_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    grad_classification, grad_box, cls_logits, bbox_regression, *tensors = inputs[: len(inputs) - _OPTIONS + 1]
    ctx.save_for_backward(grad_classification, grad_box, *cls_logits, *bbox_regression, *tensors)
    ctx.levels, ctx.options = len(cls_logits), inputs[len(inputs) - _OPTIONS + 1 :]


def _backward_backward(ctx: Any, *grad_grads: Tensor) -> tuple[Any, ...]:
    """Differentiates the plain PyTorch definition, whose graph autograd keeps for yet higher derivatives."""
    alpha, gamma, box_loss, beta, *weights = ctx.options
    with torch.enable_grad():
        # Views: where the upstream depends on the outputs, their derivative must not be taken through it too.
        saved = ctx.saved_tensors[2:]
        upstream, outputs = (
            [t.view_as(t) if t.requires_grad else t.detach().requires_grad_() for t in tensors]
            for tensors in (ctx.saved_tensors[:2], saved[: 2 * ctx.levels])
        )
        anchors, gt_boxes, gt_labels, matches, normalizer = saved[2 * ctx.levels :]
        logits, deltas = outputs[: ctx.levels], outputs[ctx.levels :]
        losses = matched_loss(
            [_rows(level) for level in logits], [_rows(level) for level in deltas], anchors, matches,
            list(gt_boxes), list(gt_labels), normalizer, alpha=alpha, gamma=gamma, box_loss=BOX_LOSSES[box_loss],
            smooth_l1_beta=beta, bbox_reg_weights=tuple(weights),
        )  # fmt: skip
        first = torch.autograd.grad(losses, outputs, upstream, create_graph=True, allow_unused=True)
        flat = [
            *by_level(grad_grads[0].to(logits[0].dtype), logits),
            *by_level(grad_grads[1].to(deltas[0].dtype), deltas),
        ]
        products = [
            (mine * theirs.view(mine.shape)).sum()
            for mine, theirs in zip(first, flat, strict=True)
            if mine is not None and mine.requires_grad
        ]
        product = torch.stack([part.to(products[0].dtype) for part in products]).sum()
        second = torch.autograd.grad(product, [*upstream, *outputs], create_graph=True, allow_unused=True)
    return *second[:2], list(second[2 : 2 + ctx.levels]), list(second[2 + ctx.levels :]), *(None,) * (4 + _OPTIONS)


def _rows(level: Tensor) -> Tensor:
    """A level of `as_levels` as ``[B, anchors, C]``."""
    return level if level.dim() == 3 else level.permute(0, 3, 1, 2).reshape(level.shape[0], -1, level.shape[2])


torch.library.register_autograd("retina_ops::retinanet_loss", _backward, setup_context=_setup)
torch.library.register_autograd(
    "retina_ops::retinanet_loss_backward", _backward_backward, setup_context=_setup_backward
)
