"""nms/ on an emulated device."""

from __future__ import annotations

import torch
from inputs.boxes import random_boxes
from torch import Tensor

from retina_ops import batched_nms, reference

from ..arguments import arithmetic, limits, output
from ..device import Array, Device
from ..room import BOTH, Bug


def nms(
    device: Device,
    boxes: Tensor,
    scores: Tensor,
    threshold: float,
    classes: Tensor | None = None,
    max_output: int | None = None,
    *,
    offset: int = 0,
    first: int = 0,
) -> tuple[Tensor, int]:
    """The kept indices, padded with -1, and their number; boxes are sorted as the operator sorts them.

    first: index of the first box, a multiple of 4096.
    """
    n = len(boxes)
    kept = torch.empty(n if max_output is None else max_output, dtype=torch.int64)
    count = torch.zeros((), dtype=torch.int64)
    order = scores.sort(stable=True, descending=True).indices
    rank = classes[order].sort(stable=True).indices if classes is not None else None
    words, rows = -(-n // 32), min(-(-n // 64) * 64, 4096)
    bits = [torch.zeros(words, dtype=torch.int32) for _ in range(3)]
    has_classes = classes is not None
    fields = {
        "boxes": Array(boxes, offset=offset, first=first),
        "box_dtype": boxes.dtype,
        "scores": Array(scores, first=first),
        "score_dtype": scores.dtype,
        "classes": Array(classes, first=first) if classes is not None else None,
        "order": Array(order + first, first=first),
        "rank": Array(rank + first, first=first) if rank is not None else None,
        "threshold": threshold,
        "n": first + n,
        "output": output(kept),
        "max_output": len(kept),
        "count": output(count),
        "sorted_boxes": output(torch.empty(n, 4, dtype=arithmetic(boxes.dtype)), first=first),
        "sorted_classes": output(torch.empty(n, dtype=torch.int64), first=first) if has_classes else None,
        "struck": output(bits[0], first=first // 32),
        "kept": output(bits[1], first=first // 32),
        "mask": output(torch.empty(rows // 64, rows, dtype=torch.int64)),
        "by_score": Array(bits[2], first=first // 32),
        "limits": limits(first),
    }
    device.launch("launch_nms", fields)
    return kept.where(kept < 0, kept - first), int(count)


def kept(device: Device) -> None:
    """One chunk without classes, two with classes."""
    for count, has_classes in ((700, False), (4300, True)):
        boxes, scores = random_boxes(count), torch.rand(count)
        classes = torch.randint(0, 4, (count,)) if has_classes else torch.zeros(count, dtype=torch.int64)
        found, number = nms(device, boxes, scores, 0.3, classes if has_classes else None)
        assert torch.equal(found[:number], reference.batched_nms(boxes, scores, classes, 0.3))


def kept_few(device: Device) -> None:
    boxes, scores, classes = random_boxes(200), torch.rand(200), torch.randint(0, 3, (200,))
    found, number = nms(device, boxes, scores, 0.3, classes)
    assert torch.equal(found[:number], reference.batched_nms(boxes, scores, classes, 0.3))


def kept_of_many(device: Device) -> None:
    """More words of kept bits than a compacting block has threads, so that the block goes round more than once."""
    count = 33_000
    boxes, scores, classes = random_boxes(count), torch.rand(count), torch.arange(count) % 1000
    found, number = nms(device, boxes, scores, 0.3, classes)
    assert torch.equal(found[:number], batched_nms(boxes, scores, classes, 0.3))


def large(device: Device) -> None:
    for has_classes in (False, True):
        boxes, scores = random_boxes(4500, low=2, high=8), torch.rand(4500)
        classes = torch.randint(0, 3, (4500,)) if has_classes else torch.zeros(4500, dtype=torch.int64)
        far, number = nms(device, boxes, scores, 0.5, classes if has_classes else None, first=2**31)
        assert torch.equal(far[:number], reference.batched_nms(boxes, scores, classes, 0.5))
        assert (far[number:] == -1).all()


_NMS = "nms/nms_kernels.cuh"

RANDOM = [kept_few]
LARGE = [large]
PLANTED = {
    "nms gather: past the end": Bug(
        _NMS, "  if (i < sorted.n) {\n    const int64_t input", "  {\n    const int64_t input", kept, BOTH
    ),
    "nms gather: vote of a part of the warp": Bug(
        _NMS,
        "  bool is_struck = false;\n  if (i < sorted.n) {",
        "  bool is_struck = false;\n  if (i >= sorted.n) return;\n  {",
        kept,
        BOTH,
    ),
    "nms mask: no barrier": Bug(
        _NMS, "  __syncthreads();\n  if (row >= sorted.n) return;", "  if (row >= sorted.n) return;", kept
    ),
    "nms mask: past the columns": Bug(_NMS, "  if (column < sorted.n) {\n    columns", "  {\n    columns", kept, BOTH),
    "nms mask: all columns of the row's own tile": Bug(
        _NMS, "is_own ? thread : tile_columns", "is_own ? kNmsTile : tile_columns", kept
    ),
    "nms sweep: no barrier before the merge": Bug(
        _NMS, "= struck_by_rows;\n    __syncthreads();", "= struck_by_rows;", kept
    ),
    "nms sweep: strikes overwritten": Bug(
        _NMS,
        "strikes[w % 2][thread / kWarpSize] = struck_by_rows;",
        "strikes[w & 0][thread / kWarpSize] = struck_by_rows;",
        kept,
    ),
    "nms sweep: rows of another tile": Bug(
        _NMS, "row < w * kNmsTile ? tile[row]", "row < (w + 1) * kNmsTile ? tile[row]", kept
    ),
    "nms sweep: suppressors that are not decided yet": Bug(
        _NMS, "const uint64_t not_suppressed = alive | kept;", "const uint64_t not_suppressed = kept;", kept
    ),
    "nms suppress: count of a warp": Bug(
        _NMS, "= __popc(kept_lanes);\n  __syncthreads();", "= __popc(kept_lanes);", kept
    ),
    "nms suppress: no barrier": Bug(
        _NMS,
        "  __syncthreads();\n  const int64_t column = first_column + thread;\n  const bool in_range",
        "  const int64_t column = first_column + thread;\n  const bool in_range",
        kept,
    ),
    "nms suppress: not atomic": Bug(
        _NMS, "atomicOr(&sorted.struck[column / 32], word);", "sorted.struck[column / 32] |= word;", kept
    ),
    "nms suppress: read while others write": Bug(
        _NMS, "before = atomicOr(&sorted.struck[column / 32], 0u);", "before = sorted.struck[column / 32];", kept
    ),
    "nms scatter: not atomic": Bug(
        _NMS,
        "atomicOr(&by_score[rank[i] / 32], 1u << (rank[i] % 32));",
        "by_score[rank[i] / 32] |= 1u << (rank[i] % 32);",
        kept,
    ),
    "nms compact: reduction reused": Bug(
        _NMS,
        "before = block_sum<kThreads>(before);\n  __syncthreads();",
        "before = block_sum<kThreads>(before);",
        kept,
    ),
    "nms compact: no barrier": Bug(
        _NMS, "  __syncthreads();\n  int64_t position = sums[0];", "  int64_t position = sums[0];", kept
    ),
    "nms compact: kept of the block's own words": Bug(
        _NMS, "at < first_word ? bits : 0u", "at <= first_word ? bits : 0u", kept_of_many
    ),
}
