"""The launches of postprocess/ on an emulated device, over tensors of the CPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from retina_ops.ops._head_outputs import as_levels

from ..device import Array, Device
from .common import DTYPES, arithmetic, level_arguments

_BINS = 2048


def postprocess(
    device: Device,
    cls_logits: Sequence[Tensor],
    bbox_regression: Sequence[Tensor],
    anchors: Tensor,
    image_sizes: Sequence[tuple[int, int]],
    *,
    score_threshold: float = 0.05,
    topk: int = 1000,
    nms_threshold: float = 0.5,
    detections_per_image: int = 300,
    box_weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    offset: int = 0,
    first: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Boxes, scores, labels and counts. offset: elements that each level of logits lies past a 16-byte boundary.
    first: index of the first image."""
    logits, deltas = as_levels("postprocess", cls_logits, bbox_regression)
    batch, count = logits[0].shape[0], len(logits)
    box_dtype = torch.promote_types(anchors.dtype, torch.promote_types(deltas[0].dtype, torch.float32))
    score_dtype = arithmetic(logits[0].dtype)
    d, slabs = detections_per_image, batch * count
    topk = min(topk, max(level[0].numel() for level in logits))
    key_bytes = 16 if score_dtype == torch.float64 else 8
    capacity = 32768 // key_bytes
    while capacity < 2 * topk:
        capacity *= 2
    boxes, scores = torch.empty(batch, d, 4, dtype=box_dtype), torch.empty(batch, d, dtype=score_dtype)
    labels, counts = torch.empty(batch, d, dtype=torch.int64), torch.empty(batch, dtype=torch.int64)
    scalars, arrays = level_arguments(logits, deltas, offset)
    scalars |= {
        "box_dtype": DTYPES[box_dtype],
        "score_threshold": score_threshold,
        "topk": topk,
        "nms_threshold": nms_threshold,
        "detections": d,
        "first": first,
        **{f"w{i}": weight for i, weight in enumerate(box_weights)},
    }
    arrays |= {
        "anchors": anchors.to(box_dtype),
        "image_sizes": torch.tensor(image_sizes, dtype=box_dtype),
        "states": torch.zeros(slabs * (48 if score_dtype == torch.float64 else 32), dtype=torch.uint8),
        "bins": torch.zeros(slabs, _BINS, dtype=torch.int32),
        "keys": Array(torch.empty(slabs * capacity * key_bytes, dtype=torch.uint8), False),
        "candidates": Array(torch.empty(slabs * topk, 4, dtype=box_dtype), False),
        "candidate_scores": Array(torch.empty(slabs * topk, dtype=score_dtype), False),
        "candidate_labels": Array(torch.empty(slabs * topk, dtype=torch.int32), False),
        "boxes": Array(boxes, False),
        "scores": Array(scores, False),
        "labels": Array(labels, False),
        "counts": Array(counts, False),
    }
    device.run("postprocess", scalars, arrays)
    return boxes, scores, labels, counts
