"""nms, batched_nms and nms_padded against the greedy definition, torchvision, and their own contract."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
import torchvision
from boxes import boxes_at_iou, odd_boxes, random_boxes
from torch import Tensor

from retina_ops import batched_nms, box_iou, nms, nms_padded, reference

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
# Thresholds under and at 0 (distance proves nothing, any overlap), usual ones, 1 and above, and NaN.
THRESHOLDS = (-0.1, 0.0, 0.05, 0.3, 0.5, 0.7, 0.95, 1.0, 1.5, float("nan"))
# One box, a word of 32, a tile of 64 and its neighbours, the size from which a grid is used, several chunks.
SIZES = (0, 1, 2, 31, 33, 63, 64, 65, 511, 513, 1000, 2500)


def case(count: int, device: str, dtype: torch.dtype = torch.float32, crowded: bool = True) -> tuple[Tensor, Tensor]:
    side = 300.0 if crowded else 2000.0
    boxes = random_boxes(count, device, high=120, width=side, height=side)
    return boxes.to(dtype), torch.rand(count, device=device)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", SIZES)
def test_matches_reference(device: str, count: int, dtype: torch.dtype) -> None:
    boxes, scores = case(count, device, dtype)
    for threshold in (0.0, 0.3, 0.5, 0.7):
        kept = nms(boxes, scores, threshold)
        assert kept.dtype == torch.int64 and kept.device == boxes.device
        assert torch.equal(kept, reference.nms(boxes, scores, threshold))
    classes = torch.randint(0, 7, (count,), device=device)
    assert torch.equal(batched_nms(boxes, scores, classes, 0.4), reference.batched_nms(boxes, scores, classes, 0.4))


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_every_threshold(device: str, threshold: float) -> None:
    for count in (40, 700):
        boxes, scores = case(count, device)
        assert torch.equal(nms(boxes, scores, threshold), reference.nms(boxes, scores, threshold))
        whole = boxes.round()  # ties of IoU with the threshold
        assert torch.equal(nms(whole, scores, threshold), reference.nms(whole, scores, threshold))


def test_negative_threshold_and_negative_area(device: str) -> None:
    pair = torch.tensor([[194.5, 64.5, 195.5, 94.75], [181.0, 202.25, 171.75, 209.75]], device=device)
    for boxes in (pair, torch.cat([pair, pair.flip(0) * 1.5])):
        scores = torch.arange(len(boxes), 0, -1, device=device) / 10
        for threshold in (-0.1, -1.0, 0.0):
            assert torch.equal(nms(boxes, scores, threshold), reference.nms(boxes, scores, threshold))


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.9])
def test_matches_torchvision(device: str, threshold: float) -> None:
    """Distinct scores; torchvision's threshold is a float on CUDA, so it is given one that floats hold."""
    threshold = float(torch.tensor(threshold))
    for count in (1, 100, 3000):
        boxes, _ = case(count, device, crowded=False)
        scores = torch.randperm(count, device=device).float()
        assert torch.equal(nms(boxes, scores, threshold), torchvision.ops.nms(boxes, scores, threshold))
        classes = torch.randint(-3, 9, (count,), device=device)
        oracle = torchvision.ops.boxes._batched_nms_vanilla(boxes, scores, classes, threshold)
        assert torch.equal(batched_nms(boxes, scores, classes, threshold), oracle)


@pytest.mark.parametrize("iou", [0.3, 0.5, 0.7, 1 / 3])
def test_iou_around_the_threshold(device: str, iou: float) -> None:
    """Pairs an ulp or two above and below: compared as a double would, on every device."""
    boxes = boxes_at_iou(700, iou, device)
    scores = torch.rand(len(boxes), device=device)
    own = box_iou(boxes[0::2], boxes[1::2]).diagonal().double()
    assert (own > iou).any() and (own < iou).any()
    pairs = torch.arange(len(boxes), device=device) // 2
    kept = batched_nms(boxes, scores, pairs, iou)
    assert len(kept) == len(boxes) - int((own > iou).sum())
    assert torch.equal(kept, reference.batched_nms(boxes, scores, pairs, iou))
    assert torch.equal(nms(boxes, scores, iou), reference.nms(boxes, scores, iou))


def test_double_threshold_differs_from_float() -> None:
    """An IoU of exactly float(0.3) is above the double 0.3: torchvision on CUDA keeps both, we suppress everywhere."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [0.0, 0, 10, 3]])
    scores = torch.tensor([0.9, 0.8])
    iou = box_iou(boxes[:1], boxes[1:]).item()
    assert iou == float(torch.tensor(0.3)) > 0.3
    assert nms(boxes, scores, 0.3).tolist() == [0]
    assert nms(boxes, scores, iou).tolist() == [0, 1]


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_odd_boxes(device: str, dtype: torch.dtype, threshold: float) -> None:
    """Alone, and hidden among enough ordinary boxes that a grid is used."""
    odd = odd_boxes(device).to(dtype)
    for extra in (0, 800):
        ordinary = random_boxes(extra, device, high=30, width=60, height=60).to(dtype) - 20
        boxes = torch.cat([odd, ordinary])[torch.randperm(len(odd) + extra, device=device)]
        scores = torch.rand(len(boxes), device=device)
        assert torch.equal(nms(boxes, scores, threshold), reference.nms(boxes, scores, threshold))


@pytest.mark.parametrize("exponent", [-20, -8, 0, 6, 12, 18])
def test_scale_changes_nothing(device: str, exponent: int) -> None:
    """Multiplying by a power of two is exact, so the same boxes are kept, by whatever path."""
    boxes, scores = case(900, device)
    kept = nms(boxes, scores, 0.5)
    assert 0 < len(kept) < 900
    assert torch.equal(nms(boxes * 2.0**exponent, scores, 0.5), kept)


def test_sizes_over_many_octaves(device: str) -> None:
    size = 2.0 ** (torch.rand(1500, 2, device=device) * 24 - 12)
    corner = torch.rand(1500, 2, device=device) * 4
    boxes = torch.cat([corner, corner + size], dim=1)
    scores = torch.rand(1500, device=device)
    for threshold in (0.0, 0.01, 0.2, 0.6):
        assert torch.equal(nms(boxes, scores, threshold), reference.nms(boxes, scores, threshold))


def test_equal_scores_keep_input_order(device: str) -> None:
    boxes, _ = case(1200, device)
    scores = torch.randint(0, 3, (1200,), device=device).float()
    scores[::7] = -0.0  # equal to 0
    kept = nms(boxes, scores, 0.5)
    assert torch.equal(kept, reference.nms(boxes, scores, 0.5))
    keys = list(zip((-scores[kept]).tolist(), kept.tolist(), strict=True))
    assert keys == sorted(keys)


def test_greedy_property(device: str) -> None:
    """No kept box overlaps a kept one too much; every dropped box is overlapped by a kept one of higher score."""
    boxes, scores = case(3000, device)
    classes = torch.randint(0, 4, (3000,), device=device)
    kept = batched_nms(boxes, scores, classes, 0.5)
    over = (box_iou(boxes, boxes[kept]) > 0.5) & (classes[:, None] == classes[kept])
    among = over[kept]
    among.fill_diagonal_(False)
    assert not among.any()
    dropped = torch.ones(3000, dtype=torch.bool, device=device)
    dropped[kept] = False
    higher = scores[kept][None] >= scores[:, None]
    assert (over & higher)[dropped].any(dim=1).all() and dropped.any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_scores_are_not_kept(device: str, dtype: torch.dtype) -> None:
    """torchvision keeps them, first."""
    boxes, scores = case(50, device)
    scores = scores.to(dtype)
    scores[::3] = float("nan")
    kept = nms(boxes, scores, 0.5)
    assert not scores[kept].isnan().any()
    assert torch.equal(kept, reference.nms(boxes, scores, 0.5))
    assert torchvision.ops.nms(boxes.cpu(), scores.float().cpu(), 0.5)[0] == 0
    scores[:] = float("nan")
    assert len(nms(boxes, scores, 0.5)) == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_score_dtypes_and_infinities(device: str, dtype: torch.dtype) -> None:
    boxes, _ = case(900, device)
    scores = (torch.randn(900, device=device) * 4).to(dtype)
    scores[5], scores[6] = float("inf"), float("-inf")
    assert torch.equal(nms(boxes, scores, 0.5), reference.nms(boxes, scores, 0.5))


def test_classes_of_any_value(device: str) -> None:
    """No offsets: huge, negative and sparse class ids, coordinates below zero, and thousands of classes."""
    boxes, scores = case(1500, device)
    values = torch.tensor([0, -1, 2**62, -(2**62), 7], device=device)
    classes = values[torch.randint(0, 5, (1500,), device=device)]
    for moved in (boxes, boxes - 1e5, boxes + 1e6):
        expected = reference.batched_nms(moved, scores, classes, 0.5)
        assert torch.equal(batched_nms(moved, scores, classes, 0.5), expected)
    many = torch.randint(0, 1203, (1500,), device=device)
    assert torch.equal(batched_nms(boxes, scores, many, 0.2), reference.batched_nms(boxes, scores, many, 0.2))
    for dtype in (torch.int32, torch.uint8):
        few = torch.randint(0, 9, (1500,), device=device)
        assert torch.equal(batched_nms(boxes, scores, few.to(dtype), 0.5), batched_nms(boxes, scores, few, 0.5))


def test_offset_trick_is_wrong_where_ours_is_right() -> None:
    """torchvision moves classes apart by an offset, which rounds: two classes at 1e6 pixels lose their overlaps."""
    boxes = torch.tensor([[0.0, 0, 1, 1], [0.3, 0, 1.3, 1], [1e7, 1e7, 2e7, 2e7]])
    scores, classes = torch.tensor([0.9, 0.8, 0.7]), torch.tensor([1, 1, 0])
    oracle = torchvision.ops.boxes._batched_nms_vanilla(boxes, scores, classes, 0.5)
    assert torch.equal(batched_nms(boxes, scores, classes, 0.5), oracle)
    assert not torch.equal(torchvision.ops.boxes._batched_nms_coordinate_trick(boxes, scores, classes, 0.5), oracle)


def test_large(device: str) -> None:
    """More boxes than several CUDA chunks of 4,096; a field where few overlap and one where most do."""
    for side in (200.0, 3000.0):
        boxes = random_boxes(9000, device, width=side, height=side)
        scores = torch.rand(9000, device=device)
        kept = nms(boxes, scores, 0.5)
        assert torch.equal(kept.cpu(), torchvision.ops.nms(boxes.cpu(), scores.cpu(), 0.5))
        classes = torch.randint(0, 3, (9000,), device=device)
        oracle = torchvision.ops.boxes._batched_nms_vanilla(boxes.cpu(), scores.cpu(), classes.cpu(), 0.5)
        assert torch.equal(batched_nms(boxes, scores, classes, 0.5).cpu(), oracle)


@pytest.mark.parametrize("count", [0, 1, 40, 900])
def test_padded(device: str, count: int) -> None:
    boxes, scores = case(count, device)
    classes = torch.randint(0, 3, (count,), device=device)
    for idxs in (None, classes):
        full = nms(boxes, scores, 0.5) if idxs is None else batched_nms(boxes, scores, idxs, 0.5)
        for size in (0, 1, len(full), len(full) + 5, count + 100):
            kept, number = nms_padded(boxes, scores, 0.5, size, idxs=idxs)
            expected = torch.full((size,), -1, device=device)
            expected[: min(size, len(full))] = full[:size]
            assert torch.equal(kept, expected)
            assert number.shape == () and number.dtype == torch.int64 and int(number) == min(size, len(full))


def test_non_contiguous(device: str) -> None:
    boxes, scores = case(600, device)
    wide = torch.stack([boxes, boxes], dim=1)[:, 0]
    strided = torch.stack([scores, scores], dim=1)[:, 1]
    assert not wide.is_contiguous() and not strided.is_contiguous()
    assert torch.equal(nms(wide, strided, 0.5), nms(boxes, scores, 0.5))
    unaligned = torch.cat([torch.zeros(1, device=device), boxes.flatten()])[1:].view(-1, 4)
    assert torch.equal(nms(unaligned, scores, 0.5), nms(boxes, scores, 0.5))


def test_takes_no_gradient(device: str) -> None:
    boxes, scores = case(50, device)
    kept = nms(boxes.requires_grad_(), scores.requires_grad_(), 0.5)
    assert not kept.requires_grad


def test_threads_do_not_change_results() -> None:
    boxes, scores = case(6000, "cpu")
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(nms(boxes, scores, 0.5))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_every_instruction_set(isa: str) -> None:
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "import torch; from boxes import random_boxes, odd_boxes; from retina_ops import nms, reference\n"
        "b = torch.cat([random_boxes(1500, width=300, height=300), odd_boxes()]); s = torch.rand(len(b))\n"
        "for n in (100, len(b)): assert torch.equal(nms(b[:n], s[:n], .5), reference.nms(b[:n], s[:n], .5))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "RETINA_OPS_ISA": isa}, capture_output=True, text=True
    )
    assert run.returncode == 0 or "one that this processor has" in run.stderr, run.stderr


def test_opcheck(device: str) -> None:
    boxes, scores = case(30, device)
    classes = torch.randint(0, 3, (30,), device=device)
    for idxs in (None, classes):
        torch.library.opcheck(torch.ops.retina_ops.nms.default, (boxes, scores, idxs, 0.5))
        torch.library.opcheck(torch.ops.retina_ops.nms_padded.default, (boxes, scores, idxs, 0.5, 10))


def test_compiles_without_recompile(device: str) -> None:
    torch._dynamo.reset()

    def best(boxes: Tensor, scores: Tensor) -> Tensor:
        return boxes[nms(boxes, scores, 0.5)].sum() + nms_padded(boxes, scores, 0.5, 8)[1]

    compiled = torch.compile(best, fullgraph=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True, capture_dynamic_output_shape_ops=True):
        for _ in range(3):
            boxes, scores = case(40, device)
            torch.testing.assert_close(compiled(boxes, scores), best(boxes, scores))


def test_rejects_bad_tensors(device: str) -> None:
    boxes, scores = case(7, device)
    with pytest.raises(RuntimeError, match=r"nms: boxes must be \[N, 4\], got \[7, 5\]"):
        nms(torch.rand(7, 5, device=device), scores, 0.5)
    with pytest.raises(RuntimeError, match=r"nms: scores must be \[7\], got \[6\]"):
        nms(boxes, scores[:6], 0.5)
    with pytest.raises(RuntimeError, match="nms: boxes must be float16, bfloat16, float32 or float64, got int64"):
        nms(boxes.long(), scores, 0.5)
    with pytest.raises(RuntimeError, match=r"nms: idxs must be \[7\], got \[3\]"):
        batched_nms(boxes, scores, torch.zeros(3, dtype=torch.int64, device=device), 0.5)
    with pytest.raises(RuntimeError, match=r"batched_nms: idxs must be integers, got torch\.float32"):
        batched_nms(boxes, scores, scores, 0.5)
    with pytest.raises(RuntimeError, match="nms_padded: max_output must be at least 0, got -1"):
        nms_padded(boxes, scores, 0.5, -1)


def test_rejects_torchscript() -> None:
    with pytest.raises(RuntimeError, match=r"retina_ops\.nms: TorchScript is not supported"):
        torch.jit.script(nms)(*case(3, "cpu"), 0.5)
