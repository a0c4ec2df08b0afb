"""Bugs in the kernels of nms/."""

from __future__ import annotations

import torch
from boxes import random_boxes

from retina_ops import batched_nms, reference

from .. import operators as emulated
from ..device import Device
from .plan import BOTH, Mutation


def nms(device: Device) -> None:
    for count, classes in ((700, False), (4300, True)):
        boxes, scores = random_boxes(count), torch.rand(count)
        groups = torch.randint(0, 4, (count,)) if classes else None
        kept, number = emulated.nms(device, boxes, scores, 0.3, groups)
        same = groups if groups is not None else torch.zeros(count, dtype=torch.int64)
        assert torch.equal(kept[:number], reference.batched_nms(boxes, scores, same, 0.3))


def nms_of_many(device: Device) -> None:
    """More words of kept boxes than the compacting block has threads."""
    count = 33_000
    boxes, scores, classes = random_boxes(count), torch.rand(count), torch.arange(count) % 1000
    kept, number = emulated.nms(device, boxes, scores, 0.3, classes)
    assert torch.equal(kept[:number], batched_nms(boxes, scores, classes, 0.3))


_NMS = "nms/nms_kernels.cuh"
MUTATIONS = {
    "nms gather: past the end": Mutation(
        "nms", _NMS, "  if (i < sorted.n) {\n    const int64_t input", "  {\n    const int64_t input", nms, BOTH
    ),
    "nms gather: vote of a part of the warp": Mutation(
        "nms",
        _NMS,
        "  bool is_struck = false;\n  if (i < sorted.n) {",
        "  bool is_struck = false;\n  if (i >= sorted.n) return;\n  {",
        nms,
        BOTH,
    ),
    "nms mask: no barrier": Mutation(
        "nms", _NMS, "  __syncthreads();\n  if (row >= sorted.n) return;", "  if (row >= sorted.n) return;", nms
    ),
    "nms mask: past the columns": Mutation(
        "nms", _NMS, "  if (column < sorted.n) {\n    columns", "  {\n    columns", nms, BOTH
    ),
    "nms sweep: no barrier before the walk": Mutation(
        "nms", _NMS, "mask[row * kNmsWords + w] : 0;\n    __syncthreads();", "mask[row * kNmsWords + w] : 0;", nms
    ),
    "nms sweep: no barrier after the walk": Mutation(
        "nms", _NMS, "    __syncthreads();\n    // Every later word", "    // Every later word", nms
    ),
    "nms sweep: no barrier before the merge": Mutation(
        "nms", _NMS, "partial[thread] = strikes;\n    __syncthreads();", "partial[thread] = strikes;", nms
    ),
    "nms suppress: tile overwritten": Mutation(
        "nms", _NMS, "    __syncthreads();\n  }\n  const unsigned word", "  }\n  const unsigned word", nms
    ),
    "nms suppress: no barrier": Mutation(
        "nms",
        _NMS,
        "    __syncthreads();\n    for (int i = 0; i < kNmsThreads && !is_struck; ++i) {",
        "    for (int i = 0; i < kNmsThreads && !is_struck; ++i) {",
        nms,
    ),
    "nms scatter: not atomic": Mutation(
        "nms",
        _NMS,
        "atomicOr(&by_score[rank[i] / 32], 1u << (rank[i] % 32));",
        "by_score[rank[i] / 32] |= 1u << (rank[i] % 32);",
        nms,
    ),
    "nms compact: no barrier": Mutation(
        "nms", _NMS, "    __syncthreads();\n    int64_t position", "    int64_t position", nms
    ),
    "nms compact: totals overwritten": Mutation(
        "nms", _NMS, "    written += total;\n    __syncthreads();", "    written += total;", nms_of_many
    ),
}
