"""soft_nms against the stepwise definition, its limits, and its own contract."""

from __future__ import annotations

import math

import pytest
import torch
from boxes import boxes_at_iou, odd_boxes, random_boxes
from torch import Tensor

from retina_ops import batched_nms, box_iou, nms, reference, soft_nms

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
METHODS = ("linear", "gaussian")
# One box, a block of lanes of 16 and its neighbours, the size from which boxes are grouped, several groups an octave.
SIZES = (0, 1, 2, 15, 17, 64, 65, 300, 1000)
# exp differs from torch's by rounding, and so does a product of some tens of them.
RTOL = {torch.float32: 2e-5, torch.float64: 1e-12, torch.float16: 2e-3, torch.bfloat16: 1e-2}


def case(count: int, device: str, dtype: torch.dtype = torch.float32, side: float = 300.0) -> tuple[Tensor, Tensor]:
    return random_boxes(count, device, high=100, width=side, height=side).to(dtype), torch.rand(count, device=device)


def check(boxes: Tensor, scores: Tensor, threshold: float, method: str, *options: float, idxs: Tensor | None = None):  # type: ignore[no-untyped-def]
    """Linear decays hold the same operations as the reference: equal. Gaussian ones hold another exp: equal but for
    rounding, and so is the order."""
    keep, decayed = soft_nms(boxes, scores, threshold, method, *options, idxs=idxs)
    expected_keep, expected = reference.soft_nms(boxes, scores, threshold, method, *options, idxs=idxs)
    assert keep.dtype == torch.int64 and decayed.dtype == scores.dtype and keep.device == boxes.device
    if method == "linear":
        assert torch.equal(keep, expected_keep) and torch.equal(decayed, expected)
        return
    rtol = RTOL[scores.dtype] if boxes.dtype == torch.float64 or scores.dtype != torch.float64 else 1e-12
    assert torch.equal(keep.sort().values, expected_keep.sort().values)
    by_box, expected_by_box = torch.zeros_like(scores), torch.zeros_like(scores)
    by_box[keep], expected_by_box[expected_keep] = decayed, expected
    torch.testing.assert_close(by_box, expected_by_box, rtol=rtol, atol=1e-37)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", SIZES)
def test_matches_reference(device: str, count: int, dtype: torch.dtype, method: str) -> None:
    boxes, scores = case(count, device, dtype)
    check(boxes, scores, 0.3, method)
    check(boxes, scores, 0.3, method, 0.2, 0.0)  # nothing is dropped
    classes = torch.randint(0, 7, (count,), device=device)
    check(boxes, scores, 0.1, method, 0.5, 0.1, idxs=classes)


@pytest.mark.parametrize("threshold", [-0.1, 0.0, 0.05, 0.5, 0.95, 1.0, float("nan")])
def test_every_threshold(device: str, threshold: float) -> None:
    for count, side in ((40, 300), (700, 300), (700, 3000)):
        boxes, scores = case(count, device, side=side)
        check(boxes, scores, threshold, "linear")
        check(boxes.round(), (scores * 16).round() / 16, threshold, "linear")  # ties of scores and of IoUs


@pytest.mark.parametrize("score_dtype", DTYPES)
@pytest.mark.parametrize("method", METHODS)
def test_score_dtypes(device: str, method: str, score_dtype: torch.dtype) -> None:
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        boxes, scores = case(400, device, dtype)
        check(boxes, scores.to(score_dtype), 0.3, method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_odd_boxes(device: str, dtype: torch.dtype, method: str) -> None:
    """Without area, infinite, tiny, NaN: alone, and hidden among enough ordinary boxes that they are grouped."""
    odd = odd_boxes(device).to(dtype)
    for extra in (0, 400):
        ordinary = random_boxes(extra, device, high=30, width=60, height=60).to(dtype) - 20
        boxes = torch.cat([odd, ordinary])[torch.randperm(len(odd) + extra, device=device)]
        scores = torch.rand(len(boxes), device=device)
        for threshold, min_score in ((0.0, 0.001), (0.5, 0.0)):
            check(boxes, scores, threshold, method, 0.5, min_score)


def test_sizes_over_many_octaves(device: str) -> None:
    size = 2.0 ** (torch.rand(900, 2, device=device) * 24 - 12)
    corner = torch.rand(900, 2, device=device) * 4
    boxes, scores = torch.cat([corner, corner + size], dim=1), torch.rand(900, device=device)
    check(boxes, scores, 0.05, "linear")
    check(boxes.flip(0), scores, 0.0, "gaussian")


def test_worked_example(device: str) -> None:
    """By hand: the second box decays to 0.75 x 0.2, under the third; the third is of another place."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8], [20, 0, 30, 10], [0, 0, 5, 10]], device=device)
    scores = torch.tensor([1.0, 0.75, 0.5, 0.25], device=device)
    keep, decayed = soft_nms(boxes, scores, 0.5)
    assert keep.tolist() == [0, 2, 3, 1]  # an IoU of exactly 0.5 is not above it
    torch.testing.assert_close(decayed.cpu(), torch.tensor([1.0, 0.5, 0.25, 0.15]))
    keep, decayed = soft_nms(boxes[:2], scores[:2], 0.5, "gaussian", 0.4)
    assert keep.tolist() == [0, 1]
    assert decayed[1].item() == pytest.approx(0.75 * math.exp(-0.8 * 0.8 / 0.4), rel=1e-6)


@pytest.mark.parametrize("iou", [0.3, 0.5, 1 / 3])
def test_iou_around_the_threshold(device: str, iou: float) -> None:
    """Pairs an ulp above and below: compared as a double would, on every device."""
    boxes = boxes_at_iou(300, iou, device)
    pairs = torch.arange(len(boxes), device=device) // 2
    scores = torch.tensor([0.9, 0.8], device=device).repeat(300)
    check(boxes, scores, iou, "linear", idxs=pairs)
    own = box_iou(boxes[0::2], boxes[1::2]).diagonal().double()
    keep, decayed = soft_nms(boxes, scores, iou, idxs=pairs)
    assert 0 < int((own > iou).sum()) == int((decayed[keep % 2 == 1] < 0.8).sum()) < 300


@pytest.mark.parametrize("sigma", [1e-40, 1e-3, 10.0, 1e40])
def test_extreme_sigma(device: str, sigma: float) -> None:
    """The smallest: any overlap that does not underflow is fatal; the largest: nothing decays."""
    boxes, scores = case(200, device)
    check(boxes, scores, 0.5, "gaussian", sigma)
    keep, decayed = soft_nms(boxes, scores, 0.5, "gaussian", sigma)
    if sigma == 1e-40:
        assert torch.equal(keep, nms(boxes, scores, 1e-19))
    if sigma == 1e40:
        assert torch.equal(decayed, scores[keep]) and len(keep) == int((scores >= 0.001).sum())


def test_ties_take_the_lowest_index(device: str) -> None:
    boxes, _ = case(500, device)
    scores = torch.randint(0, 3, (500,), device=device) / 2
    scores[::7] = -0.0  # equal to 0
    for method in METHODS:
        keep, decayed = soft_nms(boxes, scores, 0.5, method, 0.5, 0.0)
        assert len(keep) == 500
        keys = list(zip((-decayed).tolist(), keep.tolist(), strict=True))
        assert keys == sorted(keys)
    check(boxes, scores, 0.5, "linear", 0.5, 0.0)


def test_min_score(device: str) -> None:
    """Inclusive, rounded to the arithmetic's dtype: a float32 score of 0.7 is kept at 0.7."""
    far = torch.tensor([[0.0, 0, 1, 1], [5, 5, 6, 6], [9, 9, 10, 10]], device=device)
    scores = torch.tensor([0.7, 0.69, 0.71], device=device)
    assert soft_nms(far, scores, 0.5, min_score=0.7)[0].tolist() == [2, 0]
    boxes, scores = case(300, device)
    for method in METHODS:
        for lowest in (0.0, 0.2, 0.9, 2.0, math.inf):
            _, decayed = soft_nms(boxes, scores, 0.2, method, min_score=lowest)
            assert (decayed >= lowest).all()
            check(boxes, scores, 0.2, method, 0.5, lowest)


@pytest.mark.parametrize("method", METHODS)
def test_scores_that_are_no_numbers(device: str, method: str) -> None:
    """NaN is never kept; inf stays, or becomes NaN where a factor is 0; negative scores are under any min_score."""
    boxes, scores = case(200, device)
    scores[::3], scores[1], scores[4], scores[7] = math.nan, math.inf, -math.inf, -1.0
    boxes[2] = boxes[1]
    scores[2] = math.inf
    check(boxes, scores, 0.5, method, 0.5, 0.0)
    keep, decayed = soft_nms(boxes, scores, 0.5, method, 0.5, 0.0)
    assert not decayed.isnan().any() and keep[0] == 1 and 4 not in keep and 7 not in keep
    assert (2 in keep) == (method == "gaussian")
    assert len(soft_nms(boxes, scores * math.nan, 0.5, method)[0]) == 0


def test_limits_are_hard_nms(device: str) -> None:
    """A box of the highest score among those it overlaps is untouched; where every overlap drops a box, it is NMS."""
    boxes, scores = case(800, device, side=800)
    classes = torch.randint(0, 3, (800,), device=device)
    top = soft_nms(boxes, scores, 0.0, "gaussian", 1e-30, 1e-6)
    assert torch.equal(top[0], nms(boxes, scores, 1e-14)[: len(top[0])]) and torch.equal(top[1], scores[top[0]])
    by_class = soft_nms(boxes, scores, 0.0, "gaussian", 1e-30, 1e-6, idxs=classes)
    assert torch.equal(by_class[0], batched_nms(boxes, scores, classes, 1e-14))


def test_scores_only_fall_and_the_best_stays(device: str) -> None:
    boxes, scores = case(1500, device)
    for method in METHODS:
        keep, decayed = soft_nms(boxes, scores, 0.3, method)
        assert (decayed <= scores[keep]).all() and (decayed.diff() <= 0).all() and len(keep.unique()) == len(keep)
        assert keep[0] == scores.argmax() and decayed[0] == scores.max()


def test_classes_do_not_meet(device: str) -> None:
    """Any values; a class alone gives what it gives among the others."""
    boxes, scores = case(900, device)
    values = torch.tensor([0, -1, 2**62, -(2**62), 7], device=device)
    classes = values[torch.randint(0, 5, (900,), device=device)]
    for method in METHODS:
        keep, decayed = soft_nms(boxes, scores, 0.2, method, idxs=classes)
        for value in values:
            mine = classes == value
            alone = soft_nms(boxes[mine], scores[mine], 0.2, method)
            of_class = classes[keep] == value
            assert torch.equal(mine.nonzero()[:, 0][alone[0]], keep[of_class])
            assert torch.equal(alone[1], decayed[of_class])
        assert (decayed.diff() <= 0).all()
    few = torch.randint(0, 9, (900,), device=device)
    for dtype in (torch.int32, torch.uint8):
        assert torch.equal(
            soft_nms(boxes, scores, 0.2, idxs=few.to(dtype))[0], soft_nms(boxes, scores, 0.2, idxs=few)[0]
        )


def test_exp_is_accurate(device: str) -> None:
    """Decays of pairs over the whole range of exponents, against exp in float64."""
    share = torch.linspace(0.02, 1, 400, dtype=torch.float64, device=device)
    boxes = torch.zeros(800, 4, dtype=torch.float64, device=device)
    boxes[:, 2:] = 1
    boxes[1::2, 2] = share
    scores = torch.tensor([2.0, 1.0], device=device).repeat(400)
    pairs = torch.arange(800, device=device) // 2
    for dtype, rtol in ((torch.float32, 8e-6), (torch.float64, 2e-14)):  # an exponent of 83 is rounded three times
        for sigma in (0.012, 0.5):
            keep, decayed = soft_nms(boxes.to(dtype), scores.to(dtype), 0.5, "gaussian", sigma, 0.0, idxs=pairs)
            second = torch.zeros(800, dtype=dtype, device=device).index_copy(0, keep, decayed)[1::2]
            exact = box_iou(boxes.to(dtype)[0::2], boxes.to(dtype)[1::2]).diagonal().double()
            torch.testing.assert_close(second.double(), torch.exp(-exact * exact / sigma), rtol=rtol, atol=0)
