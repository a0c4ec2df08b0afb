"""Bugs in the kernels of postprocess/."""

from __future__ import annotations

import torch
from inputs.heads import channels_last, head_outputs

from retina_ops import reference

from .. import operators as emulated
from ..device import Device
from .plan import Mutation

_IMAGES = [(70, 90), (60, 96)]


def _check(device: Device, maps: tuple, offset: int = 0, **options: float) -> None:
    got = emulated.postprocess(device, *maps, _IMAGES, offset=offset, **options)
    expected = reference.postprocess(*maps, _IMAGES, **options)
    assert torch.equal(got[3], expected[3]) and torch.equal(got[2], expected[2])
    assert torch.equal(got[1], expected[1])
    torch.testing.assert_close(got[0], expected[0], rtol=1e-5, atol=1e-3)


def trained(device: Device) -> None:
    logits, deltas, anchors = head_outputs(2, 5)
    _check(device, (logits, deltas, anchors), offset=1)
    _check(device, (channels_last(logits), channels_last(deltas), anchors))


def crowded(device: Device) -> None:
    """More candidates than fit, equal scores among them."""
    for kind in ("dense", "constant"):
        _check(device, head_outputs(2, 11, sizes=((33, 29), (3, 2)), kind=kind), topk=1000, score_threshold=0.01)


def many(device: Device) -> None:
    """More candidates of a block than it stages, but not more than fit; all are asked for."""
    maps = head_outputs(2, 2, sizes=((21, 20), (2, 2)), kind="dense")
    _check(device, maps, topk=2048, detections_per_image=2000, nms_threshold=0.7)


_SELECT = "postprocess/postprocess_select.cuh"
_DETECT = "postprocess/postprocess_detect.cuh"
RESULT = ("sanitizers",)
MUTATIONS = {
    "postprocess scan: before the slab": Mutation(
        "postprocess",
        _SELECT,
        "for (int i = static_cast<int>(lead); i < kPack",
        "for (int i = 0; i < kPack",
        trained,
        RESULT,
    ),
    "postprocess scan: past the strip": Mutation(
        "postprocess", _SELECT, "logits[i] >= a.bound && at + i < end", "logits[i] >= a.bound", crowded, RESULT
    ),
    "postprocess scan: the last strip is moved too": Mutation(
        "postprocess",
        _SELECT,
        "strip.end == strip.size ? strip.size : strip.end - lead",
        "strip.end - lead",
        trained,
        RESULT,
    ),
    "postprocess scan: planes as rows": Mutation(
        "postprocess",
        "postprocess/postprocess.h",
        "if (!level.is_planar) return offset;",
        "return offset;",
        trained,
        RESULT,
    ),
    "postprocess collect: count is not cleared": Mutation(
        "postprocess",
        _SELECT,
        "  if (threadIdx.x == 0) count = 0;\n  __syncthreads();\n  for_each",
        "  if (threadIdx.x == 0) count = 0;\n  for_each",
        trained,
    ),
    "postprocess collect: no barrier before the total": Mutation(
        "postprocess", _SELECT, "  __syncthreads();\n  const unsigned total", "  const unsigned total", trained
    ),
    "postprocess collect: no barrier after the start": Mutation(
        "postprocess",
        _SELECT,
        "atomicAdd(&state.found, total);\n  __syncthreads();",
        "atomicAdd(&state.found, total);",
        trained,
    ),
    "postprocess collect: past the stage": Mutation(
        "postprocess", _SELECT, "if (position < kPostprocessStaged) staged", "staged", many, RESULT
    ),
    "postprocess collect: past the capacity": Mutation(
        "postprocess", _SELECT, "  if (start + total > a.capacity) return;\n", "", crowded, RESULT
    ),
    "postprocess collect: slots are not atomic": Mutation(
        "postprocess", _SELECT, "to[atomicAdd(&count, 1u)] = key", "to[count++] = key", many
    ),
    "postprocess narrow: counts are not atomic": Mutation(
        "postprocess",
        _SELECT,
        "atomicAdd(&counts[static_cast<unsigned>(key >> shift) & mask], 1u)",
        "++counts[static_cast<unsigned>(key >> shift) & mask]",
        crowded,
    ),
    "postprocess narrow: bins are not atomic": Mutation(
        "postprocess", _SELECT, "atomicAdd(&bins[i], counts[i])", "bins[i] += counts[i]", crowded
    ),
    "postprocess narrow: no barrier before counting": Mutation(
        "postprocess", _SELECT, "  __syncthreads();\n  const int shift", "  const int shift", crowded
    ),
    "postprocess narrow: no barrier before the bins": Mutation(
        "postprocess", _SELECT, "  __syncthreads();\n  unsigned* bins", "  unsigned* bins", crowded
    ),
    "postprocess narrow: bins are left": Mutation(
        "postprocess", _SELECT, "    bins[thread * kEach + i] = 0;\n", "", crowded, RESULT
    ),
    "postprocess narrow: no barrier before the choice": Mutation(
        "postprocess", _SELECT, "  __syncthreads();\n  if (thread != 0) return;", "  if (thread != 0) return;", crowded
    ),
    "postprocess narrow: no fence before the counter": Mutation(
        "postprocess", _SELECT, "    __threadfence();\n    is_last", "    is_last", crowded
    ),
    "postprocess narrow: no fence after the counter": Mutation(
        "postprocess", _SELECT, "    __threadfence();  // the other", "    // the other", crowded
    ),
    "postprocess narrow: one digit too few": Mutation(
        "postprocess",
        _SELECT,
        "state.is_open = before + counts[bin] > capacity",
        "state.is_open = before + counts[bin] > 1000 * capacity",
        crowded,
        RESULT,
    ),
    "postprocess sort: no barrier between steps": Mutation(
        "postprocess",
        _DETECT,
        "      __syncthreads();\n    }\n  }\n  if constexpr",
        "    }\n  }\n  if constexpr",
        trained,
    ),
    "postprocess sort: padding is left": Mutation(
        "postprocess", _DETECT, "sorted[i] = i < count ? own[i] : KeyOf<S>(0);", "sorted[i] = own[i];", trained, RESULT
    ),
    "postprocess decode: past the candidates": Mutation(
        "postprocess",
        _DETECT,
        "state.found < topk ? state.found : topk",
        "state.found < topk ? topk : topk",
        trained,
        RESULT,
    ),
    "postprocess decode: equal scores of levels collide": Mutation(
        "postprocess",
        _DETECT,
        "other < level ? score_alone : score_alone + (KeyOf<S>(1) << 32)",
        "score_alone",
        crowded,
        RESULT,
    ),
    "postprocess nms: no barrier after loading": Mutation(
        "postprocess", _DETECT, "    __syncthreads();\n    const int column", "    const int column", trained
    ),
    "postprocess nms: no barrier before the walk": Mutation(
        "postprocess", _DETECT, "    __syncthreads();\n    if (thread == 0) {", "    if (thread == 0) {", trained
    ),
    "postprocess nms: no barrier after the walk": Mutation(
        "postprocess", _DETECT, "    __syncthreads();\n    const uint64_t chosen", "    const uint64_t chosen", trained
    ),
    "postprocess nms: past the tile": Mutation(
        "postprocess", _DETECT, "bool is_struck = column >= width", "bool is_struck = false", trained, RESULT
    ),
    "postprocess nms: past the detections": Mutation(
        "postprocess", _DETECT, "alive != 0 && left > 0", "alive != 0", crowded, RESULT
    ),
}
