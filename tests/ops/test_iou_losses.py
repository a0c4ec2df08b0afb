"""The IoU losses of matched boxes: torchvision's results, and what the contracts do not ask."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torchvision
from inputs.boxes import grid_pairs, odd_boxes, random_boxes
from torch import Tensor

import retina_ops
from retina_ops import reference

NAMES = ("generalized_box_iou_loss", "distance_box_iou_loss", "complete_box_iou_loss")
REDUCTIONS = ("none", "mean", "sum")


def near_pairs(count: int, device: str, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Boxes and others near them: nearly all overlap, each in its own way."""
    boxes = random_boxes(count, device, low=24)  # not flat in bfloat16
    return boxes.to(dtype), (boxes + torch.randn_like(boxes) * 4).to(dtype)


def losses_and_gradients(function: Callable[..., Tensor], a: Tensor, b: Tensor, **options: object) -> list[Tensor]:
    a, b = a.clone().requires_grad_(), b.clone().requires_grad_()
    loss = function(a, b, **options)
    weight = torch.linspace(0.5, 2, loss.numel(), device=a.device).view(loss.shape).to(loss.dtype)
    return [loss.detach(), *torch.autograd.grad((loss * weight).sum(), (a, b))]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("eps", [1e-7, 1e-3])
def test_equals_torchvision(device: str, eps: float, name: str) -> None:
    """Every way in which two boxes can lie, without area too: losses and autograd's gradients, in float64.

    Where torchvision's gradient is 0 / 0 though its loss is finite (atan of w / 0), ours is finite.
    """
    for a, b in (grid_pairs(device), near_pairs(1000, device, torch.float64)):
        got = losses_and_gradients(getattr(retina_ops, name), a, b, eps=eps)
        expected = losses_and_gradients(getattr(torchvision.ops, name), a, b, eps=eps)
        torch.testing.assert_close(got[0], expected[0], rtol=1e-12, atol=1e-12, equal_nan=True)
        for gradient, theirs in zip(got[1:], expected[1:], strict=True):
            known = theirs.isfinite()
            torch.testing.assert_close(gradient[known], theirs[known], rtol=1e-12, atol=1e-12)
            assert gradient[got[0].isfinite()].isfinite().all()


def test_gradient_of_flat_boxes_is_a_limit(device: str) -> None:
    flat = torch.tensor([[0.0, 1, 3, 1]], device=device, dtype=torch.float64, requires_grad=True)
    low = torch.tensor([[0.0, 1, 3, 1 + 1e-9]], device=device, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[0.0, 0, 2, 2]], device=device, dtype=torch.float64)
    gradients = [torch.autograd.grad(retina_ops.complete_box_iou_loss(b, target).sum(), b)[0] for b in (flat, low)]
    # A low box overlaps its target, a flat one does not: only the height's slope through the angle is compared.
    assert gradients[0].isfinite().all()
    through_angle = gradients[0] - torch.autograd.grad(retina_ops.distance_box_iou_loss(flat, target).sum(), flat)[0]
    near = gradients[1] - torch.autograd.grad(retina_ops.distance_box_iou_loss(low, target).sum(), low)[0]
    torch.testing.assert_close(through_angle, near, rtol=1e-6, atol=1e-6)


def test_float16_gradients_of_a_mean_survive_loss_scaling(device: str) -> None:
    a, b = (boxes.requires_grad_() for boxes in near_pairs(100_000, device, torch.float16))
    (retina_ops.generalized_box_iou_loss(a, b, "mean") * 65536).backward()
    exact = losses_and_gradients(reference.generalized_box_iou_loss, a.detach().double(), b.detach().double())[1]
    weight = torch.linspace(0.5, 2, len(a), device=device).double()[:, None]
    torch.testing.assert_close(a.grad.double(), exact / weight * (65536 / 100_000), rtol=2**-10, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_dtypes(device: str, name: str) -> None:
    function = getattr(retina_ops, name)
    a, b = near_pairs(60, device)
    losses = function(a, b)
    assert torch.equal(function(a[0], b[0]), losses[0]) and function(a[0], b[0], "mean").shape == ()
    assert torch.equal(function(a.view(3, 4, 5, 4), b.view(3, 4, 5, 4)), losses.view(3, 4, 5))
    assert torch.equal(function(a, b[3]), function(a, b[3].expand(60, 4)))  # broadcasts
    # Half boxes beside float32 ones are read as they are; beside float64 everything is float64; integers are float32.
    half = a.half()
    assert torch.equal(function(half, b), function(half.float(), b))
    assert torch.equal(function(half, b.bfloat16()), function(half.float(), b.bfloat16().float()))
    assert function(half, b.double()).dtype == torch.float64
    assert torch.equal(function(a.long(), b.half()), function(a.long().float(), b.half().float()))
    x = half.clone().requires_grad_()
    function(x, b, "sum").backward()
    assert x.grad.dtype == torch.float16


@pytest.mark.parametrize("name", NAMES)
def test_empty(device: str, name: str) -> None:
    for reduction in REDUCTIONS:
        a, b = (torch.empty(0, 4, device=device, requires_grad=True) for _ in range(2))
        loss = getattr(retina_ops, name)(a, b, reduction)
        assert torch.equal(loss, getattr(torchvision.ops, name)(a, b, reduction))
        loss.sum().backward()
        assert a.grad.shape == (0, 4)


@pytest.mark.parametrize("name", NAMES)
def test_odd_boxes(device: str, name: str) -> None:
    """Reversed, huge, tiny, infinite and NaN boxes: finite where torchvision is, NaN only where it is not finite."""
    odd = odd_boxes(device)
    a, b = odd.repeat_interleave(len(odd), dim=0), odd.repeat(len(odd), 1)
    got = losses_and_gradients(getattr(retina_ops, name), a, b)
    expected = losses_and_gradients(getattr(torchvision.ops, name), a, b)
    exact = losses_and_gradients(getattr(torchvision.ops, name), a.double(), b.double())
    known = expected[0].isfinite()
    assert got[0][known].isfinite().all() and got[0][expected[0].isnan()].isnan().all()
    right = known & ((expected[0].double() - exact[0]).abs() < 1e-5)  # float32 suffices
    torch.testing.assert_close(got[0][right].double(), exact[0][right], rtol=1e-4, atol=1e-4)
    for gradient, theirs in zip(got[1:], expected[1:], strict=True):
        assert gradient[theirs.isfinite()].isfinite().all()


def small_pairs(count: int, device: str) -> tuple[Tensor, Tensor]:
    """Boxes of a few pixels, so that second derivatives are of ordinary size."""
    a, b = (random_boxes(count, device, low=1, high=3, width=4, height=4).double() for _ in range(2))
    return a.requires_grad_(), b.requires_grad_()


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


def test_operators_reject(device: str) -> None:
    """What the public functions cannot pass on."""
    a, b = near_pairs(3, device)
    ops = torch.ops.retina_ops
    with pytest.raises(RuntimeError, match=r"iou_loss: kind must be 0 .* got 7"):
        ops.iou_loss(a, b, 7, 0.0)
    with pytest.raises(RuntimeError, match=r"iou_loss: both or none of boxes1 and boxes2 must be float64, got float64"):
        ops.iou_loss(a.double(), b, 0, 0.0)
    with pytest.raises(RuntimeError, match="iou_loss: boxes2 must be float16, bfloat16, float32 or float64, got int64"):
        ops.iou_loss(a, b.long(), 0, 0.0)
    with pytest.raises(RuntimeError, match=r"iou_loss_backward: grad_output must be a scalar tensor or one float32 .*"):
        ops.iou_loss_backward(torch.zeros(2, device=device), a, b, 0, 0.0, True, True)
