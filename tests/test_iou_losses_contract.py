"""The IoU losses: derivatives of any order, operators, compilation and errors."""

from __future__ import annotations

import pytest
import torch
import torchvision
from boxes import random_boxes
from test_iou_losses import NAMES, REDUCTIONS, near_pairs
from torch import Tensor

import retina_ops
from retina_ops import generalized_box_iou_loss


def small_pairs(count: int, device: str) -> tuple[Tensor, Tensor]:
    """Boxes of a few pixels, so that second derivatives are of ordinary size."""
    a, b = (random_boxes(count, device, low=1, high=3, width=4, height=4).double() for _ in range(2))
    return a.requires_grad_(), b.requires_grad_()


@pytest.mark.parametrize("name", NAMES[:2])  # complete's alpha is a constant in the gradient only
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gradcheck_and_gradgradcheck(device: str, reduction: str, name: str) -> None:
    boxes = small_pairs(6, device)

    def function(a: Tensor, b: Tensor) -> Tensor:
        return getattr(retina_ops, name)(a, b, reduction)

    assert torch.autograd.gradcheck(function, boxes)
    assert torch.autograd.gradgradcheck(function, boxes)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_second_derivatives_match_torchvision(device: str, reduction: str, name: str) -> None:
    a, b = small_pairs(40, device)
    results = []
    for module in (retina_ops, torchvision.ops):
        loss = getattr(module, name)(a, b, reduction)
        first = torch.autograd.grad((loss**2).sum(), (a, b), create_graph=True)
        results.append(torch.autograd.grad(sum((g.sin()).sum() for g in first), (a, b)))
    torch.testing.assert_close(results[0], results[1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_second_derivative_by_one_input(device: str, name: str) -> None:
    a, b = small_pairs(10, device)
    results = []
    for module in (retina_ops, torchvision.ops):
        loss = getattr(module, name)(a, b.detach(), "mean")
        (first,) = torch.autograd.grad(loss, a, create_graph=True)
        results.append(torch.autograd.grad(first.square().sum(), a)[0])
    torch.testing.assert_close(results[0], results[1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", range(3))
def test_opcheck(device: str, kind: int) -> None:
    ops = torch.ops.retina_ops
    for a, b in (small_pairs(5, device), tuple(t.detach() for t in small_pairs(5, device))):
        torch.library.opcheck(ops.iou_loss.default, (a, b, kind, 1e-7))
        upstream = torch.randn(5, device=device, dtype=torch.float64).requires_grad_(a.requires_grad)
        for grad in (upstream, upstream.detach()[0].requires_grad_(a.requires_grad)):
            torch.library.opcheck(ops.iou_loss_backward.default, (grad, a, b, kind, 1e-7, True, True))
        torch.library.opcheck(ops.iou_loss_backward.default, (upstream, a, b, kind, 1e-7, True, False))
        torch.library.opcheck(ops.iou_loss_reduced.default, (a, b, kind, 1e-7, True, True, False))
    half, single = near_pairs(5, device, torch.float16)[0], near_pairs(5, device)[1]
    torch.library.opcheck(ops.iou_loss.default, (half, single, kind, 1e-7))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_compiles_without_recompile(device: str, reduction: str) -> None:
    torch._dynamo.reset()

    def total(a: Tensor, b: Tensor) -> Tensor:
        return sum(getattr(retina_ops, name)(a, b, reduction).sum() for name in NAMES)

    compiled = torch.compile(total, fullgraph=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(3):
            a, b = near_pairs(40, device)
            a.requires_grad_()
            (got,) = torch.autograd.grad(compiled(a, b), a)
            (expected,) = torch.autograd.grad(total(a, b), a)
            torch.testing.assert_close(got, expected)


def test_rejects(device: str) -> None:
    a, b = near_pairs(3, device)
    with pytest.raises(ValueError, match=r"Invalid Value for arg 'reduction': 'median"):
        generalized_box_iou_loss(a, b, "median")
    with pytest.raises(RuntimeError, match=r"generalized_box_iou_loss: boxes1 must be \[\.\.\., 4\], got \[3, 3\]"):
        generalized_box_iou_loss(a[:, :3], b[:, :3])
    with pytest.raises(RuntimeError, match=r"generalized_box_iou_loss: .* must broadcast, got \[3, 4\] and \[2, 4\]"):
        generalized_box_iou_loss(a, b[:2])
    ops = torch.ops.retina_ops
    with pytest.raises(RuntimeError, match=r"iou_loss: kind must be 0 .* got 7"):
        ops.iou_loss(a, b, 7, 0.0)
    with pytest.raises(RuntimeError, match=r"iou_loss: both or none of boxes1 and boxes2 must be float64, got float64"):
        ops.iou_loss(a.double(), b, 0, 0.0)
    with pytest.raises(RuntimeError, match="iou_loss: boxes2 must be float16, bfloat16, float32 or float64, got int64"):
        ops.iou_loss(a, b.long(), 0, 0.0)
    with pytest.raises(RuntimeError, match=r"iou_loss_backward: grad_output must be a scalar tensor or one float32 .*"):
        ops.iou_loss_backward(torch.zeros(2, device=device), a, b, 0, 0.0, True, True)
    for name in NAMES:
        with pytest.raises(RuntimeError, match=rf"retina_ops\.{name}: TorchScript is not supported"):
            torch.jit.script(getattr(retina_ops, name))(a, b)
