"""box_iou/ on an emulated device."""

from __future__ import annotations

import torch
from inputs.boxes import random_boxes
from torch import Tensor

from retina_ops import reference

from ..arguments import arithmetic, limits, output
from ..device import Array, Device, Field
from ..room import BOTH, Bug

KINDS = ("generalized_box_iou", "distance_box_iou", "complete_box_iou", "box_iou")  # IouKind
_GRAD_ROWS, _GRAD_COLUMNS = 64, 128  # of a tile: kIouGradRows and kIouThreads


def box_iou(
    device: Device, boxes1: Tensor, boxes2: Tensor, *, name: str = "box_iou", offset: int = 0, first: int = 0
) -> Tensor:
    """[batch, n, 4] and [batch, m, 4] to [batch, n, m]. first: index of the first image."""
    iou = torch.empty(boxes1.shape[0], boxes1.shape[1], boxes2.shape[1], dtype=arithmetic(boxes1.dtype))
    fields = {
        **_forward(boxes1, boxes2, name, offset, first),
        "iou": output(iou, first=first),
        "batch": first + len(boxes1),
        "limits": limits(first),
    }
    device.launch("launch_box_iou", fields)
    return iou


def box_iou_backward(
    device: Device,
    grad: Tensor,
    boxes1: Tensor,
    boxes2: Tensor,
    *,
    name: str = "box_iou",
    wanted: tuple[bool, bool] = (True, True),
    first: int = 0,
    offset: int = 0,
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients by those boxes that are wanted. first: index of the first image; above 0, for one tile alone."""
    grads = [torch.empty_like(boxes) if flag else None for boxes, flag in zip((boxes1, boxes2), wanted, strict=True)]
    tiles = (-(-boxes2.shape[1] // _GRAD_COLUMNS), -(-boxes1.shape[1] // _GRAD_ROWS))
    # Sums [tiles, batch, boxes, 4]. The images of one tile are its rows.
    sums = [
        output(torch.empty(count * len(each), *each.shape[1:], dtype=torch.float64), first=first)
        if each is not None
        else None
        for each, count in zip(grads, tiles, strict=True)
    ]
    outputs = [output(each, first=first) if each is not None else None for each in grads]
    fields = {
        "forward": _forward(boxes1, boxes2, name, offset, first),
        "grad": Array(grad, first=first),
        "batch": first + len(boxes1),
        "row_sums": sums[0],
        "column_sums": sums[1],
        "grad1": outputs[0],
        "grad2": outputs[1],
        "limits": limits(first),
    }
    device.launch("launch_box_iou_grad", fields)
    return grads[0], grads[1]


def _forward(boxes1: Tensor, boxes2: Tensor, name: str, offset: int, first: int) -> dict[str, Field]:
    return {
        "boxes1": Array(boxes1, offset=offset, first=first),
        "boxes2": Array(boxes2, first=first),
        "dtype": boxes1.dtype,
        "n": boxes1.shape[1],
        "m": boxes2.shape[1],
        "kind": KINDS.index(name),
        "eps": 1e-7 if name in ("distance_box_iou", "complete_box_iou") else 0.0,
    }


def iou(device: Device) -> None:
    boxes1, boxes2 = random_boxes(50)[None], random_boxes(519)[None]
    assert torch.equal(box_iou(device, boxes1, boxes2)[0], reference.box_iou(boxes1[0], boxes2[0]))


def gradient(device: Device) -> None:
    for n, m in ((70, 140), (650, 2)):  # the second has more tiles than lanes that add them
        a, b, grad = random_boxes(n)[None], random_boxes(m)[None], torch.randn(1, n, m)
        exact = [boxes.clone().requires_grad_() for boxes in (a, b)]
        expected = torch.autograd.grad(reference.generalized_box_iou(*exact), exact, grad)
        got = box_iou_backward(device, grad, a, b, name="generalized_box_iou")
        for found, right in zip(got, expected, strict=True):
            assert found is not None and torch.allclose(found, right, rtol=1e-4, atol=1e-6)


def gradient_does_not_depend_on_the_schedule(device: Device) -> None:
    boxes = [torch.stack([random_boxes(n, low=24, width=300, height=300) for _ in range(2)]) for n in (70, 140)]
    grad = torch.randn(2, 70, 140)
    got = box_iou_backward(device, grad, *boxes, name="distance_box_iou")
    expected = box_iou_backward(device.forward(), grad, *boxes, name="distance_box_iou")
    for found, right in zip(got, expected, strict=True):
        assert found is not None and right is not None and torch.equal(found, right)


def large(device: Device) -> None:
    a, b, grad = random_boxes(40)[None], random_boxes(100)[None], torch.randn(1, 40, 100)
    first = 2**31 // 40 + 1
    for name in ("box_iou", "complete_box_iou"):
        assert torch.equal(box_iou(device, a, b, name=name, first=first), box_iou(device, a, b, name=name))
    far, near = box_iou_backward(device, grad, a, b, first=first), box_iou_backward(device, grad, a, b)
    for found, right in zip(far, near, strict=True):
        assert found is not None and right is not None and torch.equal(found, right)


_IOU = "box_iou/box_iou_kernels.cuh"
_GRADIENT = "box_iou/box_iou_grad_kernels.cuh"

RANDOM = [iou, gradient_does_not_depend_on_the_schedule]
LARGE = [large]
PLANTED = {
    "iou: no barrier": Bug(_IOU, "  __syncthreads();\n  if (column >= m) return;", "  if (column >= m) return;", iou),
    "iou: past the rows": Bug(
        _IOU, "if (threadIdx.x < static_cast<unsigned>(count)) {", "if (threadIdx.x < kIouRows) {", iou, BOTH
    ),
    "iou: all rows of the last tile": Bug(
        _IOU, "for (int r = 0; r < count; ++r) {", "for (int r = 0; r < kIouRows; ++r) {", iou, BOTH
    ),
    "IoU gradient: rows are read before they are written": Bug(
        _GRADIENT, "  __syncthreads();\n  for (int r = 0;", "  for (int r = 0;", gradient
    ),
    "IoU gradient: rows are added before they are written": Bug(
        _GRADIENT, "return;\n  __syncthreads();\n  double* to", "return;\n  double* to", gradient
    ),
    "IoU gradient: columns past the last count": Bug(
        _GRADIENT, "exists ? -grad[r * args.m] : A(0)", "-grad[r * args.m]", gradient, BOTH
    ),
    "IoU gradient: columns past the last are written": Bug(
        _GRADIENT, "args.column_sums != nullptr && exists", "args.column_sums != nullptr", gradient, BOTH
    ),
    "IoU gradient: rows past the last": Bug(
        _GRADIENT, "i < 4 * count; i +=", "i < 4 * kIouGradRows; i +=", gradient, BOTH
    ),
    "IoU gradient: coordinates exchanged": Bug(_GRADIENT, "upper ? x1 : x2, 16", "upper ? x2 : x1, 16", gradient, BOTH),
    "IoU gradient: the first tiles alone": Bug(
        _GRADIENT, "tile < tiles; tile +=", "tile < tiles && tile < 1; tile +=", gradient, BOTH
    ),
    "IoU gradient: half of the lanes": Bug(
        _GRADIENT, "offset < kWarpSize; offset *= 2", "offset < 16; offset *= 2", gradient, BOTH
    ),
}
