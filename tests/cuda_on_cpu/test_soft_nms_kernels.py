"""Soft NMS on the emulated device: bit by bit what the CPU operator gives, which other tests hold to the reference."""

from __future__ import annotations

import pytest
import torch
from inputs.boxes import boxes_at_iou, odd_boxes, random_boxes

import retina_ops

from .device import Device
from .inputs import DTYPES
from .rooms.soft_nms import check_against_operator as check
from .rooms.soft_nms import soft_nms


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
        assert check(gpu, boxes, scores, 0.3, method, 0.5, min(0.5, count / 400), offset=offset) > 0
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
    """A wide block, most of whose boxes are dropped in the first step; more segments than blocks."""
    boxes, scores = random_boxes(4200), torch.rand(4200)
    assert check(gpu, boxes, scores, 0.3, min_score=0.998) < 40
    assert check(gpu, boxes, scores, 0.3, "gaussian", 0.5, 0.998) < 40
    few, many = boxes[:540], torch.arange(540) % 530
    check(gpu, few, scores[:540], 0.0, classes=many)


def test_soft_nms_agrees_with_the_definition(gpu: Device) -> None:
    boxes, scores, classes = random_boxes(100, high=300), torch.rand(100), torch.randint(0, 2, (100,))
    keep, decayed, _ = soft_nms(gpu, boxes, scores, 0.3, classes=classes)
    expected = retina_ops.reference.soft_nms(boxes, scores, 0.3, idxs=classes)
    assert torch.equal(keep, expected[0]) and torch.equal(decayed, expected[1])
