"""More tiles, boxes and words than the other tests have. Without sanitizers, so that it takes seconds."""

from __future__ import annotations

from pathlib import Path

import torch
from inputs.boxes import random_boxes

from retina_ops import batched_nms, reference

from .build import build
from .device import Device
from .rooms.box_iou import box_iou
from .rooms.nms import kept_of_many, nms


def test_many_tiles() -> None:
    """More tiles than the second and third dimension of a grid allow, and more than 400,000 boxes."""
    gpu = Device(build("coverage", rooms=["box_iou", "nms"]))
    rows, column = random_boxes(32 * 65_540), random_boxes(1)
    assert torch.equal(box_iou(gpu, rows[None], column[None])[0], reference.box_iou(rows, column))
    count = 400_001
    boxes, scores, classes = rows[:count].contiguous(), torch.rand(count), torch.arange(count) % 1000
    kept, number = nms(gpu, boxes, scores, 0.3, classes)
    assert torch.equal(kept[:number], batched_nms(boxes, scores, classes, 0.3))


def test_nms_of_more_words_than_threads(races: Path) -> None:
    kept_of_many(Device(races))
