"""nms, batched_nms and nms_padded: torchvision's results, properties, and what the contracts do not ask."""

from __future__ import annotations

import pytest
import torch
import torchvision
from inputs.boxes import boxes_at_iou, random_boxes
from torch import Tensor

from retina_ops import batched_nms, box_iou, nms, nms_padded, reference, soft_nms

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def case(count: int, device: str, dtype: torch.dtype = torch.float32, crowded: bool = True) -> tuple[Tensor, Tensor]:
    side = 300.0 if crowded else 2000.0
    boxes = random_boxes(count, device, high=120, width=side, height=side)
    return boxes.to(dtype), torch.rand(count, device=device)


def test_negative_threshold_and_negative_area(device: str) -> None:
    pair = torch.tensor([[194.5, 64.5, 195.5, 94.75], [181.0, 202.25, 171.75, 209.75]], device=device)
    for boxes in (pair, torch.cat([pair, pair.flip(0) * 1.5])):
        scores = torch.arange(len(boxes), 0, -1, device=device) / 10
        for threshold in (-0.1, -1.0, 0.0):
            assert torch.equal(nms(boxes, scores, threshold), reference.nms(boxes, scores, threshold))


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.9])
def test_matches_torchvision(device: str, threshold: float) -> None:
    """Distinct scores. torchvision rounds the threshold to float32 on CUDA: here float32 holds it."""
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


@pytest.mark.parametrize("exponent", [-20, -8, 0, 6, 12, 18])
def test_scale_changes_nothing(device: str, exponent: int) -> None:
    """Multiplying by a power of two is exact, so the same boxes are kept, by whatever path."""
    boxes, scores = case(900, device)
    kept = nms(boxes, scores, 0.5)
    assert 0 < len(kept) < 900
    assert torch.equal(nms(boxes * 2.0**exponent, scores, 0.5), kept)


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


def test_compiles_without_recompile(device: str) -> None:
    torch._dynamo.reset()

    def best(boxes: Tensor, scores: Tensor) -> Tensor:
        return boxes[nms(boxes, scores, 0.5)].sum() + nms_padded(boxes, scores, 0.5, 8)[1]

    compiled = torch.compile(best, fullgraph=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True, capture_dynamic_output_shape_ops=True):
        for _ in range(3):
            boxes, scores = case(40, device)
            torch.testing.assert_close(compiled(boxes, scores), best(boxes, scores))


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int32, torch.uint8]
)
def test_classes_of_any_dtype(device: str, dtype: torch.dtype) -> None:
    """A column of a YOLO's output holds classes as floats."""
    boxes, scores = case(400, device)
    classes = torch.randint(0, 9, (400,), device=device)
    expected = batched_nms(boxes, scores, classes, 0.4)
    assert torch.equal(batched_nms(boxes, scores, classes.to(dtype), 0.4), expected)
    padded, count = nms_padded(boxes, scores, 0.4, 400, idxs=classes.to(dtype))
    assert torch.equal(padded[:count], expected)
    soft, of_floats = (soft_nms(boxes, scores, 0.4, idxs=idxs) for idxs in (classes, classes.to(dtype)))
    assert all(map(torch.equal, soft, of_floats))


def test_floating_classes_are_compared_exactly(device: str) -> None:
    """As by torchvision's loop over classes: 0.5 and 0.25 are two, -0.0 is 0.0; a column of a table has a stride."""
    boxes, scores = case(300, device)
    table = torch.randn(300, 6, device=device)
    values = torch.tensor([0.5, 0.25, -0.0, 0.0, -3.5, 1e-30, torch.inf], device=device)
    table[:, 5] = values[torch.randint(0, 7, (300,), device=device)]
    table.requires_grad_()
    expected = torchvision.ops.boxes._batched_nms_vanilla(boxes, scores, table[:, 5].detach(), 0.4)
    assert torch.equal(batched_nms(boxes, scores, table[:, 5], 0.4), expected)


def test_no_boxes_of_shape_0(device: str) -> None:
    """``torch.tensor([])``, which torchvision's batched_nms takes."""
    nothing = torch.tensor([], device=device)
    for idxs in (nothing, nothing.long()):
        expected = torchvision.ops.batched_nms(nothing, nothing, idxs, 0.5)
        got = batched_nms(nothing, nothing, idxs, 0.5)
        assert got.dtype == expected.dtype and got.shape == expected.shape == (0,)
        assert [each.tolist() for each in nms_padded(nothing, nothing, 0.5, 2, idxs=idxs)] == [[-1, -1], 0]
        assert [each.tolist() for each in soft_nms(nothing, nothing, 0.5, idxs=idxs)] == [[], []]
    with pytest.raises(RuntimeError, match=r"nms: boxes must be \[N, 4\], got \[0\]"):
        nms(nothing, nothing, 0.5)  # as torchvision's


@pytest.mark.filterwarnings("ignore")  # quantization is deprecated
def test_quantized_tensors_are_refused() -> None:
    """torchvision's nms takes them on the CPU."""
    boxes, scores = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]]), torch.tensor([0.5, 0.9, 0.3])
    quantized = [
        torch.quantize_per_tensor(values, scale, 0, torch.quint8) for values, scale in ((boxes, 1), (scores, 0.01))
    ]
    assert torchvision.ops.nms(*quantized, 0.5).tolist() == [1, 2] == nms(boxes, scores, 0.5).tolist()
    with pytest.raises(RuntimeError):
        nms(*quantized, 0.5)
    with pytest.raises(RuntimeError):
        box_iou(quantized[0], quantized[0])
    assert nms(*(each.dequantize() for each in quantized), 0.5).tolist() == [1, 2]
