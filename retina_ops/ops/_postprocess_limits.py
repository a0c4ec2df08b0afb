"""How many candidates and detections there can be: options beyond that mean "all"."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

CUDA_TOPK = 65536  # kPostprocessMaxTopk of csrc/postprocess/postprocess_launch.cuh


def within(cls_logits: Sequence[Tensor], topk_candidates: int, detections: int | None) -> tuple[int, int]:
    """The options with the same effect that need no more memory than there can be detections.

    Args:
        cls_logits: of each level ``[B, A * K, H, W]`` or ``[B, anchors, K]``.
        topk_candidates: most candidates of a level and image.
        detections: most detections of an image; None is no limit.

    Returns:
        `topk_candidates`, at most the scores of the largest level; `detections`, at most the candidates of all levels.
    """
    scores = [level.shape[1:].numel() for level in cls_logits]
    candidates = sum(min(topk_candidates, count) for count in scores)
    return min(topk_candidates, max(scores, default=0)), candidates if detections is None else min(
        detections, candidates
    )


def is_too_many_for_cuda(cls_logits: Sequence[Tensor], topk_candidates: int) -> bool:
    """Does a level have more candidates than the CUDA kernel sorts?"""
    return topk_candidates > CUDA_TOPK and any(
        level.is_cuda and level.shape[1:].numel() > CUDA_TOPK for level in cls_logits
    )
