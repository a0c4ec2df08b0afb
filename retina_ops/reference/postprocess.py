"""From head outputs to detections in plain PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from retina_ops._deprecated import BOX_CODER, POSTPROCESSING, renamed_arguments
from retina_ops.reference.box_coding import Weights, decode_boxes
from retina_ops.reference.head_outputs import by_anchor
from retina_ops.reference.nms import batched_nms

__all__ = ["postprocess"]


@renamed_arguments(**POSTPROCESSING, **BOX_CODER)
def postprocess(
    cls_logits: Sequence[Tensor],
    bbox_regression: Sequence[Tensor],
    anchors: Tensor,
    image_sizes: Sequence[tuple[int, int]] | Tensor,
    *,
    score_thresh: float = 0.05,
    topk_candidates: int = 1000,
    nms_thresh: float = 0.5,
    detections_per_img: int = 300,
    bbox_reg_weights: Weights = (1, 1, 1, 1),
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The definition of :func:`retina_ops.postprocess`, image by image and level by level.

    A float32 score is the sigmoid in float64, rounded. torch's float32 sigmoid depends on the device and on the
    element's position in the tensor, so that scores one ulp apart could change their order.
    """
    logits, deltas = by_anchor(cls_logits, bbox_regression)
    level_anchors = anchors.split([level.shape[1] for level in logits])
    batch, wide = len(image_sizes), torch.float64 if logits[0].dtype == torch.float64 else torch.float32
    box_dtype = torch.promote_types(anchors.dtype, torch.promote_types(deltas[0].dtype, torch.float32))
    boxes = anchors.new_zeros(batch, detections_per_img, 4, dtype=box_dtype)
    scores = anchors.new_zeros(batch, detections_per_img, dtype=wide)
    labels = anchors.new_full((batch, detections_per_img), -1, dtype=torch.int64)
    counts = anchors.new_zeros(batch, dtype=torch.int64)
    sizes = image_sizes.tolist() if isinstance(image_sizes, Tensor) else image_sizes
    for image, size in enumerate(sizes):
        found = []
        for level, box, anchors_of_level in zip(logits, deltas, level_anchors, strict=True):
            level_scores = torch.sigmoid(level[image].detach().double()).to(wide).flatten()
            above = torch.where(level_scores > level_scores.new_tensor(score_thresh))[0]
            order = level_scores[above].sort(descending=True, stable=True).indices
            kept = above[order[:topk_candidates]]
            # From the logits that are kept alone, so that NaN logits elsewhere have no gradient.
            best = torch.sigmoid(level[image].flatten()[kept].double()).to(wide)
            anchor = kept // level.shape[-1]
            codes, proposals = box[image][anchor].to(box_dtype), anchors_of_level[anchor].to(box_dtype)
            decoded = decode_boxes(codes, proposals, bbox_reg_weights, image_size=size)
            found.append((decoded, best, kept % level.shape[-1]))
        all_boxes, all_scores, all_labels = (torch.cat(parts) for parts in zip(*found, strict=True))
        keep = batched_nms(all_boxes, all_scores, all_labels, nms_thresh)[:detections_per_img]
        count = len(keep)
        boxes[image, :count], scores[image, :count] = all_boxes[keep], all_scores[keep]
        labels[image, :count], counts[image] = all_labels[keep], count
    return boxes, scores, labels, counts
