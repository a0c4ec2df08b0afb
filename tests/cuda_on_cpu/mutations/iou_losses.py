"""Bugs in the kernels of iou_losses/, and in the sum over a grid that they share."""

from __future__ import annotations

import torch
from inputs.boxes import random_boxes

from retina_ops import reference

from .. import operators as emulated
from ..device import Device
from .plan import BOTH, Mutation


def elementwise(device: Device) -> None:
    a, b = random_boxes(300), random_boxes(300)
    exact = a.clone().requires_grad_()
    loss = reference.generalized_box_iou_loss(exact, b)
    (gradient,) = torch.autograd.grad(loss.sum(), exact)
    name = "generalized_box_iou_loss"
    (got,) = emulated.iou_loss(device, name, a, b)
    assert got is not None and torch.allclose(got, loss, atol=1e-5)
    got, none = emulated.iou_loss(device, name, a, b, upstream=torch.ones(300), wanted=(True, False))
    assert none is None and got is not None and torch.allclose(got, gradient, atol=1e-5)


def reduced(device: Device) -> None:
    a, b = random_boxes(1300), random_boxes(1300)
    exact = a.clone().requires_grad_()
    loss = reference.distance_box_iou_loss(exact, b).sum() * 0.5
    (gradient,) = torch.autograd.grad(loss, exact)
    total, got, _ = emulated.iou_loss_reduced(device, "distance_box_iou_loss", a, b, scale=0.5)
    assert total is not None and torch.allclose(total, loss, rtol=1e-5)
    assert got is not None and torch.allclose(got, gradient, atol=1e-5)


_KERNELS = "iou_losses/iou_losses_kernels.cuh"
_BLOCK = "common/block.cuh"
MUTATIONS = {
    "IoU loss: past the end": Mutation("iou_losses", _KERNELS, "  if (i >= a.n) return;\n", "", elementwise, BOTH),
    "IoU loss: a gradient nobody asked for": Mutation(
        "iou_losses", _KERNELS, "if (a.grad2 != nullptr) ", "", elementwise, ("sanitizers",)
    ),
    "IoU loss: the scale is not in the gradient": Mutation(
        "iou_losses",
        _KERNELS,
        "store_gradients(a, i, terms, static_cast<A>(a.scale))",
        "store_gradients(a, i, terms, A(1))",
        reduced,
        BOTH,
    ),
    "grid sum: no barrier before the last block is known": Mutation(
        "iou_losses",
        _BLOCK,
        "  __syncthreads();\n  if (!is_last) return false;",
        "  if (!is_last) return false;",
        reduced,
    ),
    "grid sum: no fence behind a block's sum": Mutation(
        "iou_losses", _BLOCK, "    __threadfence();\n    is_last", "    is_last", reduced
    ),
    "grid sum: no fence before the blocks' sums": Mutation(
        "iou_losses", _BLOCK, "    __threadfence();  // the other", "    // the other", reduced
    ),
    "grid sum: the counter is left": Mutation("iou_losses", _BLOCK, "  *done = 0;\n", "", reduced, BOTH),
}
