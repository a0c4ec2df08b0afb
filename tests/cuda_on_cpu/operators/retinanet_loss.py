"""The launches of retinanet_loss/ on an emulated device, over tensors of the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from retina_ops.ops.retinanet_loss import BOX_LOSSES

from ..device import Array, Device
from .common import arithmetic, level_arguments

ALIGNMENT, PARTIALS = 64, 16384 + 8


def retinanet_loss(
    device: Device,
    logits: list[Tensor],
    deltas: list[Tensor],
    anchors: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    matches: Tensor,
    normalizer: Tensor,
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
    box_loss: str = "l1",
    smooth_l1_beta: float = 1.0,
    weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0),
    with_grad: bool = True,
    upstream: tuple[float, float] | None = None,
    first: int = 0,
    offset: int = 0,
    most_blocks: int = 3,
) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
    """Both losses (NaN beside `upstream`: the backward has none) and the gradients of the levels, which are as
    `as_levels` gives them. first: index of the first image."""
    losses = [torch.full((), torch.nan, dtype=arithmetic(levels[0].dtype)) for levels in (logits, deltas)]
    flat = [torch.full((_starts(levels)[-1],), 7, dtype=levels[0].dtype) for levels in (logits, deltas)]
    done = torch.zeros(2, dtype=torch.int32)
    scalars, arrays = level_arguments(logits, deltas, offset)
    scalars |= {
        "first": first, "gt_capacity": gt_boxes.shape[1], "alpha": alpha, "gamma": gamma,
        "box_loss": BOX_LOSSES.index(box_loss), "smooth_l1_beta": smooth_l1_beta, "most_blocks": most_blocks,
        **{f"w{i}": weight for i, weight in enumerate(weights)},
    }  # fmt: skip
    arrays |= {
        "anchors": Array(anchors, offset=offset * anchors.element_size()),
        "gt_boxes": Array(gt_boxes, offset=offset * gt_boxes.element_size()),
        "gt_labels": gt_labels, "matches": matches, "normalizer": normalizer,
        "partial": Array(torch.empty(2, PARTIALS, dtype=torch.float64), False), "done": done,
    }  # fmt: skip
    if with_grad:
        arrays |= {"logits_gradient": Array(flat[0], False), "deltas_gradient": Array(flat[1], False)}
    if upstream is None:
        arrays |= {"classification": Array(losses[0], False), "box": Array(losses[1], False)}
    else:
        names = ("upstream_classification", "upstream_box")
        arrays |= {n: torch.tensor(u, dtype=torch.float64) for n, u in zip(names, upstream, strict=True)}
    device.run("retinanet_loss", scalars, arrays)
    assert not done.any()
    gradients = [_by_level(gradient, levels) for gradient, levels in zip(flat, (logits, deltas), strict=True)]
    return losses[0], losses[1], gradients[0], gradients[1]


def _starts(levels: list[Tensor]) -> list[int]:
    starts = [0]
    for level in levels:
        starts.append(-(-(starts[-1] + level.numel()) // ALIGNMENT) * ALIGNMENT)
    return starts


def _by_level(flat: Tensor, levels: list[Tensor]) -> list[Tensor]:
    """The levels of the array of all; between them it must hold zeros."""
    starts, parts = _starts(levels), []
    for start, end, level in zip(starts, starts[1:], levels, strict=False):
        parts.append(flat[start : start + level.numel()].view(level.shape))
        gap = flat[start + level.numel() : end]
        assert not gap.any() or bool((flat == 7).all())
    return parts
