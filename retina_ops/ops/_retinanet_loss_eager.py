"""The fused loss in eager mode: one autograd node from the maps of the head to the losses.

The derivatives registered for the operator (`_retinanet_loss_autograd.py`) serve compilers and transforms. They flatten
lists of tensors in each call, and the views of the maps are autograd nodes of their own. On the host this takes longer
than the kernels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from retina_ops.ops._autograd import keep_gradients
from retina_ops.ops._head_outputs import memory_order_levels, view_as_map
from retina_ops.ops._retinanet_loss_autograd import flat_gradients, split_levels

_loss = torch.ops.retina_ops.retinanet_loss.default


def are_plain(*maps: Tensor) -> bool:
    """Whether no compiler and no functorch transform is at work, and no map is of a tensor subclass."""
    return all(type(level) in (Tensor, torch.nn.Parameter) for level in maps) and not (
        torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    )


class FusedLoss(torch.autograd.Function):
    """``apply(levels, tensors, options, *cls_logits, *bbox_regression)`` returns both losses.

    ``levels`` is their number; ``tensors`` and ``options`` are the operator's other arguments without ``with_grad``.
    """

    @staticmethod
    def forward(
        ctx: Any, levels: int, tensors: tuple[Tensor, ...], options: tuple[Any, ...], *maps: Tensor
    ) -> tuple[Tensor, Tensor]:
        output = _loss(*memory_order_levels(maps[:levels], maps[levels:]), *tensors, *options, True)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*maps, *tensors)
        ctx.levels, ctx.options = levels, options
        keep_gradients(ctx, output[2:], (True, True))
        return output[0], output[1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:  # type: ignore[override]
        saved = ctx.saved_tensors
        per_map: list[Tensor | None] = []
        for i, gradient in enumerate(flat_gradients(ctx, grads, memory_order_levels)):
            maps = saved[i * ctx.levels : (i + 1) * ctx.levels]
            if gradient is None:
                per_map += [None] * ctx.levels
            else:
                parts = zip(split_levels(gradient, maps), maps, strict=True)
                per_map += [view_as_map(part, level_map) for part, level_map in parts]
        return None, None, None, *per_map
