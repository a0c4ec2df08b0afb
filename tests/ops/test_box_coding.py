"""encode_boxes and decode_boxes: torchvision's results, and what the contracts do not ask."""

from __future__ import annotations

import math

import pytest
import torch
import torchvision
from inputs.boxes import random_boxes
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder

from retina_ops import decode_boxes, encode_boxes, reference

WEIGHTS = ((1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0))


def pairs(count: int, device: str, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    return random_boxes(count, device).to(dtype), random_boxes(count, device).to(dtype)


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


def test_clipped_coordinates_pass_no_gradient(device: str) -> None:
    proposals = torch.tensor([[10.0, 10, 30, 30], [90, 90, 120, 120]], device=device)
    codes = torch.zeros(2, 4, device=device, requires_grad=True)
    decode_boxes(codes, proposals, image_size=(50, 50)).sum().backward()
    assert (codes.grad[0, :2] != 0).all() and (codes.grad[1] == 0).all()


def test_integer_boxes_are_not_rounded_to_half(device: str) -> None:
    large = torch.tensor([[0, 0, 100_000, 100_000]], device=device)
    half = torch.tensor([[0.0, 0, 1000, 1000]], device=device).half()
    assert encode_boxes(large, half).isfinite().all()


def test_second_derivatives_of_half_are_computed_in_float32(device: str) -> None:
    torch.manual_seed(4)
    anchors = random_boxes(200, device, high=40).bfloat16()
    boxes = (anchors.float() + torch.rand(200, 4, device=device)).bfloat16()
    results = []
    for function, dtype in ((encode_boxes, torch.bfloat16), (reference.encode_boxes, torch.float64)):
        x, y = boxes.to(dtype).requires_grad_(), anchors.to(dtype).requires_grad_()
        first = torch.autograd.grad(function(x, y).sum(), (x, y), create_graph=True)
        results.append(torch.autograd.grad(sum(g.double().sum() for g in first), (x, y)))
    for mine, exact in zip(*results, strict=True):
        known = exact.isfinite() & mine.isfinite()
        assert (mine[known] - exact[known]).norm() <= 0.01 * exact[known].norm()
