"""Bugs in the kernels of box_iou/ and box_coding/."""

from __future__ import annotations

import torch
from boxes import random_boxes

from retina_ops import reference

from .. import operators as emulated
from ..device import Device
from .plan import BOTH, Mutation


def iou(device: Device) -> None:
    first, second = random_boxes(50)[None], random_boxes(519)[None]
    assert torch.equal(emulated.box_iou(device, first, second)[0], reference.box_iou(first[0], second[0]))


def coding(device: Device) -> None:
    boxes, proposals = random_boxes(300), random_boxes(300)
    got = emulated.box_coding(device, "encode", boxes, proposals)[0]
    assert torch.allclose(got, reference.encode_boxes(boxes, proposals), rtol=1e-4, atol=1e-5)


_IOU = "box_iou/box_iou_kernels.cuh"
_CODING = "box_coding/box_coding_kernels.cuh"
MUTATIONS = {
    "iou: no barrier": Mutation(
        "box_iou", _IOU, "  __syncthreads();\n  if (column >= m) return;", "  if (column >= m) return;", iou
    ),
    "iou: past the rows": Mutation(
        "box_iou", _IOU, "if (threadIdx.x < static_cast<unsigned>(count)) {", "if (threadIdx.x < kIouRows) {", iou, BOTH
    ),
    "iou: all rows of the last tile": Mutation(
        "box_iou", _IOU, "for (int r = 0; r < count; ++r) {", "for (int r = 0; r < kIouRows; ++r) {", iou, BOTH
    ),
    "coding: past the end": Mutation("box_coding", _CODING, "  if (i >= a.n) return;\n", "", coding, BOTH),
}
