"""box_iou, encode_boxes and decode_boxes against their definitions, torchvision, and their own contract."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import pytest
import torch
import torchvision
from boxes import odd_boxes, random_boxes
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder

import retina_ops
from retina_ops import box_iou, decode_boxes, encode_boxes, reference

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
WEIGHTS = ((1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0))
# Relative error of one rounding to the dtype, and a few of the float32 arithmetic.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.float16: 2**-10, torch.bfloat16: 2**-7}


def pairs(count: int, device: str, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    return random_boxes(count, device).to(dtype), random_boxes(count, device).to(dtype)


# --- box_iou ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
# No rows, no columns, one pair, a tile of 512 columns and its neighbours, several row tiles, odd columns.
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
    torch.testing.assert_close(box_iou(a, b, fmt), reference.box_iou(a, b, fmt))


def test_iou_leading_dimensions(device: str) -> None:
    a, b = random_boxes(2 * 3 * 5, device).view(2, 3, 5, 4), random_boxes(3 * 7, device).view(1, 3, 7, 4)
    got = box_iou(a, b)
    assert got.shape == (2, 3, 5, 7)
    assert torch.equal(got[1, 2], box_iou(a[1, 2], b[0, 2]))
    assert torch.equal(box_iou(a, b[0, 0]), box_iou(a, b[:, :1]))


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


def test_iou_derivatives(device: str) -> None:
    a, b = pairs(6, device, torch.float64)
    a, b = (a / 10).requires_grad_(), (b / 10).requires_grad_()
    assert torch.autograd.gradcheck(box_iou, (a, b))
    assert torch.autograd.gradgradcheck(box_iou, (a, b))
    grads = []
    for function in (box_iou, torchvision.ops.box_iou):
        grads.append(torch.autograd.grad((function(a, b) ** 2).sum(), (a, b)))
    torch.testing.assert_close(grads[0], grads[1])
    half = torch.rand(3, 4, device=device).to(torch.bfloat16).requires_grad_()
    box_iou(half, half).sum().backward()
    assert half.grad.dtype == torch.bfloat16


def test_iou_rejects(device: str) -> None:
    a, b = pairs(3, device)
    with pytest.raises(ValueError, match="Unsupported format 'yxyx'"):
        box_iou(a, b, "yxyx")
    with pytest.raises(RuntimeError, match=r"^box_iou: boxes1 must be \[\.\.\., N, 4\], got \[3, 3\]"):
        box_iou(a[:, :3], b)
    with pytest.raises(RuntimeError, match=r"^box_iou: boxes1 must be \[\.\.\., N, 4\], got \[4\]"):
        box_iou(a[0], b)
    with pytest.raises(RuntimeError, match=r"retina_ops\.box_iou: TorchScript is not supported"):
        torch.jit.script(box_iou)(a, b)


# --- coding -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weights", WEIGHTS)
# None, one, a block of 32 and its neighbours, several threads.
@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 9000])
def test_coding_matches_reference(device: str, count: int, weights: tuple[float, ...], dtype: torch.dtype) -> None:
    boxes, proposals = pairs(count, device, dtype)
    deltas = encode_boxes(boxes, proposals, weights)
    assert deltas.dtype == dtype and deltas.shape == boxes.shape
    # Bfloat16 boxes of a few pixels may have no area: inf in both.
    expected = reference.encode_boxes(boxes.double(), proposals.double(), weights)
    absolute = (1e-13 if dtype == torch.float64 else 1e-4) * weights[0] ** 2
    torch.testing.assert_close(deltas.double(), expected, rtol=TOLERANCE[dtype], atol=absolute)
    codes = (torch.randn(count, 4, device=device) * 2).to(dtype)
    for image_size in (None, (600, 800)):
        got = decode_boxes(codes, proposals, weights, image_size=image_size)
        assert got.dtype == dtype
        expected = reference.decode_boxes(codes.double(), proposals.double(), weights, image_size=image_size)
        # Pixels: a corner is a difference, so its error is that of the centre and size.
        scale = expected.abs().clamp(min=2000) if count else 1
        assert count == 0 or ((got.double() - expected).abs() / scale).max() < TOLERANCE[dtype]


# Against the same in float64, gradients included; prints the largest error over the largest value.
CODING_ERRORS = """
import torch
import retina_ops
from retina_ops import reference

def results(function, first, proposals):
    leaves = [first.clone().requires_grad_(), proposals.clone().requires_grad_()]
    out = function(*leaves)
    out.square().sum().backward()
    return [out, *(leaf.grad for leaf in leaves)]

torch.manual_seed(3)
boxes, proposals = (torch.rand(1000, 4, dtype=torch.float64) * 99 for _ in range(2))
for its in (boxes, proposals):
    its[:, 2:] += its[:, :2] + 1
for dtype in (torch.float32, torch.float64):
    for name, first in (("encode_boxes", boxes), ("decode_boxes", torch.randn(1000, 4, dtype=torch.float64))):
        first, its = first.to(dtype), proposals.to(dtype)
        got = results(getattr(retina_ops, name), first, its)
        expected = results(getattr(reference, name), first.double(), its.double())
        worst = max((a - b).abs().max() / b.abs().max() for a, b in zip(got, expected))
        print(name, str(dtype), worst.item())
"""


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_every_instruction_set(isa: str) -> None:
    environment = {**os.environ, "RETINA_OPS_ISA": isa}
    run = subprocess.run([sys.executable, "-c", CODING_ERRORS], env=environment, capture_output=True, text=True)
    if "one that this processor has" in run.stderr:
        pytest.skip(f"no {isa} here")
    assert run.returncode == 0, run.stderr
    lines = [line.split() for line in run.stdout.splitlines()]
    assert len(lines) == 4
    for name, dtype, error in lines:
        assert float(error) <= {"torch.float32": 1e-5, "torch.float64": 1e-14}[dtype], (name, dtype, error)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_coding_matches_torchvision(device: str, weights: tuple[float, ...]) -> None:
    boxes, proposals = pairs(500, device)
    coder = BoxCoder(weights)
    torch.testing.assert_close(encode_boxes(boxes, proposals, weights), coder.encode_single(boxes, proposals))
    codes = torch.randn(500, 4, device=device)
    expected = coder.decode_single(codes, proposals)
    torch.testing.assert_close(decode_boxes(codes, proposals, weights), expected, rtol=1e-6, atol=1e-3)
    clipped = torchvision.ops.clip_boxes_to_image(expected, (600, 800))
    torch.testing.assert_close(
        decode_boxes(codes, proposals, weights, image_size=(600, 800)), clipped, rtol=1e-6, atol=1e-3
    )


def test_decode_inverts_encode(device: str) -> None:
    boxes, proposals = pairs(500, device, torch.float64)
    torch.testing.assert_close(decode_boxes(encode_boxes(boxes, proposals), proposals), boxes)


def test_decode_limits_sizes(device: str) -> None:
    proposal = torch.tensor([[0.0, 0, 16, 16]], device=device)
    codes = torch.tensor([[0.0, 0, 50, float("inf")]], device=device)
    width, height = (lambda b: (b[0, 2] - b[0, 0], b[0, 3] - b[0, 1]))(decode_boxes(codes, proposal))
    assert math.isclose(width, 1000, rel_tol=1e-5) and math.isclose(height, 1000, rel_tol=1e-5)


def test_nan_and_degenerate_coding(device: str) -> None:
    nan = float("nan")
    proposal = torch.tensor([[0.0, 0, 16, 16]], device=device)
    assert decode_boxes(torch.full((1, 4), nan, device=device), proposal, image_size=(10, 10)).isnan().all()
    flat = torch.tensor([[0.0, 0, 0, 16]], device=device)
    got, expected = encode_boxes(proposal, flat), reference.encode_boxes(proposal, flat)
    assert torch.equal(got.isfinite(), expected.isfinite()) and not got.isfinite().all()


def test_coding_broadcasts(device: str) -> None:
    """Deltas of a batch with one set of anchors: the anchors repeat, whole blocks or not."""
    for anchors in (1, 7, 64, 1000):
        proposals = random_boxes(anchors, device)
        codes = torch.randn(3, anchors, 4, device=device)
        got = decode_boxes(codes, proposals)
        assert torch.equal(got, torch.stack([decode_boxes(c, proposals) for c in codes]))
        boxes = random_boxes(3 * anchors, device).view(3, anchors, 4)
        assert torch.equal(encode_boxes(boxes, proposals), encode_boxes(boxes, proposals.expand(3, -1, -1)))
    assert decode_boxes(torch.zeros(5, 1, 4, device=device), random_boxes(6, device)).shape == (5, 6, 4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_codes_beside_float32_boxes(device: str, dtype: torch.dtype) -> None:
    proposals = random_boxes(100, device)
    codes = torch.randn(100, 4, device=device).to(dtype).requires_grad_()
    decoded = decode_boxes(codes, proposals)
    assert decoded.dtype == torch.float32
    torch.testing.assert_close(decoded, decode_boxes(codes.float(), proposals))
    decoded.sum().backward()
    assert codes.grad.dtype == dtype


def test_coding_non_contiguous(device: str) -> None:
    boxes, proposals = pairs(300, device)
    strided = torch.stack([boxes, boxes], dim=1)[:, 0]
    unaligned = torch.cat([torch.zeros(1, device=device), proposals.flatten()])[1:].view(-1, 4)
    assert torch.equal(encode_boxes(strided, unaligned), encode_boxes(boxes, proposals))


@pytest.mark.parametrize("weights", WEIGHTS)
def test_coding_gradcheck_and_gradgradcheck(device: str, weights: tuple[float, ...]) -> None:
    boxes, proposals = (b.requires_grad_() for b in pairs(5, device, torch.float64))

    def encode(a: Tensor, b: Tensor) -> Tensor:
        return encode_boxes(a, b, weights)

    assert torch.autograd.gradcheck(encode, (boxes, proposals))
    assert torch.autograd.gradgradcheck(encode, (boxes, proposals))
    codes = torch.randn(2, 5, 4, device=device, dtype=torch.float64, requires_grad=True)
    for image_size in (None, (500, 400)):

        def decode(a: Tensor, b: Tensor, image_size: tuple[int, int] | None = image_size) -> Tensor:
            return decode_boxes(a, b, weights, image_size=image_size)

        assert torch.autograd.gradcheck(decode, (codes, proposals))
        assert torch.autograd.gradgradcheck(decode, (codes, proposals))


@pytest.mark.parametrize("name", ["encode_boxes", "decode_boxes"])
def test_second_derivatives_of_a_function_of_codes(device: str, name: str) -> None:
    """The gradient that comes from above depends on the inputs itself."""
    boxes, proposals = (b.requires_grad_() for b in pairs(5, device, torch.float64))
    first = boxes if name == "encode_boxes" else (boxes / 1000).detach().requires_grad_()
    results = []
    for module in (retina_ops, reference):
        result = getattr(module, name)(first, proposals)
        grads = torch.autograd.grad(result.square().sum(), (first, proposals), create_graph=True)
        results.append(torch.autograd.grad(sum(g.sin().sum() for g in grads), (first, proposals)))
    torch.testing.assert_close(results[0], results[1])


def test_clipped_coordinates_pass_no_gradient(device: str) -> None:
    proposals = torch.tensor([[10.0, 10, 30, 30], [90, 90, 120, 120]], device=device)
    codes = torch.zeros(2, 4, device=device, requires_grad=True)
    decode_boxes(codes, proposals, image_size=(50, 50)).sum().backward()
    assert (codes.grad[0, :2] != 0).all() and (codes.grad[1] == 0).all()


def test_opcheck(device: str) -> None:
    ops = torch.ops.retina_ops
    for grad in (False, True):
        boxes, proposals = (b.double().requires_grad_(grad) for b in pairs(5, device))
        torch.library.opcheck(ops.box_iou.default, (boxes, proposals, 3, 0.0))
        torch.library.opcheck(ops.encode_boxes.default, (boxes, proposals, 1.0, 1.0, 1.0, 1.0))
        torch.library.opcheck(ops.decode_boxes.default, (boxes / 100, proposals, 1.0, 1.0, 1.0, 1.0, 90.0, 80.0))
        upstream = torch.randn_like(boxes).requires_grad_(grad)
        torch.library.opcheck(ops.encode_boxes_backward.default, (upstream, boxes, proposals, 1.0, 1.0, 1.0, 1.0))
        torch.library.opcheck(
            ops.decode_boxes_backward.default, (upstream, boxes / 100, proposals, 1.0, 1.0, 1.0, 1.0, -1.0, -1.0)
        )


def test_compiles_without_recompile(device: str) -> None:
    torch._dynamo.reset()

    def loss(codes: Tensor, boxes: Tensor, proposals: Tensor) -> Tensor:
        decoded = decode_boxes(codes, proposals, image_size=(500, 500))
        return (box_iou(decoded, boxes) + (encode_boxes(boxes, proposals) - codes).abs().sum()).sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(3):
            boxes, proposals = pairs(9, device)
            codes = torch.randn(9, 4, device=device, requires_grad=True)
            (got,) = torch.autograd.grad(compiled(codes, boxes, proposals), codes)
            (expected,) = torch.autograd.grad(loss(codes, boxes, proposals), codes)
            torch.testing.assert_close(got, expected)


def test_coding_rejects(device: str) -> None:
    boxes, proposals = pairs(3, device)
    with pytest.raises(RuntimeError, match=r"encode_boxes: reference_boxes must be \[\.\.\., 4\], got \[3, 3\]"):
        encode_boxes(boxes[:, :3], proposals[:, :3])
    with pytest.raises(RuntimeError, match=r"decode_boxes: shapes must broadcast, got \[3, 4\] and \[2, 4\]"):
        decode_boxes(boxes, proposals[:2])
    with pytest.raises(RuntimeError, match="decode_boxes: weights must be finite and not 0, got 0"):
        decode_boxes(boxes, proposals, (1, 1, 0, 1))
    with pytest.raises(ValueError, match="encode_boxes: weights must be four numbers"):
        encode_boxes(boxes, proposals, (1, 1))
    with pytest.raises(RuntimeError, match="must be float16, bfloat16, float32 or float64, got int64"):
        encode_boxes(boxes.long(), proposals.long())
    for function in (encode_boxes, decode_boxes):
        with pytest.raises(RuntimeError, match="TorchScript is not supported"):
            torch.jit.script(function)(boxes, proposals)
