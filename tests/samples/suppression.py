"""Inputs of nms, batched_nms, nms_padded and soft_nms."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from inputs.boxes import boxes_at_iou, odd_boxes, random_boxes
from torch import Tensor

from retina_ops import reference

from .row import EXACT, FLOATS, Refused, Sample, Tolerance

COUNTS = {
    0: "no boxes",
    1: "one box",
    2: "two boxes",
    15: "a box less than a vector of 16",
    17: "a box more than a vector of 16",
    31: "a box less than a word of 32",
    33: "a box more than a word of 32",
    63: "a box less than a tile of 64",
    64: "a tile of 64",
    65: "a box more than a tile of 64",
    300: "several tiles",
    511: "a box less than where a grid is used",
    513: "a box more than where a grid is used",
    1000: "a grid",
}
THRESHOLDS = {
    -0.1: "below every IoU: distance proves nothing",
    0.0: "any overlap",
    0.05: "low",
    0.3: "usual",
    0.5: "usual",
    0.7: "usual",
    0.95: "high",
    1.0: "above every IoU",
    1.5: "above every possible IoU",
    math.nan: "NaN: nothing is above it",
}


def inputs(count: int, dtype: torch.dtype, side: float = 300.0) -> dict[str, Tensor]:
    return {"boxes": random_boxes(count, high=120, width=side, height=side).to(dtype), "scores": torch.rand(count)}


def hard_cases(dtype: torch.dtype) -> Iterator[tuple[str, dict[str, Tensor], float]]:
    """Boxes and scores, with a threshold."""
    for count, why in COUNTS.items():
        for threshold in (0.0, 0.5):
            yield why, inputs(count, dtype), threshold
    for score_dtype in FLOATS:
        scores = (torch.randn(700) * 4).to(score_dtype)
        scores[5], scores[6], scores[::9] = math.inf, -math.inf, math.nan
        yield f"infinite and NaN scores in {score_dtype}", {**inputs(700, dtype), "scores": scores}, 0.5
    if dtype in (torch.float16, torch.bfloat16):
        return  # they are widened to float32, in which everything is compared
    for threshold, why in THRESHOLDS.items():
        for count in (40, 700):
            case = inputs(count, dtype)
            yield f"threshold {threshold}, {why}", case, threshold
            yield f"threshold {threshold}, whole pixels: ties", {**case, "boxes": case["boxes"].round()}, threshold
    for iou in (0.3, 0.5, 1 / 3):
        boxes = boxes_at_iou(300, iou).to(dtype)
        yield f"IoUs within a few ulps of {iou:.3g}", {"boxes": boxes, "scores": torch.rand(len(boxes))}, iou
    for extra in (0, 800):
        ordinary = random_boxes(extra, high=30, width=60, height=60) - 20
        boxes = torch.cat([odd_boxes(), ordinary])[torch.randperm(len(odd_boxes()) + extra)].to(dtype)
        for threshold in (0.0, 0.3, 0.5, 0.9):
            why = f"boxes without area, infinite and NaN among {extra} others"
            yield why, {"boxes": boxes, "scores": torch.rand(len(boxes))}, threshold
    size = 2.0 ** (torch.rand(900, 2) * 24 - 12)
    corner = torch.rand(900, 2) * 4
    boxes = torch.cat([corner, corner + size], dim=1).to(dtype)
    for threshold in (0.0, 0.01, 0.2, 0.6):
        yield "sizes over 24 octaves", {"boxes": boxes, "scores": torch.rand(900)}, threshold
    scores = torch.randint(0, 3, (700,)).float()
    scores[::7] = -0.0  # equal to 0
    yield "equal scores", {**inputs(700, dtype), "scores": scores}, 0.5


def classes_of(count: int) -> Tensor:
    """Classes of any value, few enough that boxes of one class meet."""
    return torch.tensor([0, -1, 2**62, -(2**62), 7])[torch.randint(0, 5, (count,))]


def nms(dtype: torch.dtype) -> Iterator[Sample]:
    for why, case, threshold in hard_cases(dtype):
        yield Sample(why, **case, iou_threshold=threshold)


def batched_nms(dtype: torch.dtype) -> Iterator[Sample]:
    for why, case, threshold in hard_cases(dtype):
        yield Sample(why, **case, idxs=classes_of(len(case["boxes"])), iou_threshold=threshold)
    case = inputs(700, dtype)
    yield Sample("more classes than boxes of a class", **case, idxs=torch.randint(0, 1203, (700,)), iou_threshold=0.2)
    for integer in (torch.int32, torch.uint8):
        few = torch.randint(0, 9, (700,)).to(integer)
        yield Sample(f"classes in {integer}", **case, idxs=few, iou_threshold=0.5)


def nms_padded(dtype: torch.dtype) -> Iterator[Sample]:
    """Of any size, also under the number of kept boxes; the rest is that of nms."""
    for count in (0, 1, 40, 700):
        case = inputs(count, dtype)
        for size in (0, 1, 7, count, count + 100):
            for idxs in (None, classes_of(count)):
                why = f"{size} outputs for {count} boxes"
                yield Sample(why, **case, iou_threshold=0.5, max_output=size, idxs=idxs)


def pad(
    boxes: Tensor, scores: Tensor, iou_threshold: float, max_output: int, *, idxs: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The definition of :func:`retina_ops.nms_padded`."""
    classes = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device) if idxs is None else idxs
    kept = reference.batched_nms(boxes, scores, classes, iou_threshold)[:max_output]
    padding = torch.full((max_output - len(kept),), -1, device=boxes.device)
    return torch.cat([kept, padding]), torch.tensor(len(kept), device=boxes.device)


# Gaussian decays hold another exp than torch's, and products of some tens of its results, rounded to the dtype of the
# scores. Linear ones hold the operations of the reference and are equal.
GAUSSIAN = {torch.float32: 2e-5, torch.float64: 2.4e-7, torch.float16: 2e-3, torch.bfloat16: 1e-2}


def soft_nms(dtype: torch.dtype) -> Iterator[Sample]:
    for why, case, threshold in hard_cases(dtype):
        yield Sample(why, **case, iou_threshold=threshold)
    sparse = inputs(700, dtype, side=3000)
    yield Sample("few overlaps", **sparse, iou_threshold=0.0)
    tied = (sparse["scores"] * 16).round() / 16
    yield Sample("ties of scores and of IoUs", boxes=sparse["boxes"].round(), scores=tied, iou_threshold=0.05)
    for lowest in (0.0, 0.2, 0.9, 2.0, math.inf):
        yield Sample(f"scores from {lowest}", **inputs(200, dtype), iou_threshold=0.2, min_score=lowest)
    for method, tolerance in (("linear", EXACT), ("naive", EXACT), ("gaussian", Tolerance(GAUSSIAN[dtype]))):
        for count, why in COUNTS.items():
            keeps_all = {"iou_threshold": 0.3, "method": method, "sigma": 0.2, "min_score": 0.0}
            yield Sample(f"{why}, {method}, nothing is dropped", tolerance, **inputs(count, dtype), **keeps_all)
            by_class = {"iou_threshold": 0.1, "method": method, "min_score": 0.1, "idxs": classes_of(count)}
            yield Sample(f"{why}, {method}, classes", tolerance, **inputs(count, dtype), **by_class)
        for score_dtype in FLOATS:
            case = {**inputs(400, dtype), "scores": torch.rand(400, dtype=torch.float64).to(score_dtype)}
            coarser = tolerance if tolerance == EXACT else Tolerance(max(GAUSSIAN[dtype], GAUSSIAN[score_dtype]))
            yield Sample(f"{method}, scores in {score_dtype}", coarser, **case, iou_threshold=0.3, method=method)
        boxes = torch.cat([odd_boxes(), random_boxes(400, high=30, width=60, height=60) - 20]).to(dtype)
        case = {"boxes": boxes, "scores": torch.rand(len(boxes)), "method": method}
        for lowest in (0.001, 0.0):
            why = f"{method}, boxes without area, infinite and NaN, scores from {lowest}"
            yield Sample(why, tolerance, **case, iou_threshold=0.5, min_score=lowest)
    for sigma in (1e-40, 1e-3, 10.0, 1e40):
        case = {**inputs(200, dtype), "method": "gaussian", "sigma": sigma}
        yield Sample(f"sigma {sigma}", Tolerance(GAUSSIAN[dtype]), **case, iou_threshold=0.5)


def small(dtype: torch.dtype, size: int) -> dict[str, Tensor]:
    """Many overlaps, and scores apart enough that none changes places for a small step."""
    boxes = random_boxes(size, low=30, high=60, width=70, height=70).to(dtype)
    return {"boxes": boxes, "scores": (torch.randperm(size) + 1).to(dtype) / (size + 1)}


def small_nms(dtype: torch.dtype, size: int) -> Iterator[Sample]:
    yield Sample("ordinary boxes", **small(dtype, 4 * size), iou_threshold=0.3)


def small_batched_nms(dtype: torch.dtype, size: int) -> Iterator[Sample]:
    idxs = torch.arange(4 * size) % 3
    yield Sample("three classes", **small(dtype, 4 * size), idxs=idxs, iou_threshold=0.3)


def small_nms_padded(dtype: torch.dtype, size: int) -> Iterator[Sample]:
    idxs = torch.arange(4 * size) % 3
    yield Sample("no classes", **small(dtype, 4 * size), iou_threshold=0.3, max_output=10)
    yield Sample("three classes", **small(dtype, 4 * size), idxs=idxs, iou_threshold=0.3, max_output=10)


def small_soft_nms(dtype: torch.dtype, size: int) -> Iterator[Sample]:
    for method, tolerance in (("linear", EXACT), ("gaussian", Tolerance(GAUSSIAN[dtype]))):
        options = {"iou_threshold": 0.1, "method": method, "min_score": 1e-4}
        yield Sample(f"{method}, no classes", tolerance, **small(dtype, 2 * size), **options)
        classes = torch.arange(2 * size) % 2
        yield Sample(f"{method}, classes", tolerance, **small(dtype, 2 * size), idxs=classes, **options)


def large_nms(dtype: torch.dtype) -> Iterator[Sample]:
    yield Sample("4,000 boxes", **inputs(4000, dtype, side=1000), iou_threshold=0.5)


def large_batched_nms(dtype: torch.dtype) -> Iterator[Sample]:
    idxs = torch.randint(0, 20, (4000,))
    yield Sample("4,000 boxes, 20 classes", **inputs(4000, dtype), idxs=idxs, iou_threshold=0.5)


def large_nms_padded(dtype: torch.dtype) -> Iterator[Sample]:
    yield Sample("4,000 boxes", **inputs(4000, dtype, side=1000), iou_threshold=0.5, max_output=300)


def large_soft_nms(dtype: torch.dtype) -> Iterator[Sample]:
    idxs = torch.randint(0, 20, (3000,))
    options = {"idxs": idxs, "iou_threshold": 0.3, "method": "gaussian"}
    yield Sample("3,000 boxes, 20 classes", Tolerance(GAUSSIAN[dtype]), **inputs(3000, dtype), **options)


def refused(name: str, **required: object) -> Callable[[], Iterator[Refused]]:
    """Bad boxes, scores and classes; `required` are further arguments of the function."""

    def of_name() -> Iterator[Refused]:
        boxes, scores, good = random_boxes(7), torch.rand(7), torch.zeros(7, dtype=torch.int64)
        operator = "nms" if name == "batched_nms" else name
        needed = {"iou_threshold": 0.5, **required, **({"idxs": good} if name == "batched_nms" else {})}

        def bad(error: type[Exception], message: str, **arguments: object) -> Refused:
            return Refused(error, message, {"boxes": boxes, "scores": scores, **needed, **arguments})

        yield bad(RuntimeError, rf"^{operator}: boxes must be \[N, 4\], got \[7, 5\]", boxes=torch.rand(7, 5))
        yield bad(RuntimeError, rf"^{operator}: scores must be \[7\], got \[6\]", scores=scores[:6])
        dtypes = "must be float16, bfloat16, float32 or float64, got int64"
        yield bad(RuntimeError, rf"^{operator}: boxes {dtypes}", boxes=boxes.long())
        yield bad(RuntimeError, rf"^{operator}: scores {dtypes}", scores=scores.long())
        if name != "nms":
            yield bad(RuntimeError, rf"^{operator}: idxs must be \[7\], got \[3\]", idxs=good[:3])
            yield bad(RuntimeError, rf"^{name}: idxs must be real, got torch\.complex64", idxs=scores + 0j)
        if name == "nms_padded":
            yield bad(RuntimeError, "nms_padded: max_output must be at least 0, got -1", max_output=-1)
        if name == "soft_nms":
            message = "soft_nms: method must be 'linear', 'gaussian' or 'naive', got 'hard'"
            yield bad(ValueError, message, method="hard")
            for sigma in (0.0, -1.0, math.nan, math.inf):
                yield bad(ValueError, "soft_nms: sigma must be positive and finite, got", sigma=sigma)
            for lowest in (-0.1, math.nan):
                yield bad(ValueError, "soft_nms: min_score must be at least 0, got", min_score=lowest)
            message = r"soft_nms: boxes take no gradient, .* pass boxes\.detach\(\)"
            yield bad(RuntimeError, message, boxes=random_boxes(7).requires_grad_())

    return of_name
