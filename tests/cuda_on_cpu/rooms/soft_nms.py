"""soft_nms/ on an emulated device."""

from __future__ import annotations

import torch
from inputs.boxes import random_boxes
from torch import Tensor

from retina_ops import reference

from ..arguments import arithmetic, limits, output
from ..device import Array, Device, Field
from ..room import BOTH, Bug


def soft_nms(
    device: Device,
    boxes: Tensor,
    scores: Tensor,
    threshold: float,
    method: str = "linear",
    sigma: float = 0.5,
    min_score: float = 0.001,
    classes: Tensor | None = None,
    *,
    offset: int = 0,
    first: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Kept indices, decayed scores and decays; sorted as the operator sorts them. first: index of the first box."""
    n, dtype = len(boxes), arithmetic(boxes.dtype, scores.dtype)
    rank = classes.sort(stable=True).indices if classes is not None else None
    taken = {name: torch.empty(n, dtype=dtype) for name in ("taken_scores", "taken_decays")}
    count = torch.zeros((), dtype=torch.int64)
    dtypes: dict[str, Field] = {"box_dtype": boxes.dtype, "score_dtype": scores.dtype}

    def workspace(dtype: torch.dtype, *more: int) -> Array:
        return output(torch.empty(n, *more, dtype=dtype), first=first)

    fields = dtypes | {
        "boxes": Array(boxes, offset=offset, first=first),
        "scores": Array(scores, first=first),
        "classes": Array(classes, first=first) if classes is not None else None,
        "rank": Array(rank + first, first=first) if rank is not None else None,
        "threshold": threshold,
        "gaussian": method == "gaussian",
        "sigma": sigma,
        "min_score": min_score,
        "n": first + n,
        "slot_boxes": workspace(dtype, 4),
        "slot_scores": workspace(dtype),
        "slot_decays": workspace(dtype),
        "slot_inputs": workspace(torch.int64),
        "slot_classes": workspace(torch.int64) if classes is not None else None,
        "segment_starts": output(torch.empty(n, dtype=torch.int64)),
        "segments": torch.zeros((), dtype=torch.int32),
        **{name: output(tensor, first=first) for name, tensor in taken.items()},
        "count": count,
        "limits": limits(first),
    }
    device.launch("launch_soft_nms", fields)
    size = int(count)
    keep = taken["taken_scores"].sort(stable=True, descending=True).indices[:size].contiguous()
    decayed, decays = torch.empty(size, dtype=scores.dtype), torch.empty(size, dtype=dtype)
    if size > 0:
        written = dtypes | {
            **{name: Array(tensor, first=first) for name, tensor in taken.items()},
            "order": keep + first,
            "size": size,
            "out_scores": output(decayed),
            "out_decays": output(decays),
        }
        device.launch("launch_soft_nms_write", written)
    return keep, decayed, decays


def check_against_operator(
    device: Device,
    boxes: Tensor,
    scores: Tensor,
    threshold: float = 0.3,
    method: str = "linear",
    sigma: float = 0.5,
    min_score: float = 0.001,
    classes: Tensor | None = None,
    *,
    offset: int = 0,
    first: int = 0,
) -> int:
    """The results of the CPU operator bit by bit, decays included. Returns the number of kept boxes."""
    got = soft_nms(device, boxes, scores, threshold, method, sigma, min_score, classes, offset=offset, first=first)
    expected = torch.ops.retina_ops.soft_nms(boxes, scores, classes, threshold, method == "gaussian", sigma, min_score)
    for found, right in zip(got, expected, strict=True):
        assert found.dtype == right.dtype and torch.equal(found, right)
    return len(got[0])


def taken(device: Device) -> None:
    for groups in (1, 3):
        boxes, scores = random_boxes(300, high=200), (torch.rand(300) * 64).round() / 64
        classes = torch.randint(0, groups, (300,)) if groups > 1 else None
        keep, decayed, decays = soft_nms(device, boxes, scores, 0.2, min_score=0.3, classes=classes)
        expected = reference.soft_nms(boxes, scores, 0.2, min_score=0.3, idxs=classes)
        assert torch.equal(keep, expected[0]) and torch.equal(decayed, expected[1])
        assert torch.equal(scores[keep] * decays, decayed)


def taken_few(device: Device) -> None:
    boxes, scores, classes = random_boxes(50, width=300, height=300), torch.rand(50), torch.randint(0, 3, (50,))
    check_against_operator(device, boxes, scores, 0.1, "gaussian", classes=classes)
    check_against_operator(device, boxes, scores, 0.1, min_score=0.4)


def taken_of_many_segments(device: Device) -> None:
    """More segments than blocks, so that a block processes several."""
    boxes, scores, classes = random_boxes(600), torch.rand(600), torch.arange(600) % 530
    check_against_operator(device, boxes, scores, 0.0, classes=classes)


def large(device: Device) -> None:
    boxes, scores, classes = random_boxes(150), torch.rand(150), torch.randint(0, 3, (150,))
    check_against_operator(device, boxes, scores, 0.1, first=2**31 + 5)
    check_against_operator(device, boxes, scores, 0.1, "gaussian", classes=classes, first=2**31 + 5)


_KERNELS = "soft_nms/soft_nms_kernels.cuh"

RANDOM = [taken_few]
LARGE = [large]
PLANTED = {
    "soft_nms gather: past the end": Bug(_KERNELS, "  if (i >= slots.n) return;\n", "", taken, BOTH),
    "soft_nms gather: segments counted without an atomic": Bug(
        _KERNELS, "atomicAdd(slots.segments, 1)", "(*slots.segments)++", taken
    ),
    "soft_nms take: no barrier": Bug(_KERNELS, "      __syncthreads();\n", "", taken),
    "soft_nms take: one buffer for all steps": Bug(_KERNELS, "      parity ^= 1;\n", "", taken),
    "soft_nms take: one buffer for two segments": Bug(
        _KERNELS, "    parity ^= 1;\n    if (thread", "    if (thread", taken_of_many_segments
    ),
    "soft_nms take: count without an atomic": Bug(
        _KERNELS,
        "atomicAdd(reinterpret_cast<unsigned long long*>(slots.count), static_cast<unsigned long long>(taken));",
        "*slots.count += taken;",
        taken,
    ),
    "soft_nms take: a dropped box stays": Bug(_KERNELS, "!(score >= rule.min_score)", "false", taken, BOTH),
    "soft_nms take: the last box is lost": Bug(
        _KERNELS, "move_slot(slots, slot_of(own, --left), best_slot);", "--left;", taken, BOTH
    ),
    "soft_nms take: segments run into each other": Bug(
        _KERNELS, "slots.classes[middle] == slots.classes[start]", "true", taken, BOTH
    ),
    "soft_nms take: ties to the higher index": Bug(_KERNELS, "input < other_input", "input > other_input", taken, BOTH),
    "soft_nms take: boxes of other threads": Bug(
        _KERNELS, "(end - own + kThreads - 1) / kThreads", "end - own", taken, BOTH
    ),
    "soft_nms write: past the end": Bug(
        _KERNELS, "if (i >= count) return;", "if (i > count) return;", taken, ("sanitizers",)
    ),
}
