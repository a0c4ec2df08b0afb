"""Gradients of post-processing: scores and boxes of the kept detections, computed again from the head's outputs.

The operator says which anchor and class each detection comes from. Which detections are kept, and their order, are held
fixed, as in torchvision, where indexing with the kept indices does the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from retina_ops.ops._head_outputs import count_anchors
from retina_ops.ops.box_coding import decode_boxes


def with_gradients(
    logits: Sequence[Tensor],
    deltas: Sequence[Tensor],
    anchors: Tensor,
    sizes: Tensor,
    weights: Sequence[float],
    found: tuple[Tensor, Tensor, Tensor],
    indices: Tensor,
) -> tuple[Tensor, Tensor]:
    """Boxes and scores of detections as functions of the head's outputs and the anchors, with the operator's values.

    The host does not wait for the device.

    Args:
        logits, deltas: levels in memory order, see `retina_ops.ops._head_outputs`.
        anchors: ``[N, 4]`` of all levels, in the dtype of the boxes.
        sizes: (height, width) of each image, ``[B, 2]`` in the dtype of the boxes.
        weights: of the box coder.
        found: boxes ``[B, D, 4]``, scores ``[B, D]`` and labels ``[B, D]`` of the operator.
        indices: int64 ``[B, D]``: the anchor of each detection, among those of all levels; -1 past the last one.

    Returns:
        Boxes ``[B, D, 4]`` and scores ``[B, D]``.
    """
    boxes, scores, labels = found
    if anchors.shape[0] == 0 or logits[0].shape[2] == 0:  # no anchors or no classes: no detections
        return boxes, scores
    images = torch.arange(indices.shape[0], device=indices.device)[:, None]
    classes = labels.clamp(min=0)
    logit, codes = scores.new_zeros(scores.shape), boxes.new_zeros(boxes.shape)
    first = 0
    for level_logits, level_deltas in zip(logits, deltas, strict=True):
        count = count_anchors(level_logits)
        if count == 0:
            continue
        is_inside = (indices >= first) & (indices < first + count)
        anchor = torch.where(is_inside, indices - first, 0)
        logit = torch.where(is_inside, _values(level_logits, images, anchor, classes).to(logit.dtype), logit)
        codes = torch.where(
            is_inside[..., None], _values(level_deltas, images, anchor, slice(None)).to(codes.dtype), codes
        )
        first += count
    decoded = decode_boxes(codes, anchors[indices.clamp(min=0)], weights)
    upper = sizes.flip(1).repeat(1, 2)[:, None]  # (width, height, width, height)
    clipped = decoded.clamp(min=torch.zeros_like(upper), max=upper)
    clipped = torch.where((indices >= 0)[..., None], clipped, 0.0)
    # In float64, because the derivative p (1 - p) of a high score would lose its digits in float32.
    exact_scores = logit.double().sigmoid().to(scores.dtype)
    return _ValueOf.apply(boxes, clipped), _ValueOf.apply(scores, exact_scores)


def _values(level: Tensor, images: Tensor, anchor: Tensor, channel: Any) -> Tensor:
    """The values of an anchor of each image, ``[B, D]`` for channels ``[B, D]``, ``[B, D, C]`` for all of them."""
    if level.dim() == 3:
        return level[images, anchor, channel]
    per_cell = level.shape[1]
    return level[images, anchor % per_cell, channel, anchor // per_cell]


class _ValueOf(torch.autograd.Function):
    """The first tensor, with the gradient of the second: the same quantity, computed in another way."""

    generate_vmap_rule = True

    @staticmethod
    def forward(value: Tensor, recomputed: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:  # type: ignore[override]
        return None, grad
