"""Non-maximum suppression: ours, the plain PyTorch reference, torchvision."""

from __future__ import annotations

import pytest
import torch
import torchvision
from cases import DTYPES, random_boxes
from harness import measure
from torch import Tensor

from retina_ops import batched_nms, nms, reference

COUNTS = (1, 1_000, 20_000)
FULL_COUNTS = (*COUNTS, 4_000, 100_000)
NMS = {"retina_ops": nms, "reference": reference.nms, "torchvision": torchvision.ops.nms}
NMS["torchvision_op"] = torch.ops.torchvision.nms  # without torchvision's Python around it
BATCHED = {
    "retina_ops": batched_nms,
    "reference": reference.batched_nms,
    "torchvision": torchvision.ops.batched_nms,
}


def moved(boxes: Tensor, kept: Tensor) -> int:
    return (boxes.numel() + len(boxes)) * boxes.element_size() + len(kept) * 8


def torchvision_in_float32(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """torchvision's has no half precision on the CPU: what its users write."""
    return torchvision.ops.nms(boxes.float(), scores.float(), iou_threshold)


def is_left_out(row: str, count: int, device: str) -> bool:
    """The reference compares every pair: 100,000 boxes take hours. The bare operator shows the cost of a call."""
    return (
        (row == "torchvision_op" and count > 1)
        or (row == "reference" and count > 4_000)
        or (count > 20_000 and row == "torchvision" and device == "cpu")
    )


@pytest.mark.parametrize("row", NMS)
@pytest.mark.parametrize("count", FULL_COUNTS)
def bench_nms(benchmark, device: str, count: int, row: str, full: bool) -> None:
    if (count not in COUNTS and not (full or device == "cuda")) or is_left_out(row, count, device):
        pytest.skip("--full")
    boxes, scores = random_boxes(count, device), torch.rand(count, device=device)
    run(benchmark, device, "nms", f"nms, {count} boxes", NMS[row], nms, (boxes, scores, 0.5))


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype != "float32"])
@pytest.mark.parametrize("row", ("retina_ops", "torchvision"))
def bench_nms_in(benchmark, device: str, row: str, dtype: str, full: bool) -> None:
    if not full:
        pytest.skip("--full")
    boxes, scores = random_boxes(20_000, device).to(DTYPES[dtype]), torch.rand(20_000, device=device).to(DTYPES[dtype])
    function = torchvision_in_float32 if (row, dtype) == ("torchvision", "bfloat16") else NMS[row]
    run(benchmark, device, f"nms, {dtype}", "nms, 20000 boxes", function, nms, (boxes, scores, 0.5))


@pytest.mark.parametrize("row", ("retina_ops", "torchvision"))
def bench_nms_on_one_centre(benchmark, device: str, row: str) -> None:
    """Boxes around one point: no cut-off in space can help."""
    side = torch.rand(20_000, 2, device=device) * 100 + 20
    boxes, scores = torch.cat([500 - side, 500 + side], dim=1), torch.rand(20_000, device=device)
    run(benchmark, device, "nms, one centre", "nms, 20000 boxes on one centre", NMS[row], nms, (boxes, scores, 0.5))


@pytest.mark.parametrize("row", BATCHED)
@pytest.mark.parametrize("count", (1_000, 20_000, 100_000))
def bench_batched_nms(benchmark, device: str, count: int, row: str, full: bool) -> None:
    if count > 20_000 and not (full or device == "cuda"):
        pytest.skip("--full")
    if row == "reference" and count > 4_000:
        pytest.skip("too slow")
    boxes, scores = random_boxes(count, device), torch.rand(count, device=device)
    classes = torch.randint(0, 80, (count,), device=device)
    group = f"batched_nms, {count} boxes, 80 classes"
    run(benchmark, device, "batched_nms", group, BATCHED[row], batched_nms, (boxes, scores, classes, 0.5))


def run(benchmark, device: str, operator: str, group: str, function, ours, arguments) -> None:
    def verify() -> None:
        kept, expected = function(*arguments), ours(*arguments)
        if function is not torchvision.ops.batched_nms:  # its class offsets round: close, not equal
            assert torch.equal(kept, expected)
        assert abs(len(kept) - len(expected)) <= len(expected) // 1000

    boxes = arguments[0]
    benchmark.group = f"{group}, {str(boxes.dtype).removeprefix('torch.')}, {device}"
    measure(
        benchmark,
        device,
        lambda: function(*arguments),
        operator=operator,
        size=len(boxes),
        moved=moved(boxes, ours(*arguments)),
        tensor_bytes=max(boxes.numel() * boxes.element_size(), 16),
        verify=verify,
    )
