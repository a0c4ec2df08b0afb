"""Ground truth of images with different numbers of boxes as one padded tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from retina_ops.ops._checks import promoted
from retina_ops.ops._host_values import to_device


def capacity_of(images: Sequence[Tensor]) -> int:
    """A power of two, at least 8, that holds every image's boxes: few sizes, so that a compiled graph is reused."""
    most = max(boxes.shape[0] for boxes in images)
    return max(8, 1 << (most - 1).bit_length()) if most > 0 else 8


def in_one_dtype(anchors: Tensor, *boxes: Sequence[Tensor] | None) -> Tensor:
    """The anchors in the dtype in which they and all the boxes can be compared unrounded."""
    return anchors.to(promoted(anchors.dtype, *(its_boxes.dtype for images in boxes for its_boxes in images or ())))


def pad_boxes(op: str, name: str, images: Sequence[Tensor], anchors: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes ``[B, capacity, 4]`` in the anchors' dtype, and their counts int32 ``[B]``.

    Raises:
        RuntimeError: boxes that are not ``[M, 4]``, or on another device than the anchors.
    """
    for boxes in images:
        if boxes.dim() != 2 or boxes.shape[1] != 4:
            raise RuntimeError(f"{op}: {name} must be [M, 4], got {list(boxes.shape)}")
        if boxes.device != anchors.device:
            raise RuntimeError(f"{op}: {name} must be on the anchors' device {anchors.device}, got {boxes.device}")
    padded = _side_by_side([boxes.detach().to(anchors.dtype) for boxes in images], anchors.new_zeros(1, 4))
    counts = to_device([[boxes.shape[0]] for boxes in images], torch.int32, anchors.device)
    return padded, counts.squeeze(1)


def pad_labels(op: str, name: str, images: Sequence[Tensor], boxes: Sequence[Tensor], padded: Tensor) -> Tensor:
    """Labels int64 ``[B, capacity]``, one a box of `pad_boxes`.

    Raises:
        RuntimeError: labels that are not integers ``[M]`` of their image's boxes, or on another device.
    """
    for its_labels, its_boxes in zip(images, boxes, strict=True):
        if its_labels.shape != its_boxes.shape[:1] or its_labels.is_floating_point():
            raise RuntimeError(
                f"{op}: {name} must be integers [{its_boxes.shape[0]}], got {its_labels.dtype} {list(its_labels.shape)}"
            )
        if its_labels.device != padded.device:
            raise RuntimeError(f"{op}: {name} must be on {padded.device}, got {its_labels.device}")
    return _side_by_side([labels.to(torch.int64) for labels in images], padded.new_zeros(1, dtype=torch.int64))


def _side_by_side(images: list[Tensor], zero: Tensor) -> Tensor:
    """``[B, capacity, ...]`` by one concatenation: a copy an image costs a launch each. zero: ``[1, ...]``."""
    capacity = capacity_of(images)
    zeros = zero.expand(capacity, *zero.shape[1:])
    parts = [part for rows in images for part in (rows, zeros[rows.shape[0] :])]
    return torch.cat(parts).view(len(images), capacity, *zero.shape[1:])
