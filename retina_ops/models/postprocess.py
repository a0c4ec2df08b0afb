"""From head outputs to detections, as torchvision's `RetinaNet.postprocess_detections`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .. import batched_nms, decode_boxes
from ..data.errors import needs_extra

with needs_extra("models"):
    import torch
    from torch import Tensor


@dataclass
class PostprocessOptions:
    """Which detections are kept.

    Attributes:
        score_thresh: scores at most this are dropped.
        nms_thresh: IoU above which a detection of the same class suppresses another.
        detections_per_img: at most so many an image.
        topk_candidates: at most so many a level before NMS.
    """

    score_thresh: float = 0.05
    nms_thresh: float = 0.5
    detections_per_img: int = 300
    topk_candidates: int = 1000


def detections_of(
    head_outputs: dict[str, list[Tensor]],
    anchors: Tensor,
    image_sizes: Sequence[tuple[int, int]],
    options: PostprocessOptions,
) -> list[dict[str, Tensor]]:
    """Detections of each image.

    Args:
        head_outputs: ``cls_logits`` ``[B, a, K]`` and ``bbox_regression`` ``[B, a, 4]`` of each level.
        anchors: ``[A, 4]`` of all levels.
        image_sizes: (height, width) of each image without its padding, in pixels.
        options: see `PostprocessOptions`.

    Returns:
        For each image ``boxes`` ``[n, 4]``, ``scores`` ``[n]`` descending and ``labels`` ``[n]``.
    """
    logits, regression = head_outputs["cls_logits"], head_outputs["bbox_regression"]
    level_anchors = anchors.split([level.shape[1] for level in logits])
    detections = []
    for image, size in enumerate(image_sizes):
        boxes, scores, labels = [], [], []
        for level, deltas, its_anchors in zip(logits, regression, level_anchors, strict=True):
            level_scores, kept = _candidates(level[image], options)
            anchor = torch.div(kept, level.shape[-1], rounding_mode="floor")
            boxes.append(decode_boxes(deltas[image][anchor].float(), its_anchors[anchor], image_size=size))
            scores.append(level_scores)
            labels.append(kept % level.shape[-1])
        all_boxes, all_scores, all_labels = torch.cat(boxes), torch.cat(scores), torch.cat(labels)
        keep = batched_nms(all_boxes, all_scores, all_labels, options.nms_thresh)[: options.detections_per_img]
        detections.append({"boxes": all_boxes[keep], "scores": all_scores[keep], "labels": all_labels[keep]})
    return detections


def _candidates(logits: Tensor, options: PostprocessOptions) -> tuple[Tensor, Tensor]:
    """The best scores of a level above the threshold, and their flat indices into ``[anchors, K]``."""
    scores = torch.sigmoid(logits.float()).flatten()
    above = torch.where(scores > options.score_thresh)[0]
    best, order = scores[above].topk(min(options.topk_candidates, above.shape[0]))
    return best, above[order]
