"""Anchor matching of an image and of a batch: ours, the plain PyTorch reference, torchvision's Matcher over box_iou."""

from __future__ import annotations

import pytest
import torch
import torchvision
from cases import image_anchors, random_boxes
from harness import measure
from torch import Tensor
from torchvision.models.detection._utils import Matcher

from retina_ops import match_anchors, reference

# Not bfloat16: rounded to it, small boxes lose their area, and then torchvision's Matcher takes every anchor.
DTYPES = {"float32": torch.float32, "float64": torch.float64, "float16": torch.float16}
BOXES = {"16 boxes": 16, "500 boxes": 500}
FULL_BOXES = {**BOXES, "100 boxes": 100}


def torchvision_match(anchors: Tensor, boxes: Tensor) -> Tensor:
    return Matcher(0.5, 0.4, allow_low_quality_matches=True)(torchvision.ops.box_iou(boxes, anchors))


ROWS = {
    "retina_ops": match_anchors,
    "reference": reference.match_anchors,
    "reference_compiled": torch.compile(reference.match_anchors),
    "torchvision": torchvision_match,
}


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [*FULL_BOXES, "every anchor overlaps every box"])
def bench_match(benchmark, device: str, size: str, dtype: str, row: str, full: bool) -> None:
    if (size not in BOXES or dtype != "float32") and not full:
        pytest.skip("--full")
    if dtype != "float32" and size != "500 boxes":
        pytest.skip("other dtypes at one size")
    anchors = image_anchors(800, 1344, device)
    if size in FULL_BOXES:
        boxes = random_boxes(FULL_BOXES[size], device, (1333, 800))
    else:  # nothing that is cut off in space helps
        centre = torch.rand(100, 2, device=device) * 8 + 500
        boxes = torch.cat([centre - 700, centre + 700], dim=1)
        anchors = torch.cat([centre[:1] - 300, centre[:1] + 300], dim=1) + torch.rand(len(anchors), 4, device=device)
    anchors, boxes = anchors.to(DTYPES[dtype]), boxes.to(DTYPES[dtype])
    function = ROWS[row]

    def verify() -> None:
        got, expected = function(anchors, boxes), match_anchors(anchors, boxes)
        if dtype == "float16" and row == "torchvision":  # its IoU is rounded to float16: close, not equal
            assert (got != expected).float().mean() < 0.01
        else:
            assert torch.equal(got, expected)

    benchmark.group = f"match_anchors, {len(anchors)} anchors, {size}, {dtype}, {device}"
    anchor_bytes = anchors.numel() * anchors.element_size()
    moved = anchor_bytes + boxes.numel() * boxes.element_size() + len(anchors) * 8
    measure(
        benchmark,
        device,
        lambda: function(anchors, boxes),
        operator=("match_anchors" if size in FULL_BOXES else "match_anchors, all overlap")
        + ("" if dtype == "float32" else f", {dtype}"),
        size=len(boxes),
        moved=moved,
        tensor_bytes=anchor_bytes,
        verify=verify,
    )


@pytest.mark.parametrize("row", ("retina_ops", "torchvision"))
def bench_match_batch(benchmark, device: str, row: str, full: bool) -> None:
    """8 images of 100 boxes; torchvision has no batch and takes image by image."""
    if not (full or device == "cuda"):
        pytest.skip("--full")
    anchors = image_anchors(800, 1344, device)
    boxes = [random_boxes(100, device, (1333, 800)) for _ in range(8)]

    def run() -> list[Tensor]:
        if row == "torchvision":
            return [torchvision_match(anchors, its) for its in boxes]
        return match_anchors(anchors, boxes)

    def verify() -> None:
        for got, its in zip(run(), boxes, strict=True):
            assert torch.equal(got, match_anchors(anchors, its))

    benchmark.group = f"match_anchors, 8 images, {len(anchors)} anchors, 100 boxes, float32, {device}"
    measure(
        benchmark,
        device,
        run,
        operator="match_anchors, 8 images",
        size=8 * 100,
        moved=anchors.numel() * 4 + 8 * (100 * 16 + len(anchors) * 8),
        tensor_bytes=anchors.numel() * 4,
        verify=verify,
    )
