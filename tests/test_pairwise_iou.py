"""The pairwise kinds of IoU and the gradient kernel of all of them, against their definitions and torchvision."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torchvision
from boxes import grid_pairs, odd_boxes, random_boxes
from torch import Tensor

import retina_ops
from retina_ops import box_iou, reference

NAMES = ("box_iou", "generalized_box_iou", "distance_box_iou", "complete_box_iou")
NEW = NAMES[1:]
KINDS = {"generalized_box_iou": 0, "distance_box_iou": 1, "complete_box_iou": 2, "box_iou": 3}
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
# A similarity is of size 1; a gradient is a sum of terms of both signs, each of a few roundings.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 5e-6, torch.float16: 2**-10, torch.bfloat16: 2**-7}


def with_gradients(function: Callable[..., Tensor], a: Tensor, b: Tensor) -> list[Tensor]:
    a, b = a.clone().requires_grad_(), b.clone().requires_grad_()
    result = function(a, b)
    weight = torch.linspace(-1, 2, result.numel(), device=a.device).view(result.shape).to(result.dtype)
    return [result.detach(), *torch.autograd.grad((result * weight).sum(), (a, b))]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", DTYPES)
# No rows, no columns, one pair, blocks of 64 columns, tiles of 64 rows and of 1024 columns, and their neighbours.
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (1, 1), (63, 65), (65, 64), (130, 1023), (7, 1025), (200, 2100)])
def test_matches_reference(device: str, shape: tuple[int, int], dtype: torch.dtype, name: str) -> None:
    a, b = (random_boxes(count, device, low=24, width=300, height=300).to(dtype) for count in shape)
    got = with_gradients(getattr(retina_ops, name), a, b)
    expected = with_gradients(getattr(reference, name), a.double(), b.double())
    assert got[0].dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert got[1].dtype == got[2].dtype == dtype
    tolerance = TOLERANCE[got[0].dtype]
    torch.testing.assert_close(got[0].double(), expected[0], rtol=tolerance, atol=tolerance)
    for gradient, exact in zip(got[1:], expected[1:], strict=True):
        # Terms of hundreds of boxes cancel: relative to the largest sum.
        scale = exact.abs().max().item() if exact.numel() else 1.0
        assert (gradient.double() - exact).abs().le(TOLERANCE[dtype] * (exact.abs() + 4 * scale)).all()


def gradient_of_clamp_at_its_bound() -> float:
    """0 or 1, by the release of torch: torchvision's gradient of boxes that touch."""
    x = torch.zeros((), requires_grad=True)
    return float(torch.autograd.grad(x.clamp(min=0), x)[0])


def touches(a: Tensor, b: Tensor) -> Tensor:
    """Whether a side of the overlap or of the enclosing box is 0."""
    overlap = torch.min(a[..., 2:], b[..., 2:]) - torch.max(a[..., :2], b[..., :2])
    enclosing = torch.max(a[..., 2:], b[..., 2:]) - torch.min(a[..., :2], b[..., :2])
    return (overlap == 0).any(-1) | (enclosing == 0).any(-1)


@pytest.mark.parametrize("name", NAMES)
def test_equals_torchvision(device: str, name: str) -> None:
    """Every way two boxes can lie, the ones without area too: values and autograd's gradients, pair by pair.

    Where torchvision's gradient is 0 / 0 though its value is finite (atan of w / 0), ours is finite.
    """
    for a, b in (grid_pairs(device), (random_boxes(500, device).double(), random_boxes(500, device).double())):
        a, b = a[:, None], b[:, None]  # batches of one pair
        got = with_gradients(getattr(retina_ops, name), a, b)
        expected = with_gradients(getattr(torchvision.ops, name), a, b)
        torch.testing.assert_close(got[0], expected[0], rtol=1e-12, atol=1e-12, equal_nan=True)
        finite = got[0].isfinite().flatten()
        decided = ~touches(a, b) | (gradient_of_clamp_at_its_bound() == 0)
        for gradient, theirs in zip(got[1:], expected[1:], strict=True):
            known = theirs.isfinite() & decided[..., None]
            torch.testing.assert_close(gradient[known], theirs[known], rtol=1e-12, atol=1e-12)
            assert gradient[finite].isfinite().all()


@pytest.mark.parametrize("name", NEW)
@pytest.mark.parametrize("eps", [1e-7, 0.3])
def test_eps_and_float32(device: str, eps: float, name: str) -> None:
    a, b = (random_boxes(60, device, low=1, high=4, width=9, height=9) for _ in range(2))
    options = {} if name == "generalized_box_iou" else {"eps": eps}
    got = getattr(retina_ops, name)(a, b, **options)
    torch.testing.assert_close(got, getattr(torchvision.ops, name)(a, b, **options), rtol=1e-5, atol=1e-6)
    # What is computed for a box alone: halves, integers, mixed dtypes.
    half = a.half()
    assert torch.equal(getattr(retina_ops, name)(half, b), getattr(retina_ops, name)(half.float(), b))
    whole = (a * 8).long()
    expected = getattr(torchvision.ops, name)(whole.double(), whole.double()).float()
    torch.testing.assert_close(getattr(retina_ops, name)(whole, whole), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_batches_and_strides(device: str, name: str) -> None:
    function = getattr(retina_ops, name)
    a, b = random_boxes(2 * 3 * 70, device).view(2, 3, 70, 4), random_boxes(3 * 7, device).view(1, 3, 7, 4)
    got = function(a, b)
    assert got.shape == (2, 3, 70, 7) and torch.equal(got[1, 2], function(a[1, 2], b[0, 2]))
    x, y = a.clone().requires_grad_(), b.clone().requires_grad_()
    upstream = torch.randn(2, 3, 7, 70, device=device).mT  # not contiguous
    function(x, y).backward(upstream)
    p, q = a[1, 2].clone().requires_grad_(), b[0, 2].clone().requires_grad_()
    function(p, q).backward(upstream[1, 2])
    assert torch.equal(x.grad[1, 2], p.grad)
    q_other = b[0, 2].clone().requires_grad_()
    function(a[0, 2], q_other).backward(upstream[0, 2])
    torch.testing.assert_close(y.grad[0, 2], q.grad + q_other.grad)  # broadcast: summed
    strided = torch.stack([a, a], dim=-1)[..., 0]
    assert torch.equal(function(strided, b), got)


@pytest.mark.parametrize("name", NEW)
def test_odd_boxes(device: str, name: str) -> None:
    odd = odd_boxes(device)
    ours, theirs = getattr(retina_ops, name)(odd, odd), getattr(torchvision.ops, name)(odd, odd)
    exact = getattr(torchvision.ops, name)(odd.double(), odd.double())
    right = theirs.isfinite() & ((theirs.double() - exact).abs() < 1e-5)  # float32 suffices
    torch.testing.assert_close(ours[right].double(), exact[right], rtol=1e-4, atol=1e-4)
    assert torch.equal(ours.isnan(), theirs.isnan())


@pytest.mark.parametrize("name", NAMES)
def test_pairs_without_gradient_from_above_give_none(device: str, name: str) -> None:
    """Also those whose value is NaN."""
    odd = odd_boxes(device)
    a = torch.cat([random_boxes(5, device), odd]).requires_grad_()
    result = getattr(retina_ops, name)(a, a.detach())
    result[:5, :5].sum().backward()
    assert a.grad[:5].isfinite().all() and (a.grad[5:] == 0).all()


def test_sums_do_not_depend_on_threads(device: str) -> None:
    a, b = random_boxes(500, device), random_boxes(3000, device)
    threads = torch.get_num_threads()
    results = []
    for count in (1, 3):
        torch.set_num_threads(count)
        results.append(with_gradients(retina_ops.complete_box_iou, a, b))
    torch.set_num_threads(threads)
    assert all(torch.equal(x, y) for x, y in zip(*results, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_derivatives(device: str, name: str) -> None:
    a, b = (random_boxes(5, device, low=1, high=3, width=4, height=4).double().requires_grad_() for _ in range(2))
    function = getattr(retina_ops, name)
    if name != "complete_box_iou":  # whose alpha is a constant in the gradient only
        assert torch.autograd.gradcheck(function, (a, b))
        assert torch.autograd.gradgradcheck(function, (a, b))
    results = []
    for module in (retina_ops, torchvision.ops):
        first = torch.autograd.grad(getattr(module, name)(a, b).square().sum(), (a, b), create_graph=True)
        results.append(torch.autograd.grad(sum(g.sin().sum() for g in first), (a, b)))
    torch.testing.assert_close(results[0], results[1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_opcheck(device: str, name: str) -> None:
    ops, kind = torch.ops.retina_ops, KINDS[name]
    for grad in (False, True):
        a, b = (random_boxes(n, device).double().requires_grad_(grad) for n in (4, 3))
        torch.library.opcheck(ops.box_iou.default, (a, b, kind, 1e-7))
        upstream = torch.randn(4, 3, device=device, dtype=torch.float64).requires_grad_(grad)
        for wanted in ((True, True), (False, True)):
            torch.library.opcheck(ops.box_iou_backward.default, (upstream, a, b, kind, 1e-7, *wanted))


def test_compiles_without_recompile(device: str) -> None:
    torch._dynamo.reset()

    def total(a: Tensor, b: Tensor) -> Tensor:
        return sum(getattr(retina_ops, name)(a, b).sum() for name in NAMES)

    compiled = torch.compile(total, fullgraph=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(3):
            a, b = random_boxes(9, device).requires_grad_(), random_boxes(5, device)
            (got,) = torch.autograd.grad(compiled(a, b), a)
            (expected,) = torch.autograd.grad(total(a, b), a)
            torch.testing.assert_close(got, expected)


def test_rejects(device: str) -> None:
    a, b = random_boxes(3, device), random_boxes(3, device)
    for name in NEW:
        with pytest.raises(RuntimeError, match=rf"{name}: boxes1 must be \[\.\.\., N, 4\], got \[3, 3\]"):
            getattr(retina_ops, name)(a[:, :3], b)
        with pytest.raises(RuntimeError, match=rf"retina_ops\.{name}: TorchScript is not supported"):
            torch.jit.script(getattr(retina_ops, name))(a, b)
    ops = torch.ops.retina_ops
    with pytest.raises(RuntimeError, match=r"box_iou: kind must be 0 .* got 4"):
        ops.box_iou(a, b, 4, 0.0)
    with pytest.raises(RuntimeError, match=r"box_iou_backward: grad must be float32 .* got \[3, 2\] float32 for boxes"):
        ops.box_iou_backward(torch.zeros(3, 2, device=device), a, b, 3, 0.0, True, True)
    assert box_iou(a, b).shape == (3, 3)
