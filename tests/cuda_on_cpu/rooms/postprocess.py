"""postprocess/ on an emulated device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from inputs.heads import channels_last, head_outputs
from torch import Tensor

from retina_ops import reference
from retina_ops.ops._head_outputs import as_levels
from retina_ops.reference.head_outputs import by_anchor

from ..arguments import arithmetic, head_levels, limits, output
from ..device import Array, Device
from ..room import Bug

_BINS = 2048  # kPostprocessBins
_SIZES = [(70, 90), (60, 96)]
_OUTPUTS = ("boxes", "scores", "labels", "counts", "indices")
Outputs = tuple[Tensor, ...]


def postprocess(
    device: Device,
    cls_logits: Sequence[Tensor],
    bbox_regression: Sequence[Tensor],
    anchors: Tensor,
    image_sizes: Sequence[tuple[int, int]],
    *,
    score_thresh: float = 0.05,
    topk_candidates: int = 1000,
    nms_thresh: float = 0.5,
    detections_per_img: int = 300,
    bbox_reg_weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    offset: int = 0,
    first: int = 0,
) -> Outputs:
    """Boxes, scores, labels, counts and indices of the anchors.

    offset: elements that each level of logits lies past a 16-byte boundary; first: index of the first image.
    """
    logits, deltas = as_levels("postprocess", cls_logits, bbox_regression)
    batch, count, d = logits[0].shape[0], len(logits), detections_per_img
    box_dtype = torch.promote_types(anchors.dtype, torch.promote_types(deltas[0].dtype, torch.float32))
    score_dtype = arithmetic(logits[0].dtype)
    topk = min(topk_candidates, max(level[0].numel() for level in logits))
    key_bytes, state_bytes = (16, 48) if score_dtype == torch.float64 else (8, 32)
    capacity = 32768 // key_bytes
    while capacity < 2 * topk:
        capacity *= 2

    def workspace(*shape: int, dtype: torch.dtype) -> Array:
        return output(torch.empty(batch, count, *shape, dtype=dtype), first=first)

    outputs = (
        torch.empty(batch, d, 4, dtype=box_dtype),
        torch.empty(batch, d, dtype=score_dtype),
        torch.empty(batch, d, dtype=torch.int64),
        torch.empty(batch, dtype=torch.int64),
        torch.empty(batch, d, dtype=torch.int64),
    )
    fields = {
        "logits": head_levels(logits, offset=offset, first=first),
        "deltas": head_levels(deltas, offset=offset, first=first),
        "anchors": anchors.to(box_dtype),
        "image_sizes": Array(torch.tensor(image_sizes, dtype=box_dtype), first=first),
        "box_dtype": box_dtype,
        "score_threshold": score_thresh,
        "topk": topk,
        "nms_threshold": nms_thresh,
        "detections": d,
        "weights": bbox_reg_weights,
        **{name: output(tensor, first=first) for name, tensor in zip(_OUTPUTS, outputs, strict=True)},
        "capacity": capacity,
        "states": Array(torch.zeros(batch, count, state_bytes, dtype=torch.uint8), first=first),
        "bins": Array(torch.zeros(batch, count, _BINS, dtype=torch.int32), first=first),
        "keys": workspace(capacity, key_bytes, dtype=torch.uint8),
        "candidates": workspace(topk, 4, dtype=box_dtype),
        "candidate_scores": workspace(topk, dtype=score_dtype),
        "candidate_labels": workspace(topk, dtype=torch.int32),
        "candidate_indices": workspace(topk, dtype=torch.int64),
        "limits": limits(first),
    }
    device.launch("launch_postprocess", fields)
    return outputs


def check(device: Device, arguments: tuple, *, offset: int = 0, **options: float) -> Tensor:
    """Compares with the reference; returns the counts."""
    boxes, scores, labels, counts, indices = postprocess(device, *arguments, offset=offset, **options)
    expected = reference.postprocess(*arguments, **options)
    assert torch.equal(counts, expected[3]) and torch.equal(labels, expected[2])
    wide = scores.dtype == torch.float64
    torch.testing.assert_close(scores, expected[1], rtol=1e-14 if wide else 0, atol=0)
    torch.testing.assert_close(boxes, expected[0], rtol=1e-5, atol=1e-3)
    check_indices(indices, labels, scores, arguments[0], arguments[1])
    return counts


def check_indices(
    indices: Tensor, labels: Tensor, scores: Tensor, cls_logits: Sequence[Tensor], bbox_regression: Sequence[Tensor]
) -> None:
    """The logit of each detection's anchor and class gives its score; -1 past the last detection."""
    is_detection = labels >= 0
    assert torch.equal(indices >= 0, is_detection) and bool((indices[~is_detection] == -1).all())
    rows = torch.cat(by_anchor(cls_logits, bbox_regression)[0], dim=1).to(scores.dtype)
    images = torch.arange(len(labels))[:, None].expand_as(labels)
    logits = rows[images[is_detection], indices[is_detection], labels[is_detection]]
    torch.testing.assert_close(logits.double().sigmoid().to(scores.dtype), scores[is_detection], rtol=1e-6, atol=0)


def trained(device: Device) -> None:
    """Outputs of a trained network: candidates fit at once."""
    logits, deltas, anchors = head_outputs(2, 5)
    check(device, (logits, deltas, anchors, _SIZES), offset=1)
    check(device, (channels_last(logits), channels_last(deltas), anchors, _SIZES))


def crowded(device: Device) -> None:
    """More candidates than fit, with equal scores among them."""
    for kind in ("dense", "constant"):
        maps = head_outputs(2, 11, sizes=((33, 29), (3, 2)), kind=kind)
        check(device, (*maps, _SIZES), topk_candidates=1000, score_thresh=0.01)


def many(device: Device) -> None:
    """More candidates per block than it stages, but not more than fit; all are asked for."""
    maps = head_outputs(2, 2, sizes=((21, 20), (2, 2)), kind="dense")
    check(device, (*maps, _SIZES), topk_candidates=2048, detections_per_img=2000, nms_thresh=0.7)


def small(device: Device) -> None:
    """Candidates arrive in any order and any block of a slab may be the last; the results are the same."""
    for kind in ("trained", "ties"):
        maps = head_outputs(1, 11, sizes=((22, 21), (3, 2)), kind=kind)
        check(device, (*maps, _SIZES[:1]), topk_candidates=100)


def large(device: Device) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        maps = head_outputs(2, 11, sizes=((20, 21), (3, 2)), kind="dense", dtype=dtype)
        near, far = (postprocess(device, *maps, _SIZES, first=first) for first in (0, 2**31 // 66 + 1))
        for found, right in zip(far, near, strict=True):
            assert torch.equal(found, right)


_SELECT = "postprocess/postprocess_select.cuh"
_DETECT = "postprocess/postprocess_detect.cuh"
_RESULT = ("sanitizers",)  # a wrong result, which the race checker does not see

RANDOM = [small]
LARGE = [large]
PLANTED = {
    "postprocess scan: before the slab": Bug(
        _SELECT,
        "for (int i = static_cast<int>(lead); i < kPack",
        "for (int i = 0; i < kPack",
        trained,
        _RESULT,
    ),
    "postprocess scan: past the strip": Bug(
        _SELECT, "logits[i] >= args.bound && at + i < end", "logits[i] >= args.bound", crowded, _RESULT
    ),
    "postprocess scan: the last strip is moved too": Bug(
        _SELECT,
        "strip.end == strip.size ? strip.size : strip.end - lead",
        "strip.end - lead",
        trained,
        _RESULT,
    ),
    "postprocess scan: planes as rows": Bug(
        "postprocess/postprocess.h",
        "if (!level.is_planar) return offset;",
        "return offset;",
        trained,
        _RESULT,
    ),
    "postprocess collect: count is not cleared": Bug(
        _SELECT,
        "  if (threadIdx.x == 0) count = 0;\n  __syncthreads();\n  for_each",
        "  if (threadIdx.x == 0) count = 0;\n  for_each",
        trained,
    ),
    "postprocess collect: no barrier before the total": Bug(
        _SELECT, "  __syncthreads();\n  const unsigned total", "  const unsigned total", trained
    ),
    "postprocess collect: no barrier after the start": Bug(
        _SELECT,
        "atomicAdd(&state.found, total);\n  __syncthreads();",
        "atomicAdd(&state.found, total);",
        trained,
    ),
    "postprocess collect: past the stage": Bug(
        _SELECT, "if (position < kPostprocessStaged) staged", "staged", many, _RESULT
    ),
    "postprocess collect: past the capacity": Bug(
        _SELECT, "  if (start + total > args.capacity) return;\n", "", crowded, _RESULT
    ),
    "postprocess collect: slots are not atomic": Bug(
        _SELECT, "to[atomicAdd(&count, 1u)] = key", "to[count++] = key", many
    ),
    "postprocess narrow: counts are not atomic": Bug(
        _SELECT,
        "atomicAdd(&counts[static_cast<unsigned>(key >> shift) & mask], 1u)",
        "++counts[static_cast<unsigned>(key >> shift) & mask]",
        crowded,
    ),
    "postprocess narrow: bins are not atomic": Bug(
        _SELECT, "atomicAdd(&bins[i], counts[i])", "bins[i] += counts[i]", crowded
    ),
    "postprocess narrow: no barrier before counting": Bug(
        _SELECT, "  __syncthreads();\n  const int shift", "  const int shift", crowded
    ),
    "postprocess narrow: no barrier before the bins": Bug(
        _SELECT, "  __syncthreads();\n  unsigned* bins", "  unsigned* bins", crowded
    ),
    "postprocess narrow: bins are left": Bug(_SELECT, "    bins[thread * kEach + i] = 0;\n", "", crowded, _RESULT),
    "postprocess narrow: no barrier before the choice": Bug(
        _SELECT, "  __syncthreads();\n  if (thread != 0) return;", "  if (thread != 0) return;", crowded
    ),
    "postprocess narrow: no fence before the counter": Bug(
        _SELECT, "    __threadfence();\n    is_last", "    is_last", crowded
    ),
    "postprocess narrow: no fence after the counter": Bug(
        _SELECT, "    __threadfence();  // the other", "    // the other", crowded
    ),
    "postprocess narrow: one digit too few": Bug(
        _SELECT,
        "state.is_open = before + counts[bin] > capacity",
        "state.is_open = before + counts[bin] > 1000 * capacity",
        crowded,
        _RESULT,
    ),
    "postprocess sort: no barrier between steps": Bug(
        _DETECT,
        "      __syncthreads();\n    }\n  }\n  if constexpr",
        "    }\n  }\n  if constexpr",
        trained,
    ),
    "postprocess sort: padding is left": Bug(
        _DETECT, "sorted[i] = i < count ? own[i] : KeyOf<S>(0);", "sorted[i] = own[i];", trained, _RESULT
    ),
    "postprocess decode: past the candidates": Bug(
        _DETECT,
        "state.found < topk ? state.found : topk",
        "state.found < topk ? topk : topk",
        trained,
        _RESULT,
    ),
    "postprocess decode: equal scores of levels collide": Bug(
        _DETECT,
        "other < level ? score_alone : score_alone + (KeyOf<S>(1) << 32)",
        "score_alone",
        crowded,
        _RESULT,
    ),
    "postprocess nms: no barrier after loading": Bug(
        _DETECT, "    __syncthreads();\n    const int column", "    const int column", trained
    ),
    "postprocess nms: no barrier before the walk": Bug(
        _DETECT, "    __syncthreads();\n    if (thread == 0) {", "    if (thread == 0) {", trained
    ),
    "postprocess nms: no barrier after the walk": Bug(
        _DETECT, "    __syncthreads();\n    const uint64_t chosen", "    const uint64_t chosen", trained
    ),
    "postprocess nms: past the tile": Bug(
        _DETECT, "bool is_struck = column >= width", "bool is_struck = false", trained, _RESULT
    ),
    "postprocess nms: past the detections": Bug(_DETECT, "alive != 0 && left > 0", "alive != 0", crowded, _RESULT),
}
