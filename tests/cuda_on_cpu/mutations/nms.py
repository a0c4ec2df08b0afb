"""Bugs in the kernels of nms/."""

from __future__ import annotations

import torch
from inputs.boxes import random_boxes

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
    """More words of kept boxes than a compacting block has threads."""
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
    "nms mask: the tile's own rows the other way": Mutation(
        "nms", _NMS, "is_own ? thread : columns_here", "is_own ? kNmsTile : columns_here", nms
    ),
    "nms sweep: no barrier before the merge": Mutation("nms", _NMS, "= mine;\n    __syncthreads();", "= mine;", nms),
    "nms sweep: strikes overwritten": Mutation(
        "nms", _NMS, "strikes[w % 2][thread / kWarpSize] = mine;", "strikes[w & 0][thread / kWarpSize] = mine;", nms
    ),
    "nms sweep: rows of another tile": Mutation(
        "nms", _NMS, "row < w * kNmsTile ? its[row]", "row < (w + 1) * kNmsTile ? its[row]", nms
    ),
    "nms sweep: kept of a round": Mutation(
        "nms", _NMS, "const uint64_t open = alive | kept;", "const uint64_t open = kept;", nms
    ),
    "nms suppress: count of a warp": Mutation(
        "nms",
        _NMS,
        "= __popc(of_warp);\n  __syncthreads();",
        "= __popc(of_warp);",
        nms,
    ),
    "nms suppress: no barrier": Mutation(
        "nms",
        _NMS,
        "  __syncthreads();\n  const int64_t column = first_column + thread;\n  const bool here",
        "  const int64_t column = first_column + thread;\n  const bool here",
        nms,
    ),
    "nms suppress: not atomic": Mutation(
        "nms", _NMS, "atomicOr(&sorted.struck[column / 32], word);", "sorted.struck[column / 32] |= word;", nms
    ),
    "nms suppress: read beside writers": Mutation(
        "nms", _NMS, "before = atomicOr(&sorted.struck[column / 32], 0u);", "before = sorted.struck[column / 32];", nms
    ),
    "nms scatter: not atomic": Mutation(
        "nms",
        _NMS,
        "atomicOr(&by_score[rank[i] / 32], 1u << (rank[i] % 32));",
        "by_score[rank[i] / 32] |= 1u << (rank[i] % 32);",
        nms,
    ),
    "nms compact: reduction reused": Mutation(
        "nms",
        _NMS,
        "before = block_sum<kThreads>(before);\n  __syncthreads();",
        "before = block_sum<kThreads>(before);",
        nms,
    ),
    "nms compact: no barrier": Mutation(
        "nms", _NMS, "  __syncthreads();\n  int64_t position = sums[0];", "  int64_t position = sums[0];", nms
    ),
    "nms compact: kept of earlier blocks": Mutation(
        "nms", _NMS, "at < first_word ? its : 0u", "at <= first_word ? its : 0u", nms_of_many
    ),
}
