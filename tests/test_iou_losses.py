"""The IoU losses of matched boxes: values and gradients against their definitions and torchvision."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
import torchvision
from boxes import grid_pairs, odd_boxes, random_boxes
from torch import Tensor

import retina_ops
from retina_ops import reference

NAMES = ("generalized_box_iou_loss", "distance_box_iou_loss", "complete_box_iou_loss")
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
REDUCTIONS = ("none", "mean", "sum")
# Of a loss in [0, 2] and of gradients a pixel: a few roundings of the arithmetic; half gradients are rounded once.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 3e-6, torch.float16: 2**-10, torch.bfloat16: 2**-7}


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
@pytest.mark.parametrize("dtype", DTYPES)
# None, one, a block of 64 and its neighbours, a chunk of 4096 and its neighbours, several threads.
@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 4095, 4097, 20_000])
def test_matches_reference(device: str, count: int, dtype: torch.dtype, name: str) -> None:
    a, b = near_pairs(count, device, dtype)
    got = losses_and_gradients(getattr(retina_ops, name), a, b)
    expected = losses_and_gradients(getattr(reference, name), a.double(), b.double())
    assert got[0].dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert got[1].dtype == got[2].dtype == dtype
    tolerance = TOLERANCE[torch.float64 if dtype == torch.float64 else torch.float32]
    # Rounding to bfloat16 makes a point of a box now and then: NaN in both.
    torch.testing.assert_close(got[0].double(), expected[0], rtol=tolerance, atol=tolerance, equal_nan=True)
    known = expected[0].isfinite()
    for gradient, exact in zip(got[1:], expected[1:], strict=True):
        torch.testing.assert_close(gradient[known].double(), exact[known], rtol=TOLERANCE[dtype], atol=4 * tolerance)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("eps", [1e-7, 1e-3])
def test_equals_torchvision(device: str, eps: float, name: str) -> None:
    """Every way two boxes can lie, the ones without area too: losses and autograd's gradients, to float64's last bits.

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


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_reductions(device: str, dtype: torch.dtype, reduction: str, name: str) -> None:
    """The gradient written in the forward, the one computed in the backward, and those of one set of boxes alone."""
    function = getattr(retina_ops, name)
    a, b = near_pairs(5000, device, dtype)
    each = losses_and_gradients(getattr(reference, name), a.double(), b.double(), reduction=reduction)
    tolerance = TOLERANCE[dtype]
    for first, second in ((True, True), (True, False), (False, True)):
        x, y = a.clone().requires_grad_(first), b.clone().requires_grad_(second)
        loss = function(x, y, reduction)
        assert loss.shape == () and loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        torch.testing.assert_close(loss.double(), each[0], rtol=3e-6, atol=0)
        (loss * 0.5).backward(retain_graph=True)
        grads = [x.grad, y.grad]
        x.grad = y.grad = None
        (loss * 0.5).backward()  # the second computes it anew
        for got, again, exact in zip(grads, (x.grad, y.grad), each[1:], strict=True):
            assert (got is None) == (again is None)
            if got is not None:
                # Gradients of a mean of 5000 are small: subnormal in float16.
                torch.testing.assert_close(got.double(), exact, rtol=2 * tolerance, atol=1e-5 if tolerance > 0 else 0)
                torch.testing.assert_close(got, again, rtol=2 * tolerance, atol=1e-7)
    with torch.no_grad():
        torch.testing.assert_close(function(a, b, reduction).double(), each[0], rtol=3e-6, atol=0)


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
    strided = torch.stack([a, b], dim=1)
    unaligned = torch.cat([torch.zeros(1, device=device), b.flatten()])[1:].view(-1, 4)
    assert torch.equal(function(strided[:, 0], unaligned), losses)
    assert torch.equal(function(a, b[3]), function(a, b[3].expand(60, 4)))  # broadcasts
    # Half beside float32 is read as it is; beside float64 all is float64; integers are float32.
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


def test_sums_do_not_depend_on_threads(device: str) -> None:
    a, b = near_pairs(50_000, device)
    threads = torch.get_num_threads()
    sums = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        sums.append(retina_ops.generalized_box_iou_loss(a, b, "sum"))
    torch.set_num_threads(threads)
    assert torch.equal(sums[0], sums[1]) and torch.equal(sums[0], sums[2])


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_instruction_sets_agree(isa: str) -> None:
    script = (
        "import torch, retina_ops as r; torch.manual_seed(1); a = torch.rand(200, 4) * 9; b = torch.rand(200, 4) * 9\n"
        "a[:, 2:] += a[:, :2]; b[:, 2:] += b[:, :2]; a.requires_grad_(); loss = r.complete_box_iou_loss(a, b)\n"
        "loss.sum().backward(); print(f'{loss.sum().item():.3f} {a.grad.abs().sum().item():.3f}')"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "RETINA_OPS_ISA": isa}, capture_output=True, text=True
    )
    if "one that this processor has" in run.stderr:
        pytest.skip(f"no {isa} here")
    torch.manual_seed(1)
    a, b = torch.rand(200, 4).double() * 9, torch.rand(200, 4).double() * 9
    a[:, 2:] += a[:, :2]
    b[:, 2:] += b[:, :2]
    a.requires_grad_()
    loss = reference.complete_box_iou_loss(a, b).sum()
    loss.backward()
    expected = torch.tensor([loss.item(), a.grad.abs().sum().item()])
    torch.testing.assert_close(torch.tensor([float(x) for x in run.stdout.split()]), expected, rtol=1e-5, atol=2e-3)
