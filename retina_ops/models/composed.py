"""Parts of torchvision's models that the fused operators do not know: which they are, and the loss that uses them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .. import box_iou, match_anchors
from ..errors import needs_extra
from ..ops.retinanet_loss import BOX_LOSSES
from .head import ClassificationHead, RegressionHead, RetinaNetHead
from .loss_options import LossOptions

with needs_extra("models"):
    import torch
    from torch import Tensor
    from torchvision.models.detection import retinanet
    from torchvision.models.detection._utils import BoxCoder, Matcher

_LOG_LIMIT = math.log(1000.0 / 16)  # torchvision's default, and the limit of the fused operators
_HEADS = (RetinaNetHead, retinanet.RetinaNetHead)
_CLASSIFICATION = (ClassificationHead, retinanet.RetinaNetClassificationHead)
_REGRESSION = (RegressionHead, retinanet.RetinaNetRegressionHead)


def is_plain_coder(coder: Any) -> bool:
    """Whether a box coder codes as the operators do: torchvision's ``BoxCoder`` with its limit of sizes."""
    plain = type(coder) is BoxCoder and not vars(coder).keys() & {"encode_single", "decode_single"}
    return plain and coder.bbox_xform_clip == _LOG_LIMIT


def is_plain_matcher(matcher: Any) -> bool:
    """Whether a matcher matches as the operators do: torchvision's ``Matcher``."""
    plain = type(matcher) is Matcher and "set_low_quality_matches_" not in vars(matcher)
    return plain and (matcher.BELOW_LOW_THRESHOLD, matcher.BETWEEN_THRESHOLDS) == (-1, -2)


def has_plain_loss(head: Any) -> bool:
    """Whether the loss of a head is torchvision's: nothing overrides ``compute_loss``, and the coder is plain.

    A head that has no ``compute_loss`` at all has no loss of its own.
    """
    if not hasattr(head, "compute_loss"):
        return True
    if not _has_own_loss(head, _HEADS):
        return False
    classification, regression = head.classification_head, head.regression_head
    return (
        _has_own_loss(classification, _CLASSIFICATION)
        and classification.BETWEEN_THRESHOLDS == -2
        and _has_own_loss(regression, _REGRESSION)
        and is_plain_coder(regression.box_coder)
        and regression._loss_type in BOX_LOSSES
    )


def _has_own_loss(module: Any, kinds: tuple[Any, Any]) -> bool:
    """`kinds`: ours and torchvision's, whose ``compute_loss`` is one function."""
    return getattr(type(module), "compute_loss", None) is kinds[1].compute_loss and "compute_loss" not in vars(module)


def composed_loss(
    model: Any, targets: Sequence[dict[str, Any]], head_outputs: dict[str, Tensor], anchors: Sequence[Tensor]
) -> dict[str, Tensor]:
    """torchvision's loss: ``model.proposal_matcher`` matches, then ``model.head.compute_loss``.

    Args:
        model: a RetinaNet.
        targets: as for `retina_ops.models.retinanet_losses`; crowd boxes are regions to ignore.
        head_outputs: ``cls_logits`` ``[B, A, K]`` and ``bbox_regression`` ``[B, A, 4]``.
        anchors: ``[A, 4]`` for each image.

    Returns:
        What the head's ``compute_loss`` returns, with ``bbox_regression`` times ``box_loss_weight``.

    Raises:
        RuntimeError: options of the loss that torchvision's loss does not have.
    """
    options = model.loss_options
    known = LossOptions()
    for name in ("classification", "alpha", "gamma", "smooth_l1_beta", "normalization", "min_pos_iou"):
        if getattr(options, name) != getattr(known, name):
            raise RuntimeError(
                f"loss_options.{name} is {getattr(options, name)!r}: with a matcher, box coder or loss of the head of "
                f"your own it must be {getattr(known, name)!r}, as in torchvision's loss"
            )
    objects, matches = [], []
    for target, image_anchors in zip(targets, anchors, strict=True):
        boxes, labels = target["boxes"], target["labels"]
        is_crowd = target.get("iscrowd")
        is_object = torch.ones_like(labels, dtype=torch.bool) if is_crowd is None else is_crowd.to(labels.device) == 0
        objects.append({**target, "boxes": boxes[is_object], "labels": labels[is_object]})
        matches.append(_matches(model.proposal_matcher, image_anchors, boxes[is_object], boxes[~is_object]))
    losses: dict[str, Tensor] = model.head.compute_loss(objects, head_outputs, list(anchors), matches)
    if options.box_loss_weight != 1 and "bbox_regression" in losses:
        losses = {**losses, "bbox_regression": losses["bbox_regression"] * options.box_loss_weight}
    return losses


def _matches(matcher: Any, anchors: Tensor, boxes: Tensor, crowds: Tensor) -> Tensor:
    """For each anchor the index of a box, -1 for background, -2 for anchors that no loss counts."""
    if boxes.shape[0]:
        matches: Tensor = matcher(box_iou(boxes, anchors))
    else:
        matches = torch.full((anchors.shape[0],), -1, dtype=torch.int64, device=anchors.device)
    if crowds.shape[0]:
        in_crowd = match_anchors(anchors, boxes[:0], ignore_regions=crowds) == -2
        matches = torch.where(in_crowd & (matches < 0), -2, matches)
    return matches


def shared_anchors(anchors: Sequence[Tensor]) -> Tensor | None:
    """The anchors of a batch where they are those of every image, otherwise None."""
    first = anchors[0]
    are_shared = all(each is first or (each.shape == first.shape and torch.equal(each, first)) for each in anchors)
    return first if are_shared else None
