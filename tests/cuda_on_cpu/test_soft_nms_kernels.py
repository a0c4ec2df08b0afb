"""Soft NMS on the emulated device: bit by bit what the CPU operator gives, which other tests hold to the reference."""

from __future__ import annotations

import pytest
import torch
from inputs.boxes import boxes_at_iou, odd_boxes, random_boxes
from torch import Tensor

import retina_ops

from . import operators as emulated
from .device import Device
from .inputs import DTYPES


def check(
    gpu: Device,
    boxes: Tensor,
    scores: Tensor,
    threshold: float = 0.3,
    method: str = "linear",
    sigma: float = 0.5,
    min_score: float = 0.001,
    classes: Tensor | None = None,
    offset: int = 0,
    first: int = 0,
) -> int:
    """The operator itself as expectation: decays included. Returns how many boxes were kept."""
    got = emulated.soft_nms(gpu, boxes, scores, threshold, method, sigma, min_score, classes, offset, first)
    expected = torch.ops.retina_ops.soft_nms(boxes, scores, classes, threshold, method == "gaussian", sigma, min_score)
    for mine, theirs in zip(got, expected, strict=True):
        assert mine.dtype == theirs.dtype and torch.equal(mine, theirs)
    return len(got[0])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_soft_nms(gpu: Device, dtype: torch.dtype) -> None:
    for count, score_dtype, method, offset in (
        (1, torch.float32, "linear", 0),
        (64, torch.float64, "gaussian", 0),
        (65, torch.float16, "linear", 1),
        (270, torch.bfloat16, "gaussian", 0),  # more than one box for some threads
    ):
        boxes = random_boxes(count, high=300).to(dtype)
        scores = torch.rand(count, dtype=torch.float64).to(score_dtype)
        start = offset * boxes.element_size()
        assert check(gpu, boxes, scores, 0.3, method, 0.5, min(0.5, count / 400), offset=start) > 0
        classes = torch.randint(0, 5, (count,)) * 2**40 - 3
        assert check(gpu, boxes, scores, 0.2, method, 0.3, 0.0, classes) == count


def test_soft_nms_adversarial(gpu: Device) -> None:
    odd = odd_boxes()
    scores = torch.rand(len(odd))
    scores[::5] = float("nan")
    scores[1], scores[2] = float("inf"), -0.0
    for method in ("linear", "gaussian"):
        for threshold in (-0.5, 0.0, 0.5, float("nan")):
            check(gpu, odd, scores, threshold, method, 0.5, 0.0)
        check(gpu, odd.double(), scores, 0.0, method, 1e-40)
    ties = boxes_at_iou(60, 0.3)
    assert check(gpu, ties, torch.ones(len(ties)), 0.3) == len(ties)
    assert check(gpu, ties, torch.full((len(ties),), float("nan"))) == 0
    check(gpu, random_boxes(90, width=120, height=120), (torch.rand(90) * 4).round() / 4, 0.1)


def test_soft_nms_of_many_boxes_and_classes(gpu: Device) -> None:
    """A wide block, most of whose boxes are dropped at once; more segments than blocks."""
    boxes, scores = random_boxes(4200), torch.rand(4200)
    assert check(gpu, boxes, scores, 0.3, min_score=0.998) < 40
    assert check(gpu, boxes, scores, 0.3, "gaussian", 0.5, 0.998) < 40
    few, many = boxes[:540], torch.arange(540) % 530
    check(gpu, few, scores[:540], 0.0, classes=many)


def test_soft_nms_of_large_indices(gpu: Device) -> None:
    boxes, scores, classes = random_boxes(150), torch.rand(150), torch.randint(0, 3, (150,))
    check(gpu, boxes, scores, 0.1, first=2**31 + 5)
    check(gpu, boxes, scores, 0.1, "gaussian", classes=classes, first=2**31 + 5)


def test_soft_nms_agrees_with_the_definition(gpu: Device) -> None:
    boxes, scores, classes = random_boxes(100, high=300), torch.rand(100), torch.randint(0, 2, (100,))
    keep, decayed, _ = emulated.soft_nms(gpu, boxes, scores, 0.3, classes=classes)
    expected = retina_ops.reference.soft_nms(boxes, scores, 0.3, idxs=classes)
    assert torch.equal(keep, expected[0]) and torch.equal(decayed, expected[1])
