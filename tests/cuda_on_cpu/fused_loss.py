"""Arguments of the kernels of the RetinaNet loss, and expected results: `retina_ops.reference` in float64."""

from __future__ import annotations

import torch
from inputs.heads import Head
from torch import Tensor

from retina_ops import match_anchors
from retina_ops.ops._head_outputs import as_levels
from retina_ops.ops._padding import pad_boxes, pad_labels
from retina_ops.reference.head_outputs import by_anchor
from retina_ops.reference.retinanet_loss import matched_loss

DEFAULTS = {"alpha": 0.25, "gamma": 2.0, "box_loss": "l1", "smooth_l1_beta": 1.0, "bbox_reg_weights": (1, 1, 1, 1)}


def arguments_of(head: Head) -> tuple[list[Tensor], list[Tensor], Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The arguments of the operator, with the matches that the CPU finds and a normalizer for the mean over images."""
    logits, deltas = as_levels("test", head.cls_logits, head.bbox_regression)
    boxes, _ = pad_boxes("test", "gt_boxes", head.gt_boxes, head.anchors)
    labels = pad_labels("test", "gt_labels", head.gt_labels, head.gt_boxes, boxes)
    matches = torch.stack(match_anchors(head.anchors, head.gt_boxes, 0.5, 0.4))
    normalizer = (matches >= 0).sum(dim=1).clamp(min=1).double() * len(matches)
    levels = [[level.detach() for level in kind] for kind in (logits, deltas)]
    return levels[0], levels[1], head.anchors, boxes, labels, matches, normalizer


def expected_of(
    head: Head, matches: Tensor, normalizer: Tensor, upstream: tuple[float, float] = (1.0, 1.0), **options: object
) -> tuple[list[Tensor], list[Tensor]]:
    """Losses and the gradients of cls_logits and bbox_regression, in float64 and in the order of `as_levels`."""
    outputs = [level.detach().double().requires_grad_() for level in head.outputs]
    count = len(head.cls_logits)
    losses = matched_loss(
        *by_anchor(outputs[:count], outputs[count:]), head.anchors.double(), matches,
        [boxes.double() for boxes in head.gt_boxes], head.gt_labels, normalizer,
        **(DEFAULTS | options),
    )  # fmt: skip
    total = losses[0] * upstream[0] + losses[1] * upstream[1]
    gradients = torch.autograd.grad(total, outputs, allow_unused=True)
    # Autograd does not keep the memory format of the outputs.
    gradients = [
        torch.zeros_like(o) if g is None else torch.empty_like(o).copy_(g)
        for o, g in zip(outputs, gradients, strict=True)
    ]
    ordered = as_levels("test", gradients[:count], gradients[count:])
    return [loss.detach() for loss in losses], [*ordered[0], *ordered[1]]
