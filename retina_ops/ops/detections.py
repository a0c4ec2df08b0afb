"""What callers of `retina_ops.postprocess` need around it: limits of its options, and detections per image."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

MAX_CUDA_TOPK = 65536  # kPostprocessMaxTopk of csrc/postprocess/postprocess_launch.cuh


def clamp_limits(cls_logits: Sequence[Tensor], topk_candidates: int, detections: int | None) -> tuple[int, int]:
    """Clamps the options to the number of candidates there can be, so that no more memory is allocated.

    Args:
        cls_logits: of each level ``[B, A * K, H, W]`` or ``[B, anchors, K]``.
        topk_candidates: the largest number of candidates per level and image.
        detections: the largest number of detections per image; None for no limit.

    Returns:
        ``topk_candidates``, at most the number of scores of the largest level; ``detections``, at most the number of
        candidates of all levels. Post-processing gives the same detections with them.
    """
    scores = [level.shape[1:].numel() for level in cls_logits]
    candidates = sum(min(topk_candidates, count) for count in scores)
    topk_candidates = min(topk_candidates, max(scores, default=0))
    return topk_candidates, candidates if detections is None else min(detections, candidates)


def exceeds_cuda_topk(cls_logits: Sequence[Tensor], topk_candidates: int) -> bool:
    """Whether a level on CUDA has more candidates than the kernel sorts."""
    return topk_candidates > MAX_CUDA_TOPK and any(
        level.is_cuda and level.shape[1:].numel() > MAX_CUDA_TOPK for level in cls_logits
    )


def unpad_detections(boxes: Tensor, scores: Tensor, labels: Tensor, counts: Tensor) -> list[dict[str, Tensor]]:
    """The detections of each image without padding. The host waits for the device once.

    Args:
        boxes, scores, labels, counts: as `retina_ops.postprocess` returns them.

    Returns:
        For each image ``boxes`` ``[n, 4]``, ``scores`` ``[n]`` and ``labels`` ``[n]``: views.
    """
    return [
        {"boxes": boxes[image, :count], "scores": scores[image, :count], "labels": labels[image, :count]}
        for image, count in enumerate(counts.tolist())
    ]
