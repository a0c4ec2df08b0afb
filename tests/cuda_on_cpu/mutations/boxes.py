"""Bugs in the kernels of box_iou/ and box_coding/."""

from __future__ import annotations

import torch
from inputs.boxes import random_boxes

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


def iou_gradient(device: Device) -> None:
    for n, m in ((70, 140), (650, 2)):  # the second has more tiles than lanes add them
        a, b, grad = random_boxes(n)[None], random_boxes(m)[None], torch.randn(1, n, m)
        exact = [boxes.clone().requires_grad_() for boxes in (a, b)]
        expected = torch.autograd.grad(reference.generalized_box_iou(*exact), exact, grad)
        got = emulated.box_iou_backward(device, grad, a, b, name="generalized_box_iou")
        for mine, right in zip(got, expected, strict=True):
            assert mine is not None and torch.allclose(mine, right, rtol=1e-4, atol=1e-6)


_IOU = "box_iou/box_iou_kernels.cuh"
_IOU_GRADIENT = "box_iou/box_iou_grad_kernels.cuh"
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
    "IoU gradient: rows are read before they are there": Mutation(
        "box_iou", _IOU_GRADIENT, "  __syncthreads();\n  for (int r = 0;", "  for (int r = 0;", iou_gradient
    ),
    "IoU gradient: rows are added before they are there": Mutation(
        "box_iou", _IOU_GRADIENT, "return;\n  __syncthreads();\n  double* to", "return;\n  double* to", iou_gradient
    ),
    "IoU gradient: columns past the last count": Mutation(
        "box_iou", _IOU_GRADIENT, "exists ? -grad[r * a.m] : A(0)", "-grad[r * a.m]", iou_gradient, BOTH
    ),
    "IoU gradient: columns past the last are written": Mutation(
        "box_iou", _IOU_GRADIENT, "a.column_sums != nullptr && exists", "a.column_sums != nullptr", iou_gradient, BOTH
    ),
    "IoU gradient: rows past the last": Mutation(
        "box_iou", _IOU_GRADIENT, "i < 4 * count; i +=", "i < 4 * kIouGradRows; i +=", iou_gradient, BOTH
    ),
    "IoU gradient: coordinates exchanged": Mutation(
        "box_iou", _IOU_GRADIENT, "upper ? x1 : x2, 16", "upper ? x2 : x1, 16", iou_gradient, BOTH
    ),
    "IoU gradient: the first tiles alone": Mutation(
        "box_iou", _IOU_GRADIENT, "tile < tiles; tile +=", "tile < tiles && tile < 1; tile +=", iou_gradient, BOTH
    ),
    "IoU gradient: half of the lanes": Mutation(
        "box_iou", _IOU_GRADIENT, "offset < kWarpSize; offset *= 2", "offset < 16; offset *= 2", iou_gradient, BOTH
    ),
    "coding: past the end": Mutation("box_coding", _CODING, "  if (i >= a.n) return;\n", "", coding, BOTH),
}
