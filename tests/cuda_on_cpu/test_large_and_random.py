"""Every kernel with indices past 2^31, on many tiles, and in random orders of threads and blocks."""

from __future__ import annotations

import pytest
import torch
from inputs.boxes import random_boxes

from retina_ops import batched_nms, reference

from . import operators as emulated
from .build import build
from .device import Device
from .inputs import close, focal_expected, focal_inputs
from .mutations.nms import nms_of_many


def test_large_indices(gpu: Device) -> None:
    """The first element is past 2^31: an index of 32 bits would fall outside the arrays."""
    classes = 16
    first = (2**31 // classes + 1) * classes
    logits, labels = focal_inputs(20, classes, torch.float32, "labels")
    far = emulated.focal_loss(gpu, logits, labels, first=first)
    assert torch.equal(far, emulated.focal_loss(gpu, logits, labels))
    loss, grad = emulated.focal_loss_reduced(gpu, logits, labels, first=first)
    near_loss, near_grad = emulated.focal_loss_reduced(gpu, logits, labels)
    assert grad is not None and near_grad is not None
    assert torch.equal(loss, near_loss) and torch.equal(grad, near_grad)
    assert torch.equal(emulated.count_labels(gpu, labels, classes, first=first), emulated.count_labels(gpu, labels, 16))
    assert torch.equal(emulated.scale_gradient(gpu, logits, 2.0, first=first), logits * 2)
    boxes, proposals = random_boxes(300), random_boxes(300)
    far_codes, _ = emulated.box_coding(gpu, "encode", boxes, proposals, first=2**31 + 4)
    assert torch.equal(far_codes, emulated.box_coding(gpu, "encode", boxes, proposals)[0])
    pair = (boxes[None, :40], proposals[None])
    assert torch.equal(emulated.box_iou(gpu, *pair, first=2**31 // 40 + 1), reference.box_iou(*pair))
    truth = [boxes[:20], boxes[20:25]]
    far_matches = emulated.match_anchors(gpu, proposals, truth, regions=truth, first=2**31 // 8 + 1)
    near_matches = emulated.match_anchors(gpu, proposals, truth, regions=truth)
    assert all(torch.equal(far, near) for far, near in zip(far_matches, near_matches, strict=True))


@pytest.mark.parametrize("with_classes", [False, True])
def test_nms_of_large_indices(gpu: Device, with_classes: bool) -> None:
    boxes, scores = random_boxes(4500, low=2, high=8), torch.rand(4500)
    classes = torch.randint(0, 3, (4500,)) if with_classes else None
    far, number = emulated.nms(gpu, boxes, scores, 0.5, classes, first=2**31)
    same = classes if classes is not None else torch.zeros(4500, dtype=torch.int64)
    assert torch.equal(far[:number], reference.batched_nms(boxes, scores, same, 0.5))
    assert (far[number:] == -1).all()


def test_many_tiles() -> None:
    """More tiles than a grid has in its second and third dimension, and more than 400,000 boxes; results alone."""
    gpu = Device(build("coverage"))
    rows, column = random_boxes(32 * 65_540), random_boxes(1)
    assert torch.equal(emulated.box_iou(gpu, rows[None], column[None])[0], reference.box_iou(rows, column))
    count = 400_001
    boxes, scores, classes = rows[:count].contiguous(), torch.rand(count), torch.arange(count) % 1000
    kept, number = emulated.nms(gpu, boxes, scores, 0.3, classes)
    assert torch.equal(kept[:number], batched_nms(boxes, scores, classes, 0.3))


def test_nms_of_more_words_than_threads() -> None:
    """The compacting block goes round more than once; with the race checker."""
    nms_of_many(Device(build("races")))


def test_random_schedules_find_nothing(schedule: int) -> None:
    """Every kernel in random orders of threads and blocks: the same results, and no report."""
    gpu = Device(build("races"), "random", schedule)
    logits, labels = focal_inputs(60, 9, torch.float32, "labels")
    forward = Device(gpu.program)
    for mean in (False, True):
        mine = emulated.focal_loss_reduced(gpu, logits, labels, mean=mean)
        assert torch.equal(mine[0], emulated.focal_loss_reduced(forward, logits, labels, mean=mean)[0])
    close(
        emulated.focal_loss(gpu, logits, labels, order=1), focal_expected(logits, labels, 0.25, 2.0, 1), torch.float32
    )
    emulated.scale_gradient(gpu, logits, 2.0)
    assert emulated.count_labels(gpu, labels, 9)[0] == (labels != -1).sum() * 9
    boxes, scores = random_boxes(200), torch.rand(200)
    matches, foreground = emulated.match_anchors(gpu, boxes, [boxes[:20]])
    assert torch.equal(matches[0], reference.match_anchors(boxes, boxes[:20])) and foreground[0] == (matches >= 0).sum()
    classes = torch.randint(0, 3, (200,))
    kept, number = emulated.nms(gpu, boxes, scores, 0.3, classes)
    assert torch.equal(kept[:number], reference.batched_nms(boxes, scores, classes, 0.3))
    assert torch.equal(emulated.box_iou(gpu, boxes[None, :40], boxes[None])[0], reference.box_iou(boxes[:40], boxes))
    emulated.box_coding(gpu, "decode", boxes, boxes.flip(0).contiguous())
