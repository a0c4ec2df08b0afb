"""Pairwise IoU of every kind: torchvision's results, and what the contracts do not ask."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torchvision
from inputs.boxes import grid_pairs, odd_boxes, random_boxes
from torch import Tensor

import retina_ops
from retina_ops import box_iou, reference

NAMES = ("box_iou", "generalized_box_iou", "distance_box_iou", "complete_box_iou")
GENERALIZATIONS = NAMES[1:]
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def pairs(count: int, device: str, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    return random_boxes(count, device).to(dtype), random_boxes(count, device).to(dtype)


def with_gradients(function: Callable[..., Tensor], a: Tensor, b: Tensor) -> list[Tensor]:
    a, b = a.clone().requires_grad_(), b.clone().requires_grad_()
    result = function(a, b)
    weight = torch.linspace(-1, 2, result.numel(), device=a.device).view(result.shape).to(result.dtype)
    return [result.detach(), *torch.autograd.grad((result * weight).sum(), (a, b))]


# --- box_iou alone ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
# No rows, no columns, one pair, a tile of 512 columns and one more or less, several tiles of rows, odd columns.
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (1, 1), (33, 511), (65, 513), (7, 1000), (40, 128)])
def test_iou_matches_torchvision(device: str, shape: tuple[int, int], dtype: torch.dtype) -> None:
    a, b = random_boxes(shape[0], device).to(dtype), random_boxes(shape[1], device).to(dtype)
    got = box_iou(a, b)
    assert got.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    # torchvision rounds sides to half before it multiplies them: compared on the same boxes in float32.
    assert torch.equal(got, torchvision.ops.box_iou(a.to(got.dtype), b.to(got.dtype)))
    assert torch.equal(got, reference.box_iou(a, b))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_iou_of_integer_boxes(device: str, dtype: torch.dtype) -> None:
    a, b = (random_boxes(30, device, width=200, height=200).round().to(dtype) for _ in range(2))
    got = box_iou(a, b)
    assert got.dtype == torch.float32 and torch.equal(got, torchvision.ops.box_iou(a.long(), b.long()))


@pytest.mark.parametrize("fmt", ["xyxy", "xywh", "cxcywh"])
def test_iou_formats(device: str, fmt: str) -> None:
    a, b = (torchvision.ops.box_convert(boxes, "xyxy", fmt) for boxes in pairs(50, device, torch.float64))
    torch.testing.assert_close(box_iou(a, b, fmt), torchvision.ops.box_iou(a, b, fmt))


def test_iou_of_odd_boxes(device: str) -> None:
    odd = odd_boxes(device)
    got, expected = box_iou(odd, odd), reference.box_iou(odd, odd)
    same = (got == expected) | (got.isnan() & expected.isnan())
    finite = odd.isfinite().all(dim=1)
    assert same[finite][:, finite].all()
    # With NaN or infinite coordinates nothing is an overlap: NaN or 0, never a positive number.
    assert not (got[~finite] > 0).any() and not (got[:, ~finite] > 0).any()


def test_iou_does_not_overflow_half(device: str) -> None:
    big = torch.tensor([[0.0, 0, 1000, 1000]], device=device, dtype=torch.float16)  # area above 65,504
    assert box_iou(big, big).item() == 1


def test_integer_boxes_are_not_rounded_to_half(device: str) -> None:
    large = torch.tensor([[0, 0, 100_000, 100_000]], device=device)
    half = torch.tensor([[0.0, 0, 1000, 1000]], device=device).half()
    torch.testing.assert_close(box_iou(large, half), reference.box_iou(large.float(), half.float()))


# --- every kind -------------------------------------------------------------------------------------------------------


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
    """Every way in which two boxes can lie, without area too: values and autograd's gradients, pair by pair.

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


@pytest.mark.parametrize("name", GENERALIZATIONS)
@pytest.mark.parametrize("eps", [1e-7, 0.3])
def test_eps_and_float32(device: str, eps: float, name: str) -> None:
    a, b = (random_boxes(60, device, low=1, high=4, width=9, height=9) for _ in range(2))
    options = {} if name == "generalized_box_iou" else {"eps": eps}
    got = getattr(retina_ops, name)(a, b, **options)
    torch.testing.assert_close(got, getattr(torchvision.ops, name)(a, b, **options), rtol=1e-5, atol=1e-6)
    # Halves, integers and mixed dtypes: what is computed of each box alone must not be rounded.
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


@pytest.mark.parametrize("name", GENERALIZATIONS)
def test_odd_boxes(device: str, name: str) -> None:
    odd = odd_boxes(device)
    ours, theirs = getattr(retina_ops, name)(odd, odd), getattr(torchvision.ops, name)(odd, odd)
    exact = getattr(torchvision.ops, name)(odd.double(), odd.double())
    right = theirs.isfinite() & ((theirs.double() - exact).abs() < 1e-5)  # float32 suffices
    torch.testing.assert_close(ours[right].double(), exact[right], rtol=1e-4, atol=1e-4)
    assert torch.equal(ours.isnan(), theirs.isnan())


@pytest.mark.parametrize("name", NAMES)
def test_pairs_without_gradient_from_above_give_none(device: str, name: str) -> None:
    """Not even those whose value is NaN."""
    odd = odd_boxes(device)
    a = torch.cat([random_boxes(5, device), odd]).requires_grad_()
    result = getattr(retina_ops, name)(a, a.detach())
    result[:5, :5].sum().backward()
    assert a.grad[:5].isfinite().all() and (a.grad[5:] == 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_second_derivatives_match_torchvision(device: str, name: str) -> None:
    a, b = (random_boxes(5, device, low=1, high=3, width=4, height=4).double().requires_grad_() for _ in range(2))
    results = []
    for module in (retina_ops, torchvision.ops):
        first = torch.autograd.grad(getattr(module, name)(a, b).square().sum(), (a, b), create_graph=True)
        results.append(torch.autograd.grad(sum(g.sin().sum() for g in first), (a, b)))
    torch.testing.assert_close(results[0], results[1], rtol=1e-10, atol=1e-10)


def test_operators_reject(device: str) -> None:
    """What the public functions cannot pass on."""
    a, b = random_boxes(3, device), random_boxes(3, device)
    ops = torch.ops.retina_ops
    with pytest.raises(RuntimeError, match=r"box_iou: kind must be 0 .* got 4"):
        ops.box_iou(a, b, 4, 0.0)
    with pytest.raises(RuntimeError, match=r"box_iou_backward: grad must be float32 .* got \[3, 2\] float32 for boxes"):
        ops.box_iou_backward(torch.zeros(3, 2, device=device), a, b, 3, 0.0, True, True)
