"""Soft non-maximum suppression: ours and the plain PyTorch reference; torchvision has none. Beside them hard NMS."""

from __future__ import annotations

import re

import pytest
import torch
from cases import random_boxes
from harness import measure
from torch import Tensor

from retina_ops import nms, reference, soft_nms

ROWS = {"retina_ops": soft_nms, "reference": reference.soft_nms}
COUNTS = (100, 1_000, 20_000)
FULL_COUNTS = (*COUNTS, 5_000)
SLOWEST = 1_000  # boxes of the reference: a step costs a dozen launches over all boxes, and the IoU matrix memory


def is_left_out(row: str, count: int, full: bool) -> bool:
    return (row == "reference" and count > SLOWEST) or (count not in COUNTS and not full)


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("method", ["linear", "gaussian"])
@pytest.mark.parametrize("count", FULL_COUNTS)
def bench_soft_nms(benchmark, device: str, count: int, method: str, row: str, full: bool) -> None:
    if is_left_out(row, count, full):
        pytest.skip("--full" if row == "retina_ops" else "too slow")
    boxes, scores = random_boxes(count, device), torch.rand(count, device=device)
    run(benchmark, device, f"soft_nms {method}, {count} boxes", ROWS[row], (boxes, scores, 0.5, method))


@pytest.mark.parametrize("method", ["linear", "gaussian"])
def bench_soft_nms_on_one_centre(benchmark, device: str, method: str) -> None:
    """Boxes around one point, of which few are dropped: every pair is met."""
    side = torch.rand(3_000, 2, device=device) * 100 + 20
    boxes, scores = torch.cat([500 - side, 500 + side], dim=1), torch.rand(3_000, device=device)
    run(benchmark, device, f"soft_nms {method}, 3000 boxes on one centre", soft_nms, (boxes, scores, 0.5, method, 9, 0))


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("count", (1_000, 20_000))
def bench_soft_nms_of_classes(benchmark, device: str, count: int, row: str) -> None:
    if is_left_out(row, count, True):
        pytest.skip("too slow")
    boxes, scores = random_boxes(count, device), torch.rand(count, device=device)
    classes = torch.randint(0, 80, (count,), device=device)
    group = f"soft_nms linear, {count} boxes, 80 classes"
    run(benchmark, device, group, ROWS[row], (boxes, scores, 0.5), idxs=classes)


@pytest.mark.parametrize("count", (1_000, 20_000))
def bench_nms_beside(benchmark, device: str, count: int) -> None:
    """What the hard decision costs on the same boxes."""
    boxes, scores = random_boxes(count, device), torch.rand(count, device=device)
    run(benchmark, device, f"nms beside soft_nms, {count} boxes", nms, (boxes, scores, 0.5))


def run(benchmark, device: str, group: str, function, arguments, idxs: Tensor | None = None) -> None:
    keywords = {} if idxs is None else {"idxs": idxs}
    boxes, scores = arguments[:2]

    def verify() -> None:
        if function is nms or len(boxes) > SLOWEST:
            return
        keep, decayed = function(*arguments, **keywords)
        expected, expected_scores = reference.soft_nms(*arguments, **keywords)
        assert torch.equal(keep.sort().values, expected.sort().values)
        torch.testing.assert_close(decayed, expected_scores, rtol=1e-4, atol=1e-6)

    kept = function(*arguments, **keywords)
    written = sum(t.numel() * t.element_size() for t in (kept if isinstance(kept, tuple) else (kept,)))
    benchmark.group = f"{group}, float32, {device}"
    measure(
        benchmark,
        device,
        lambda: function(*arguments, **keywords),
        operator=re.sub(r", \d+ boxes", "", group),
        size=len(boxes),
        moved=boxes.numel() * 4 + scores.numel() * 4 + written,
        tensor_bytes=boxes.numel() * 4,
        verify=verify,
    )
