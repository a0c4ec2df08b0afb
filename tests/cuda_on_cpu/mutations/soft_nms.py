"""Bugs in the kernels of soft_nms/."""

from __future__ import annotations

import torch
from inputs.boxes import random_boxes

from retina_ops import reference

from .. import operators as emulated
from ..device import Device
from .plan import BOTH, Mutation


def soft_nms(device: Device) -> None:
    for count, groups in ((300, 1), (300, 3)):
        boxes, scores = random_boxes(count, high=200), (torch.rand(count) * 64).round() / 64
        classes = torch.randint(0, groups, (count,)) if groups > 1 else None
        keep, decayed, decays = emulated.soft_nms(device, boxes, scores, 0.2, min_score=0.3, classes=classes)
        expected = reference.soft_nms(boxes, scores, 0.2, min_score=0.3, idxs=classes)
        assert torch.equal(keep, expected[0]) and torch.equal(decayed, expected[1])
        assert torch.equal(scores[keep] * decays, decayed)


def soft_nms_of_many_segments(device: Device) -> None:
    """More segments than blocks: a block goes from one to the next."""
    count = 600
    boxes, scores, classes = random_boxes(count), torch.rand(count), torch.arange(count) % 530
    keep, decayed, _ = emulated.soft_nms(device, boxes, scores, 0.0, classes=classes)
    expected = torch.ops.retina_ops.soft_nms(boxes, scores, classes, 0.0, False, 0.5, 0.001)
    assert torch.equal(keep, expected[0]) and torch.equal(decayed, expected[1])


_KERNELS = "soft_nms/soft_nms_kernels.cuh"
_RULE = "soft_nms/soft_nms.h"
MUTATIONS = {
    "soft_nms gather: past the end": Mutation(
        "soft_nms", _KERNELS, "  if (i >= slots.n) return;\n", "", soft_nms, BOTH
    ),
    "soft_nms gather: segments counted without an atomic": Mutation(
        "soft_nms", _KERNELS, "atomicAdd(slots.segments, 1)", "(*slots.segments)++", soft_nms
    ),
    "soft_nms take: no barrier": Mutation("soft_nms", _KERNELS, "      __syncthreads();\n", "", soft_nms),
    "soft_nms take: one buffer for all steps": Mutation("soft_nms", _KERNELS, "      parity ^= 1;\n", "", soft_nms),
    "soft_nms take: one buffer for two segments": Mutation(
        "soft_nms", _KERNELS, "    parity ^= 1;\n    if (thread", "    if (thread", soft_nms_of_many_segments
    ),
    "soft_nms take: count without an atomic": Mutation(
        "soft_nms",
        _KERNELS,
        "atomicAdd(reinterpret_cast<unsigned long long*>(slots.count), static_cast<unsigned long long>(taken));",
        "*slots.count += taken;",
        soft_nms,
    ),
    "soft_nms take: a dropped box stays": Mutation(
        "soft_nms", _KERNELS, "!(score >= rule.min_score)", "false", soft_nms, BOTH
    ),
    "soft_nms take: the last box is lost": Mutation(
        "soft_nms",
        _KERNELS,
        "move_slot(slots, slot_of(own, --left), best_slot);",
        "--left;",
        soft_nms,
        BOTH,
    ),
    "soft_nms take: segments run into each other": Mutation(
        "soft_nms", _KERNELS, "slots.classes[middle] == slots.classes[start]", "true", soft_nms, BOTH
    ),
    "soft_nms take: ties to the higher index": Mutation(
        "soft_nms", _KERNELS, "input < other_input", "input > other_input", soft_nms, BOTH
    ),
    "soft_nms take: boxes of other threads": Mutation(
        "soft_nms", _KERNELS, "(end - own + kThreads - 1) / kThreads", "end - own", soft_nms, BOTH
    ),
    "soft_nms write: past the end": Mutation(
        "soft_nms", _KERNELS, "if (i >= count) return;", "if (i > count) return;", soft_nms, ("sanitizers",)
    ),
}
