"""Which detections are kept, and the fused post-processing with these options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from .. import postprocess
from ..errors import needs_extra
from ..ops.detections import clamp_limits, unpad_detections
from ..settings import Range, check_when_made

with needs_extra("models"):
    from torch import Tensor


@dataclass
class PostprocessOptions:
    """Which detections are kept.

    Attributes:
        score_thresh: detections with this score or a lower one are dropped.
        nms_thresh: IoU above which a detection of the same class suppresses another.
        detections_per_img: largest number of detections per image; None for all.
        topk_candidates: largest number of candidates per level before NMS.
    """

    score_thresh: Annotated[float, Range(0, 1)] = 0.05
    nms_thresh: Annotated[float, Range(0, 1)] = 0.5
    detections_per_img: Annotated[int, Range(0)] | None = 300
    topk_candidates: Annotated[int, Range(0)] = 1000

    def __post_init__(self) -> None:
        check_when_made(self)


def detections_of(
    head_outputs: dict[str, list[Tensor]],
    anchors: Tensor,
    image_sizes: Sequence[tuple[int, int]],
    options: PostprocessOptions,
    *,
    bbox_reg_weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
) -> list[dict[str, Tensor]]:
    """Detections of each image.

    Args:
        head_outputs: of `RetinaNetHead`, or in any other form that `retina_ops.postprocess` takes.
        anchors: ``[A, 4]`` of all levels.
        image_sizes: (height, width) of each image without its padding, in pixels.
        options: see `PostprocessOptions`.
        bbox_reg_weights: factors of the deltas, as for `retina_ops.decode_boxes`.

    Returns:
        For each image ``boxes`` ``[n, 4]``, ``scores`` ``[n]`` descending and ``labels`` ``[n]``. Boxes and scores have
        gradients where a graph is recorded.
    """
    topk_candidates, detections_per_img = clamp_limits(
        head_outputs["cls_logits"], options.topk_candidates, options.detections_per_img
    )
    return unpad_detections(
        *postprocess(
            head_outputs["cls_logits"],
            head_outputs["bbox_regression"],
            anchors,
            image_sizes,
            score_thresh=options.score_thresh,
            topk_candidates=topk_candidates,
            nms_thresh=options.nms_thresh,
            detections_per_img=detections_per_img,
            bbox_reg_weights=bbox_reg_weights,
        )
    )
