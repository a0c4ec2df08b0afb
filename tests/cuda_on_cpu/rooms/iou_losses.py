"""iou_losses/ on an emulated device, and bugs in the sum over a grid that its reduction uses."""

from __future__ import annotations

import torch
from inputs.boxes import random_boxes
from torch import Tensor

from retina_ops import reference

from ..arguments import arithmetic, limits, output
from ..device import Array, Device, Field
from ..room import BOTH, Bug

IOU_LOSSES = ("generalized_box_iou_loss", "distance_box_iou_loss", "complete_box_iou_loss")  # IouLoss
MAX_BLOCKS = 1024  # kIouLossMaxBlocks


def iou_loss(
    device: Device,
    name: str,
    boxes1: Tensor,
    boxes2: Tensor,
    *,
    upstream: Tensor | float | None = None,
    wanted: tuple[bool, bool] = (True, True),
    first: int = 0,
    offset: int = 0,
) -> tuple[Tensor | None, ...]:
    """The loss of each pair; or, with `upstream`, the gradients that are wanted. first: index of the first pair."""
    loss = torch.empty(len(boxes1), dtype=arithmetic(boxes1.dtype)) if upstream is None else None
    grads = _gradients(boxes1, boxes2, (upstream is not None and wanted[0], upstream is not None and wanted[1]))
    scalar = torch.tensor(upstream, dtype=torch.float64) if isinstance(upstream, float) else None
    fields = _fields(name, boxes1, boxes2, grads, offset, first) | {
        "loss": output(loss, first=first) if loss is not None else None,
        "upstream": Array(upstream, first=first) if isinstance(upstream, Tensor) else None,
        "upstream_scalar": scalar,
        "scale": 1.0,
        "limits": limits(first),
    }
    device.launch("launch_iou_loss", fields)
    return (loss,) if upstream is None else grads


def iou_loss_reduced(
    device: Device,
    name: str,
    boxes1: Tensor,
    boxes2: Tensor,
    *,
    scale: float = 1.0,
    wanted: tuple[bool, bool] = (True, False),
    first: int = 0,
    most_blocks: int = 3,
) -> tuple[Tensor | None, ...]:
    """`scale` times the sum of the losses, and its gradients. With few blocks, a thread computes several pairs."""
    result = torch.empty((), dtype=arithmetic(boxes1.dtype))
    done = torch.zeros(1, dtype=torch.int32)
    grads = _gradients(boxes1, boxes2, wanted)
    fields = _fields(name, boxes1, boxes2, grads, 0, first) | {
        "scale": scale,
        "partial": output(torch.empty(MAX_BLOCKS, dtype=torch.float64)),
        "done": done,
        "result": output(result),
        "limits": limits(first, most_blocks),
    }
    device.launch("launch_iou_loss", fields)
    assert done.item() == 0
    return result, *grads


def _gradients(boxes1: Tensor, boxes2: Tensor, wanted: tuple[bool, bool]) -> tuple[Tensor | None, ...]:
    return tuple(
        torch.empty_like(boxes) if flag else None for boxes, flag in zip((boxes1, boxes2), wanted, strict=True)
    )


def _fields(
    name: str, boxes1: Tensor, boxes2: Tensor, grads: tuple[Tensor | None, ...], offset: int, first: int
) -> dict[str, Field]:
    return {
        "kind": IOU_LOSSES.index(name),
        "eps": 1e-7,
        "boxes1": Array(boxes1, offset=offset, first=first),
        "dtype1": boxes1.dtype,
        "boxes2": Array(boxes2, first=first),
        "dtype2": boxes2.dtype,
        **{f"grad{i}": output(g, first=first) if g is not None else None for i, g in enumerate(grads, 1)},
        "n": first + len(boxes1),
    }


def elementwise(device: Device) -> None:
    a, b = random_boxes(300), random_boxes(300)
    exact = a.clone().requires_grad_()
    loss = reference.generalized_box_iou_loss(exact, b)
    (gradient,) = torch.autograd.grad(loss.sum(), exact)
    name = "generalized_box_iou_loss"
    (got,) = iou_loss(device, name, a, b)
    assert got is not None and torch.allclose(got, loss, atol=1e-5)
    got, none = iou_loss(device, name, a, b, upstream=torch.ones(300), wanted=(True, False))
    assert none is None and got is not None and torch.allclose(got, gradient, atol=1e-5)


def reduced(device: Device) -> None:
    a, b = random_boxes(1300), random_boxes(1300)
    exact = a.clone().requires_grad_()
    loss = reference.distance_box_iou_loss(exact, b).sum() * 0.5
    (gradient,) = torch.autograd.grad(loss, exact)
    total, got, _ = iou_loss_reduced(device, "distance_box_iou_loss", a, b, scale=0.5)
    assert total is not None and torch.allclose(total, loss, rtol=1e-5)
    assert got is not None and torch.allclose(got, gradient, atol=1e-5)


def sum_does_not_depend_on_the_schedule(device: Device) -> None:
    boxes = random_boxes(700, low=24)
    pairs = (boxes, boxes + torch.randn_like(boxes) * 4)
    expected = iou_loss_reduced(device.forward(), IOU_LOSSES[1], *pairs)
    for found, right in zip(iou_loss_reduced(device, IOU_LOSSES[1], *pairs), expected, strict=True):
        assert (found is None) == (right is None) and (found is None or torch.equal(found, right))


def large(device: Device) -> None:
    boxes, name, first = random_boxes(300, low=24), IOU_LOSSES[0], 2**31 + 4
    pairs = (boxes, boxes + torch.randn_like(boxes) * 4)
    near = (*iou_loss(device, name, *pairs), *iou_loss_reduced(device, name, *pairs, wanted=(True, True)))
    far = (
        *iou_loss(device, name, *pairs, first=first),
        *iou_loss_reduced(device, name, *pairs, wanted=(True, True), first=first),
    )
    for found, right in zip(far, near, strict=True):
        assert found is not None and right is not None and torch.equal(found, right)


_KERNELS = "iou_losses/iou_losses_kernels.cuh"
_BLOCK = "common/block.cuh"

RANDOM = [elementwise, sum_does_not_depend_on_the_schedule]
LARGE = [large]
PLANTED = {
    "IoU loss: past the end": Bug(_KERNELS, "  if (i >= args.n) return;\n", "", elementwise, BOTH),
    "IoU loss: a gradient that is not wanted": Bug(
        _KERNELS, "if (args.grad2 != nullptr) ", "", elementwise, ("sanitizers",)
    ),
    "IoU loss: the scale is not in the gradient": Bug(
        _KERNELS,
        "store_gradients(args, i, terms, static_cast<A>(args.scale))",
        "store_gradients(args, i, terms, A(1))",
        reduced,
        BOTH,
    ),
    "grid sum: no barrier before the last block is known": Bug(
        _BLOCK, "  __syncthreads();\n  if (!is_last) return false;", "  if (!is_last) return false;", reduced
    ),
    "grid sum: no fence after a block's sum": Bug(_BLOCK, "    __threadfence();\n    is_last", "    is_last", reduced),
    "grid sum: no fence before the blocks' sums": Bug(
        _BLOCK, "    __threadfence();  // the sums", "    // the sums", reduced
    ),
    "grid sum: the counter is not reset": Bug(_BLOCK, "  *done = 0;\n", "", reduced, BOTH),
}
