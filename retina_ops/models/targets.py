"""Checks of the targets that a model is trained on. The errors are of torchvision's types and name the target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import TargetError, TargetIndexError, TargetKeyError, TargetTypeError, needs_extra

with needs_extra("models"):
    import torch
    from torch import Tensor

Target = dict[str, Any]


def check_targets(targets: Sequence[Target] | None, images: int) -> None:
    """Checks the targets of a batch, except for labels that are out of range: see
    `retina_ops.ops.labels`.

    Args:
        targets: for each image ``boxes`` ``[n, 4]`` with positive sides and integer ``labels`` ``[n]``.
        images: number of images.

    Raises:
        TargetError: no targets, other shapes, or a box without area. It is an AssertionError, as in torchvision, and a
            ValueError.
        TargetKeyError: a target without boxes or labels; also a KeyError.
        TargetIndexError: more or fewer targets than images, or labels than boxes; labels that are not integers; also
            an IndexError.
        TargetTypeError: a target that is not a dict; also a TypeError.
    """
    if targets is None:
        raise TargetError("targets must be given in training mode")
    if isinstance(targets, (Mapping, Tensor)):
        raise TargetTypeError(f"targets must be a list with one dict per image, got {type(targets).__name__}")
    if len(targets) != images:
        raise TargetIndexError(f"there must be one target per image, got {len(targets)} for {images} images")
    for index, target in enumerate(targets):
        _check_target(index, target)
    if targets:
        _check_sides([target["boxes"] for target in targets])


def _check_target(index: int, target: Target) -> None:
    if not isinstance(target, Mapping):
        raise TargetTypeError(f"target {index} must be a dict, got {type(target).__name__}")
    for key in ("boxes", "labels"):
        if key not in target:
            raise TargetKeyError(f"target {index} has no {key}: it has {', '.join(map(str, target)) or 'nothing'}")
        if not isinstance(target[key], Tensor):
            raise TargetError(f"{key} of target {index} must be a tensor, got {type(target[key]).__name__}")
    boxes, labels = target["boxes"], target["labels"]
    if boxes.dim() != 2 or boxes.shape[-1] != 4:
        raise TargetError(f"boxes of target {index} must be [n, 4], got {list(boxes.shape)}")
    if labels.dim() != 1 or labels.shape[0] != boxes.shape[0]:
        got = f"{labels.shape[0]} labels" if labels.dim() == 1 else f"labels of shape {list(labels.shape)}"
        raise TargetIndexError(f"target {index} has {boxes.shape[0]} boxes and {got}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TargetIndexError(f"labels of target {index} must be integers, got {labels.dtype}")


def _check_sides(boxes: list[Tensor]) -> None:
    """Waits for the device once. A compiled model does not wait, and raises RuntimeError."""
    good = torch.stack([(image_boxes[:, 2:] > image_boxes[:, :2]).all() for image_boxes in boxes]).all()
    if torch.compiler.is_compiling():
        torch._assert_async(good, "boxes must have positive width and height")
    elif not bool(good):
        for index, image_boxes in enumerate(boxes):
            for bad in image_boxes[~(image_boxes[:, 2:] > image_boxes[:, :2]).all(dim=1)].tolist():
                raise TargetError(f"boxes must have positive width and height; target {index} has {bad}")
