"""Ground truth of images with different numbers of boxes as one padded tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from retina_ops.ops._checks import promoted_dtype
from retina_ops.ops._host_values import to_device


def promote_anchors(anchors: Tensor, *boxes: Sequence[Tensor] | None) -> Tensor:
    """The anchors in the dtype in which they and all the boxes can be compared without rounding."""
    return anchors.to(promoted_dtype(anchors.dtype, *(image.dtype for images in boxes for image in images or ())))


def pad_boxes(op: str, name: str, images: Sequence[Tensor], anchors: Tensor) -> tuple[Tensor, Tensor]:
    """Pads the boxes of each image.

    Args:
        op, name: the operator and the argument, for errors.
        images: boxes ``[M, 4]`` of each image.
        anchors: their dtype and device are those of the result.

    Returns:
        Boxes ``[B, size, 4]``, see `padded_size`, and their counts int32 ``[B]``.

    Raises:
        RuntimeError: boxes that are not ``[M, 4]`` or on another device than the anchors.
    """
    for boxes in images:
        if boxes.dim() != 2 or boxes.shape[1] != 4:
            raise RuntimeError(f"{op}: {name} must be [M, 4], got {list(boxes.shape)}")
        if boxes.device != anchors.device:
            raise RuntimeError(f"{op}: {name} must be on the anchors' device {anchors.device}, got {boxes.device}")
    padded = _pad_and_stack([boxes.detach().to(anchors.dtype) for boxes in images], anchors.new_zeros(1, 4))
    counts = to_device([[boxes.shape[0]] for boxes in images], torch.int32, anchors.device)
    return padded, counts.squeeze(1)


def pad_labels(op: str, name: str, images: Sequence[Tensor], boxes: Sequence[Tensor], padded: Tensor) -> Tensor:
    """Pads the labels of each image to int64 ``[B, size]``: one label per box of `pad_boxes`.

    Raises:
        RuntimeError: labels that are not integers ``[M]`` for the ``M`` boxes of the image, or on another device.
    """
    for image_labels, image_boxes in zip(images, boxes, strict=True):
        if image_labels.shape != image_boxes.shape[:1] or image_labels.is_floating_point():
            raise RuntimeError(
                f"{op}: {name} must be integers [{image_boxes.shape[0]}], got {image_labels.dtype} "
                f"{list(image_labels.shape)}"
            )
        if image_labels.device != padded.device:
            raise RuntimeError(f"{op}: {name} must be on {padded.device}, got {image_labels.device}")
    return _pad_and_stack([labels.to(torch.int64) for labels in images], padded.new_zeros(1, dtype=torch.int64))


def padded_size(images: Sequence[Tensor]) -> int:
    """A power of two, at least 8, that holds the boxes of every image, so that few sizes occur in compiled graphs."""
    size = 8
    while any(boxes.shape[0] > size for boxes in images):  # guards the comparison, not the number
        size *= 2
    return size


def _pad_and_stack(images: list[Tensor], zero: Tensor) -> Tensor:
    """Tensors ``[M, ...]`` of each image as one ``[B, size, ...]``, padded with `zero`, ``[1, ...]``.

    One concatenation is one launch; copying each image would be a launch per image.
    """
    size = padded_size(images)
    zeros = zero.expand(size, *zero.shape[1:])
    parts = [part for rows in images for part in (rows, zeros[rows.shape[0] :])]
    return torch.cat(parts).view(len(images), size, *zero.shape[1:])
