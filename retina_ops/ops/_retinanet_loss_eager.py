"""The fused loss under eager autograd: one node from the maps of the head to the losses.

What is registered for the operator (`_retinanet_loss_autograd.py`) serves every tracer and transform, but walks lists
of tensors at each call, and views of the maps are nodes of their own: on the host that takes longer than the kernels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from retina_ops.ops._head_outputs import as_map, levels_of
from retina_ops.ops._retinanet_loss_autograd import by_level, has_gradients, taken_gradients, upstream_of


def is_plain(*maps: Tensor) -> bool:
    """No tracer's and no transform's tensors."""
    return all(type(level) in (Tensor, torch.nn.Parameter) for level in maps) and not (
        torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    )


class FusedLoss(torch.autograd.Function):
    """``apply(levels, tensors, options, *cls_logits, *bbox_regression)``: both losses.

    tensors and options: what the operator takes after the maps, but for its last option.
    """

    @staticmethod
    def forward(
        ctx: Any, levels: int, tensors: tuple[Tensor, ...], options: tuple[Any, ...], *maps: Tensor
    ) -> tuple[Tensor, Tensor]:
        output = torch.ops.retina_ops.retinanet_loss(*levels_of(maps[:levels], maps[levels:]), *tensors, *options, True)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*maps, *tensors)
        ctx.levels, ctx.options, ctx.gradients = levels, options, output[2:]
        return output[0], output[1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:  # type: ignore[override]
        saved = ctx.saved_tensors
        kinds = saved[: ctx.levels], saved[ctx.levels : 2 * ctx.levels]
        upstream = upstream_of(grads, *kinds)
        if has_gradients(ctx):
            gradients = taken_gradients(ctx, upstream)
        else:
            gradients = torch.ops.retina_ops.retinanet_loss_backward(
                *upstream, *levels_of(*kinds), *saved[2 * ctx.levels :], *ctx.options
            )
        by_map: list[Tensor | None] = []
        for grad, gradient, maps in zip(grads, gradients, kinds, strict=True):
            if grad is None:  # a loss that nothing depends on has no gradient: zeros would be NaN beside a NaN
                by_map += [None] * ctx.levels
            else:
                by_map += [as_map(values, like) for values, like in zip(by_level(gradient, maps), maps, strict=True)]
        return None, None, None, *by_map
