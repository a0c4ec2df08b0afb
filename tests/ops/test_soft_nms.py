"""soft_nms: worked examples, limits, properties, gradients, and what the contracts do not ask."""

from __future__ import annotations

import math

import pytest
import torch
from inputs.boxes import boxes_at_iou, random_boxes
from torch import Tensor

from retina_ops import batched_nms, box_iou, nms, reference, soft_nms

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
METHODS = ("linear", "gaussian")


def case(count: int, device: str, dtype: torch.dtype = torch.float32, side: float = 300.0) -> tuple[Tensor, Tensor]:
    return random_boxes(count, device, high=100, width=side, height=side).to(dtype), torch.rand(count, device=device)


def check(boxes: Tensor, scores: Tensor, threshold: float, method: str, *options: float, idxs: Tensor | None = None):  # type: ignore[no-untyped-def]
    """Linear decays take the operations of the reference: they are equal. Gaussian ones take another exp, which rounds
    differently and may change the order."""
    keep, decayed = soft_nms(boxes, scores, threshold, method, *options, idxs=idxs)
    expected_keep, expected = reference.soft_nms(boxes, scores, threshold, method, *options, idxs=idxs)
    if method == "linear":
        assert torch.equal(keep, expected_keep) and torch.equal(decayed, expected)
        return
    assert torch.equal(keep.sort().values, expected_keep.sort().values)
    by_box, expected_by_box = torch.zeros_like(scores), torch.zeros_like(scores)
    by_box[keep], expected_by_box[expected_keep] = decayed, expected
    # A product of some tens of results of exp.
    torch.testing.assert_close(by_box, expected_by_box, rtol=2e-5, atol=1e-37)


def test_worked_example(device: str) -> None:
    """By hand: the second box decays to 0.75 x 0.2, below the third, which overlaps none."""
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


# --- gradients, tracing, errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_gradient_is_the_decay(device: str, dtype: torch.dtype) -> None:
    boxes, scores = case(300, device)
    mine, theirs = (scores.to(dtype).requires_grad_() for _ in range(2))
    keep, decayed = soft_nms(boxes, mine, 0.1)
    with torch.no_grad():
        without = soft_nms(boxes, mine, 0.1)
    assert torch.equal(keep, without[0]) and torch.equal(decayed, without[1])
    assert decayed.requires_grad and not keep.requires_grad and not without[1].requires_grad
    weight = torch.rand(len(keep), device=device).to(dtype)
    expected_keep, expected = reference.soft_nms(boxes, theirs, 0.1)
    (grad,) = torch.autograd.grad(decayed, mine, weight)
    (expected_grad,) = torch.autograd.grad(expected, theirs, weight)
    assert torch.equal(keep, expected_keep) and torch.equal(grad, expected_grad)
    dropped = torch.ones(300, dtype=torch.bool, device=device).index_fill(0, keep, False)
    assert (grad[dropped] == 0).all()


def test_score_of_zero_has_a_gradient(device: str) -> None:
    boxes, scores = case(1, device)
    boxes = torch.cat([boxes, boxes + 1])
    scores = torch.tensor([0.5, 0.0], device=device, requires_grad=True)
    keep, decayed = soft_nms(boxes, scores, 0.1, min_score=0.0)
    (grad,) = torch.autograd.grad(decayed.sum(), scores)
    assert keep.tolist() == [0, 1] and grad[0] == 1 and 0 < grad[1] < 1


def test_rejects_boxes_with_gradient(device: str) -> None:
    """The decays depend on the boxes: zeros would be wrong."""
    boxes, scores = case(20, device)
    boxes.requires_grad_()
    with pytest.raises(RuntimeError, match=r"soft_nms: boxes take no gradient, .* pass boxes\.detach\(\)"):
        soft_nms(boxes, scores, 0.5)
    with torch.no_grad():
        kept = soft_nms(boxes, scores, 0.5)
    assert torch.equal(kept[0], soft_nms(boxes.detach(), scores, 0.5)[0])


def test_nothing_reaches_min_score(device: str) -> None:
    boxes, scores = case(5, device)
    keep, decayed = soft_nms(boxes, scores, 0.5, min_score=2)
    assert keep.shape == decayed.shape == (0,)


@pytest.mark.parametrize("gradient", [False, True])
def test_compiles_with_its_result_as_an_index(device: str, gradient: bool) -> None:
    torch._dynamo.reset()

    def best(boxes: Tensor, scores: Tensor) -> Tensor:
        keep, decayed = soft_nms(boxes, scores, 0.5)
        return (boxes[keep].sum(dim=1) * decayed).sum()

    compiled = torch.compile(best, fullgraph=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True, capture_dynamic_output_shape_ops=True):
        for _ in range(3):
            boxes, scores = case(40, device)
            scores.requires_grad_(gradient)
            mine, theirs = compiled(boxes, scores), best(boxes, scores)
            torch.testing.assert_close(mine, theirs)
            if gradient:
                torch.testing.assert_close(*(torch.autograd.grad(value, scores)[0] for value in (mine, theirs)))


def test_operator_rejects_min_score(device: str) -> None:
    boxes, scores = case(7, device)
    with pytest.raises(RuntimeError, match="soft_nms: min_score must be at least 0, got -1"):
        torch.ops.retina_ops.soft_nms(boxes, scores, None, 0.5, False, 0.5, -1.0)


def test_naive_is_nms(device: str) -> None:
    """As mmcv's method of this name: hard suppression with the results of soft_nms; scores have their gradient."""
    boxes = random_boxes(300, device, high=60, width=200, height=200)
    scores, idxs = torch.rand(300, device=device).requires_grad_(), torch.arange(300, device=device) % 4
    keep, kept_scores = soft_nms(boxes, scores, 0.4, "naive", min_score=0.3, idxs=idxs)
    expected = batched_nms(boxes, scores, idxs, 0.4)
    assert torch.equal(keep, expected[scores[expected] >= 0.3]) and 0 < len(keep) < len(expected)
    assert torch.equal(kept_scores, scores[keep])
    (gradient,) = torch.autograd.grad(kept_scores.sum(), scores)
    assert torch.equal(gradient.nonzero().flatten(), keep.sort().values) and gradient.sum() == len(keep)
    assert torch.equal(soft_nms(boxes, scores, 0.4, "naive", min_score=0.0)[0], nms(boxes, scores, 0.4))
