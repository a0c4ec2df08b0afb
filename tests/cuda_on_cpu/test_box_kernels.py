"""Box IoU, box coding, matching and NMS on the emulated device, against `retina_ops.reference`."""

from __future__ import annotations

import pytest
import torch
from inputs.boxes import boxes_at_iou, odd_boxes, random_boxes

from retina_ops import reference

from .device import Device
from .inputs import DTYPES, HALF, near
from .rooms.anchor_matching import match_anchors
from .rooms.box_coding import box_coding
from .rooms.box_iou import box_iou
from .rooms.nms import nms


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_box_iou(gpu: Device, dtype: torch.dtype) -> None:
    for batch, n, m, offset in ((1, 1, 1, 0), (2, 33, 7, 0), (1, 5, 516, 0), (2, 31, 130, 4), (1, 40, 513, 0)):
        first = torch.stack([random_boxes(n) for _ in range(batch)]).to(dtype)
        second = torch.stack([random_boxes(m) for _ in range(batch)]).to(dtype)
        assert torch.equal(box_iou(gpu, first, second, offset=offset), reference.box_iou(first, second))
    odd = odd_boxes().to(dtype)[None]
    got, expected = box_iou(gpu, odd, odd), reference.box_iou(odd, odd)
    assert torch.equal(got.nan_to_num(nan=-9.0), expected.nan_to_num(nan=-9.0))


CODING = [(dtype, dtype) for dtype in DTYPES] + [(dtype, torch.float32) for dtype in HALF]


@pytest.mark.parametrize(("code_dtype", "proposal_dtype"), CODING, ids=str)
def test_box_coding(gpu: Device, code_dtype: torch.dtype, proposal_dtype: torch.dtype) -> None:
    weights = (10.0, 10.0, 5.0, 5.0)
    for count, period, offset in ((1, 1, 0), (300, 300, 0), (257, 257, 1), (512, 128, 0)):
        proposals, boxes = random_boxes(period).to(proposal_dtype), random_boxes(count).to(code_dtype)
        deltas = (torch.randn(count, 4) * 0.5).to(code_dtype)
        deltas[0, 2] = 90.0  # clamped
        repeated = proposals.repeat(count // period, 1)
        grad = torch.randn(count, 4).to(proposal_dtype)
        for op, codes in (("encode", boxes), ("decode", deltas)):
            size = (480, 640) if op == "decode" else None
            a, p = (t.to(torch.float64, copy=True).requires_grad_() for t in (codes, repeated))
            if op == "encode":
                expected = reference.encode_boxes(a, p, weights)
            else:
                expected = reference.decode_boxes(a, p, weights, image_size=size)
            got, _ = box_coding(gpu, op, codes, proposals, weights, image_size=size, offset=offset)
            near(got, expected.detach(), proposal_dtype)
            gradients = torch.autograd.grad(expected, (a, p), grad.double())
            found = box_coding(
                gpu, f"{op}_backward", codes, proposals, weights, grad=grad, image_size=size, offset=offset
            )
            for gradient, right in zip(found, gradients, strict=True):
                assert gradient is not None
                near(gradient, right, proposal_dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_match_anchors(gpu: Device, dtype: torch.dtype) -> None:
    truth = [random_boxes(12), random_boxes(0), random_boxes(70), random_boxes(1)]
    truth = [boxes.to(dtype) for boxes in truth]
    regions = [random_boxes(3).to(dtype), random_boxes(0).to(dtype), random_boxes(40).to(dtype), truth[3]]
    shared = random_boxes(700).to(dtype)
    own = torch.stack([random_boxes(300) for _ in truth]).to(dtype)
    for anchors, low_quality, fg, bg, ignored, offset in (
        (shared, True, 0.5, 0.4, None, 0),
        (shared, False, 0.5, 0.4, regions, 0),
        (own, True, 0.3, 0.3, regions, 1),
        (shared[:1], True, 0.7, 0.0, None, 0),  # background threshold 0: every pair counts
        (own, True, 0.9, 0.9, None, 0),
    ):
        got, foreground = match_anchors(gpu, anchors, truth, fg, bg, low_quality, regions=ignored, offset=offset)
        assert torch.equal(foreground, (got >= 0).sum(dim=1))
        for image, boxes in enumerate(truth):
            own_anchors = anchors[image] if anchors.dim() == 3 else anchors
            region = ignored[image] if ignored is not None else None
            expected = reference.match_anchors(own_anchors, boxes, fg, bg, low_quality, ignore_regions=region)
            assert torch.equal(got[image], expected), (image, fg, bg, low_quality)
    for lowest in (0.3, 0.6):
        got, _ = match_anchors(gpu, shared, truth, 0.7, 0.3, regions=regions, min_pos_iou=lowest)
        for image, boxes in enumerate(truth):
            options = {"ignore_regions": regions[image], "min_pos_iou": lowest}
            assert torch.equal(got[image], reference.match_anchors(shared, boxes, 0.7, 0.3, **options)), (image, lowest)


def test_match_anchors_adversarial(gpu: Device) -> None:
    odd = odd_boxes()
    ties = boxes_at_iou(100, 0.5)
    for anchors, boxes in ((odd, odd), (ties, ties[::2].contiguous()), (random_boxes(200), odd)):
        matches, _ = match_anchors(gpu, anchors, [boxes])
        assert torch.equal(matches[0], reference.match_anchors(anchors, boxes))


def test_match_anchors_with_counts_past_the_array(gpu: Device) -> None:
    anchors, full = random_boxes(200), random_boxes(8)  # as many as the padded arrays hold
    got, _ = match_anchors(gpu, anchors, [full], regions=[full.flip(0)], surplus=1)
    assert torch.equal(got[0], reference.match_anchors(anchors, full, ignore_regions=full.flip(0)))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nms(gpu: Device, dtype: torch.dtype) -> None:
    for count, score_dtype, threshold, offset in (
        (1, torch.float32, 0.5, 0),
        (64, torch.float64, 0.3, 0),
        (65, torch.float16, 0.0, 1),
        (500, torch.bfloat16, 0.5, 0),
    ):
        boxes = random_boxes(count, high=300).to(dtype)
        scores = torch.rand(count, dtype=torch.float64).to(score_dtype)
        expected = reference.nms(boxes, scores, threshold)
        kept, number = nms(gpu, boxes, scores, threshold, offset=offset)
        assert torch.equal(kept[:number], expected) and (kept[number:] == -1).all()
        few, number = nms(gpu, boxes, scores, threshold, max_output=3)
        assert torch.equal(few[:number], expected[:3]) and number == min(3, len(expected))
        classes = torch.randint(0, 5, (count,))
        kept, number = nms(gpu, boxes, scores, threshold, classes, max_output=count + 7)
        assert torch.equal(kept[:number], reference.batched_nms(boxes, scores, classes, threshold))
        assert (kept[number:] == -1).all()


def test_nms_adversarial(gpu: Device) -> None:
    odd = odd_boxes()
    scores = torch.rand(len(odd))
    scores[::5] = float("nan")
    kept, number = nms(gpu, odd, scores, 0.5)
    assert torch.equal(kept[:number], reference.nms(odd, scores, 0.5))
    ties = boxes_at_iou(150, 0.3)
    same = torch.ones(len(ties))
    kept, number = nms(gpu, ties, same, 0.3)
    assert torch.equal(kept[:number], reference.nms(ties, same, 0.3))


def test_nms_of_several_chunks(gpu: Device) -> None:
    """More boxes than a chunk has, 4096, and a rest that is no whole tile."""
    boxes, scores = random_boxes(4096 + 130, low=2, high=8), torch.rand(4096 + 130)
    boxes[4090:4200] = boxes[:110] + 0.1  # overlaps between the chunks
    expected = reference.nms(boxes, scores, 0.5)
    kept, number = nms(gpu, boxes, scores, 0.5)
    assert torch.equal(kept[:number], expected) and number < len(boxes)
    classes = torch.randint(0, 3, (len(boxes),))
    kept, number = nms(gpu, boxes, scores, 0.5, classes)
    assert torch.equal(kept[:number], reference.batched_nms(boxes, scores, classes, 0.5))
