"""Classification losses that the fused loss does not have, composed of the operators of this package.

FL* and OHEM take the logits of all anchors and their classes, and return the sum over each image. The box loss is the
fused one in all cases.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .. import ap_loss, match_anchors, retinanet_loss, sigmoid_focal_loss
from ..errors import needs_extra
from ..ops.normalization import Normalization, loss_divisors
from ..reference.head_outputs import by_anchor
from .loss_options import LossOptions

with needs_extra("models"):
    import torch
    from torch import Tensor

IGNORED = -1


def focal_star(logits: Tensor, classes: Tensor, options: LossOptions) -> Tensor:
    """FL* of Lin et al. 2017, appendix A: ``-log(sigmoid(gamma * x_t + beta)) / gamma``, with the alpha of positives.

    x_t is the logit of a positive and minus the logit of a negative. FL* is the cross entropy of the logits
    ``gamma * x + beta`` of positives and ``gamma * x - beta`` of negatives, divided by gamma.

    Args:
        logits: ``[B, N, K]``.
        classes: int64 ``[B, N]``: 0..K-1, K for background, `IGNORED`.
        options: ``gamma``, which must be positive, ``focal_star_beta`` and ``alpha``.

    Returns:
        ``[B]``, float32, or float64 for float64 logits.
    """
    columns = torch.arange(logits.shape[-1], device=logits.device)
    signs = torch.where(classes[..., None] == columns, 1.0, -1.0).to(logits.dtype)
    moved = logits * options.gamma + signs * options.focal_star_beta
    losses = [
        sigmoid_focal_loss(image, labels, options.alpha, 0.0, "sum")
        for image, labels in zip(moved, classes, strict=True)
    ]
    return torch.stack(losses) / options.gamma


def ohem(logits: Tensor, classes: Tensor, options: LossOptions) -> Tensor:
    """Cross entropy of the hardest anchors of each image: online hard example mining, without NMS.

    Shrivastava et al. 2016, "Training Region-based Object Detectors with Online Hard Example Mining". An anchor's loss
    is the sum over its classes. The ``ohem_examples`` anchors of the highest loss count. With an ``ohem_ratio`` r, at
    most ``ohem_examples / (1 + r)`` foreground anchors count, and r times as many background anchors.

    Args:
        logits: ``[B, N, K]``.
        classes: int64 ``[B, N]``: 0..K-1, K for background, `IGNORED`.
        options: ``ohem_examples``, ``ohem_ratio`` and ``alpha``.

    Returns:
        ``[B]``, float32, or float64 for float64 logits.
    """
    losses = sigmoid_focal_loss(logits, classes, options.alpha, 0.0).sum(
        dim=-1, dtype=torch.float64 if logits.dtype == torch.float64 else torch.float32
    )
    counted = classes != IGNORED
    hardness = losses.detach().masked_fill(~counted, -1.0)
    examples, ratio = options.ohem_examples, options.ohem_ratio
    if ratio == 0:
        chosen = (_ranks(hardness) < examples) & counted
    else:
        is_object = counted & (classes < logits.shape[-1])
        is_background = counted & ~is_object
        objects = is_object & (_ranks(hardness.masked_fill(~is_object, -1.0)) < examples / (1 + ratio))
        allowed = (ratio * objects.sum(dim=1, keepdim=True)).clamp(min=ratio)  # an image without objects has some, too
        chosen = objects | (is_background & (_ranks(hardness.masked_fill(~is_background, -1.0)) < allowed))
    return torch.where(chosen, losses, 0.0).sum(dim=1)


def _ranks(values: Tensor) -> Tensor:
    """The place of each value ``[B, N]`` in its row's descending order, equal values in input order."""
    order = values.argsort(dim=1, descending=True, stable=True)
    places = torch.arange(values.shape[1], device=values.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)


_SUMS: dict[str, Callable[[Tensor, Tensor, LossOptions], Tensor]] = {"focal_star": focal_star, "ohem": ohem}
SEPARATE = (*_SUMS, "ap_loss")


def separate_losses(
    head_outputs: dict[str, list[Tensor]],
    anchors: Tensor,
    boxes: Sequence[Tensor],
    labels: Sequence[Tensor],
    crowds: Sequence[Tensor] | None,
    options: LossOptions,
    normalization: Normalization,
    bbox_reg_weights: Sequence[float],
) -> tuple[Tensor, Tensor]:
    """Classification and box loss of a batch, each computed by itself. The classification loss is one of `SEPARATE`.

    Args:
        head_outputs, anchors, options: as for `retinanet_losses`.
        boxes, labels: objects of each image, ``[n, 4]`` and ``[n]`` in 0..K-1.
        crowds: regions to ignore of each image, ``[r, 4]``.
        normalization, bbox_reg_weights: as for `retina_ops.retinanet_loss`.
    """
    matches = torch.stack(
        match_anchors(
            anchors,
            boxes,
            options.fg_iou_thresh,
            options.bg_iou_thresh,
            options.allow_low_quality_matches,
            min_pos_iou=options.min_pos_iou,
            ignore_regions=crowds,
        )
    )
    divisors = loss_divisors(normalization, (matches >= 0).sum(dim=1), "retinanet_losses")
    levels = by_anchor(head_outputs["cls_logits"], head_outputs["bbox_regression"])[0]
    logits = torch.cat(levels, dim=1)
    classes = torch.stack(
        [
            _classes_of_anchors(image_matches, image_labels, logits.shape[-1])
            for image_matches, image_labels in zip(matches, labels, strict=True)
        ]
    )
    _, box_loss = retinanet_loss(
        [level.detach() for level in head_outputs["cls_logits"]],
        head_outputs["bbox_regression"],
        anchors,
        boxes,
        labels,
        bbox_reg_weights=bbox_reg_weights,
        normalization=lambda _: divisors,
        ignore_regions=crowds,
        **options.matching_and_box_loss(),
    )
    if options.classification == "ap_loss":
        return ap_loss(logits, classes, delta=options.ap_delta, ignore_index=IGNORED), box_loss
    sums = _SUMS[options.classification](logits, classes, options)
    return (sums / divisors.to(sums.dtype)).sum(), box_loss


def _classes_of_anchors(matches: Tensor, labels: Tensor, classes: int) -> Tensor:
    """int64 ``[N]``: the label of an anchor's box, ``classes`` for background, `IGNORED`."""
    padded = torch.cat([labels.long(), labels.new_full((1,), classes, dtype=torch.int64)])  # index -1: background
    return torch.where(matches < -1, IGNORED, padded[matches.clamp(min=-1)])
