"""Inputs of operators on pairs of boxes: pairwise IoU, IoU losses, box coding."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from inputs.boxes import random_boxes
from torch import Tensor

from .row import Refused, Sample

Samples = Callable[[torch.dtype], Iterator[Sample]]
# Rows and columns of a matrix of pairs.
PAIRWISE = {
    (0, 3): "no rows",
    (3, 0): "no columns",
    (1, 1): "one pair",
    (3, 511): "a column less than a block of 512",
    (3, 512): "a block of 512 columns",
    (65, 513): "a column more than a block of 512, a row more than a tile of 64",
    (63, 65): "a column more than a block of 64",
    (65, 64): "a row more than a tile of 64",
    (130, 1023): "several tiles of rows, a column less than a tile of 1024",
    (7, 1025): "a column more than a tile of 1024",
    (200, 2100): "several tiles of both",
}
# Numbers of matched boxes.
COUNTS = {
    0: "no boxes",
    1: "one box",
    31: "a box less than a block of 32",
    32: "a block of 32",
    33: "a box more than a block of 32",
    63: "a box less than a block of 64",
    64: "a block of 64",
    65: "a box more than a block of 64",
    4095: "a box less than a chunk of 4096",
    4097: "a box more than a chunk of 4096",
    20_000: "several threads",
}


def tiny_boxes(count: int, dtype: torch.dtype) -> Tensor:
    """Boxes of 1 to 3 pixels close together, whose derivatives are of ordinary size."""
    return random_boxes(count, low=1, high=3, width=4, height=4).to(dtype)


def wide_boxes(count: int, dtype: torch.dtype) -> Tensor:
    """Boxes that stay boxes when bfloat16 rounds them."""
    return random_boxes(count, low=24, width=300, height=300).to(dtype)


def near_pairs(count: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Boxes and others near them: nearly all overlap, each in its own way."""
    boxes = random_boxes(count, low=24)
    return boxes.to(dtype), (boxes + torch.randn_like(boxes).clamp(-2, 2) * 4).to(dtype)


# --- pairwise IoU -----------------------------------------------------------------------------------------------------


def pairwise(dtype: torch.dtype) -> Iterator[Sample]:
    for (rows, columns), why in PAIRWISE.items():
        yield Sample(why, boxes1=wide_boxes(rows, dtype), boxes2=wide_boxes(columns, dtype))
    many, few = wide_boxes(2 * 3 * 70, dtype).view(2, 3, 70, 4), wide_boxes(3 * 7, dtype).view(1, 3, 7, 4)
    yield Sample("leading dimensions that broadcast", boxes1=many, boxes2=few)
    yield Sample("fewer leading dimensions", boxes1=many, boxes2=few[0, 0])
    if dtype != torch.float64:
        yield Sample("the second set in float32", boxes1=many, boxes2=few.float())


def box_iou(dtype: torch.dtype) -> Iterator[Sample]:
    yield from pairwise(dtype)
    for fmt in ("xywh", "cxcywh"):
        yield Sample(f"format {fmt}", boxes1=wide_boxes(40, dtype), boxes2=wide_boxes(50, dtype), fmt=fmt)


def small_pairwise(dtype: torch.dtype, size: int) -> Iterator[Sample]:
    yield Sample("ordinary pairs", boxes1=tiny_boxes(size, dtype), boxes2=tiny_boxes(size - 2, dtype))
    if dtype != torch.float64:
        yield Sample("two dtypes", boxes1=tiny_boxes(size, dtype), boxes2=tiny_boxes(size - 2, torch.float32))


def large_pairwise(dtype: torch.dtype) -> Iterator[Sample]:
    yield Sample("1,500,000 pairs", boxes1=wide_boxes(500, dtype), boxes2=wide_boxes(3000, dtype))


def refused_pairwise(name: str) -> Callable[[], Iterator[Refused]]:
    def refused() -> Iterator[Refused]:
        boxes = random_boxes(3)
        form = rf"^{name}: boxes1 must be \[\.\.\., N, 4\], got"
        yield Refused(RuntimeError, rf"{form} \[3, 3\]", {"boxes1": boxes[:, :3], "boxes2": boxes})
        yield Refused(RuntimeError, rf"{form} \[4\]", {"boxes1": boxes[0], "boxes2": boxes})
        yield Refused(RuntimeError, rf"{form} \[3, 1\]", {"boxes1": torch.rand(3, 1), "boxes2": boxes})
        message = rf"^{name}: boxes2 must be real, got torch\.complex64"
        yield Refused(RuntimeError, message, {"boxes1": boxes, "boxes2": boxes.to(torch.complex64)})
        message = rf"^{name}: leading dimensions must broadcast, got \[2, 3, 4\] and \[3, 3, 4\]"
        yield Refused(RuntimeError, message, {"boxes1": boxes.expand(2, 3, 4), "boxes2": boxes.expand(3, 3, 4)})
        if name == "box_iou":
            yield Refused(ValueError, "Unsupported format 'yxyx'", {"boxes1": boxes, "boxes2": boxes, "fmt": "yxyx"})

    return refused


# --- IoU losses -------------------------------------------------------------------------------------------------------


def losses(dtype: torch.dtype) -> Iterator[Sample]:
    for count, why in COUNTS.items():
        boxes1, boxes2 = near_pairs(count, dtype)
        yield Sample(why, boxes1=boxes1, boxes2=boxes2)
        for reduction in ("mean", "sum"):
            yield Sample(f"{why}, {reduction}", boxes1=boxes1, boxes2=boxes2, reduction=reduction)
    boxes1, boxes2 = near_pairs(60, dtype)
    yield Sample("a pair without leading dimensions", boxes1=boxes1[0], boxes2=boxes2[0])
    yield Sample("three leading dimensions", boxes1=boxes1.view(3, 4, 5, 4), boxes2=boxes2.view(3, 4, 5, 4))
    yield Sample("one partner of all", boxes1=boxes1, boxes2=boxes2[3])
    if dtype != torch.float64:
        yield Sample("the partners in float32", boxes1=boxes1, boxes2=boxes2.float())
        yield Sample("the partners in float32, mean", boxes1=boxes1, boxes2=boxes2.float(), reduction="mean")


def small_losses(dtype: torch.dtype, size: int) -> Iterator[Sample]:
    for reduction in ("none", "mean", "sum"):
        boxes1, boxes2 = tiny_boxes(size, dtype), tiny_boxes(size, dtype)
        yield Sample(f"reduction {reduction}", boxes1=boxes1, boxes2=boxes2, reduction=reduction)
    if dtype != torch.float64:
        yield Sample("two dtypes", boxes1=tiny_boxes(size, dtype), boxes2=tiny_boxes(size, torch.float32))


def large_losses(dtype: torch.dtype) -> Iterator[Sample]:
    boxes1, boxes2 = near_pairs(50_000, dtype)
    yield Sample("a sum over 50,000 pairs", boxes1=boxes1, boxes2=boxes2, reduction="sum")
    yield Sample("50,000 losses", boxes1=boxes1, boxes2=boxes2)


def refused_losses(name: str) -> Callable[[], Iterator[Refused]]:
    def refused() -> Iterator[Refused]:
        boxes = random_boxes(3)
        both = {"boxes1": boxes, "boxes2": boxes}
        yield Refused(ValueError, "Invalid Value for arg 'reduction': 'median", {**both, "reduction": "median"})
        form = rf"{name}: boxes1 must be \[\.\.\., 4\], got"
        yield Refused(RuntimeError, rf"{form} \[3, 3\]", {"boxes1": boxes[:, :3], "boxes2": boxes[:, :3]})
        yield Refused(RuntimeError, rf"{form} \[3, 1\]", {**both, "boxes1": torch.rand(3, 1)})
        yield Refused(RuntimeError, rf"{form} \[\]", {**both, "boxes1": torch.tensor(1.0)})
        message = rf"{name}: boxes2 must be real, got torch\.complex64"
        yield Refused(RuntimeError, message, {**both, "boxes2": boxes.to(torch.complex64)})
        message = rf"{name}: .* must broadcast, got \[3, 4\] and \[2, 4\]"
        yield Refused(RuntimeError, message, {**both, "boxes2": boxes[:2]})

    return refused


# --- coding -----------------------------------------------------------------------------------------------------------

WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def encode(dtype: torch.dtype) -> Iterator[Sample]:
    for count, why in COUNTS.items():
        boxes, proposals = (random_boxes(count, low=24).to(dtype) for _ in range(2))
        yield Sample(why, reference_boxes=boxes, proposals=proposals)
        yield Sample(f"{why}, weights", reference_boxes=boxes, proposals=proposals, weights=WEIGHTS)
    for count in (1, 7, 64, 1000):
        boxes = random_boxes(3 * count, low=24).view(3, count, 4).to(dtype)
        proposals = random_boxes(count, low=24).to(dtype)
        yield Sample(f"{count} proposals for three images", reference_boxes=boxes, proposals=proposals)
    if dtype != torch.float64:
        yield Sample("proposals in float32", reference_boxes=boxes, proposals=proposals.float())


def decode(dtype: torch.dtype) -> Iterator[Sample]:
    for count, why in COUNTS.items():
        codes, boxes = (torch.randn(count, 4) * 2).to(dtype), random_boxes(count).to(dtype)
        for weights in ((1.0, 1.0, 1.0, 1.0), WEIGHTS):
            for image_size in (None, (600, 800)):
                yield Sample(why, rel_codes=codes, boxes=boxes, weights=weights, image_size=image_size)
    for count in (1, 7, 64, 1000):
        codes, boxes = torch.randn(3, count, 4).to(dtype), random_boxes(count).to(dtype)
        yield Sample(f"{count} boxes for three images", rel_codes=codes, boxes=boxes)
    yield Sample("both broadcast", rel_codes=codes[0, :5, None], boxes=boxes[:6])
    if dtype != torch.float64:
        yield Sample("boxes in float32", rel_codes=codes, boxes=boxes.float())


def small_encode(dtype: torch.dtype, size: int) -> Iterator[Sample]:
    boxes, proposals = tiny_boxes(size, dtype), tiny_boxes(size, dtype)
    yield Sample("ordinary boxes", reference_boxes=boxes, proposals=proposals)
    yield Sample("weights", reference_boxes=boxes, proposals=proposals, weights=WEIGHTS)
    yield Sample("images", reference_boxes=torch.stack([boxes, proposals]), proposals=proposals)


def small_decode(dtype: torch.dtype, size: int) -> Iterator[Sample]:
    codes, boxes = torch.randn(2, size, 4, dtype=torch.float64).to(dtype), tiny_boxes(size, dtype)
    yield Sample("images", rel_codes=codes, boxes=boxes)
    yield Sample("no images", rel_codes=codes[0], boxes=boxes)
    yield Sample("clipped", rel_codes=codes, boxes=boxes, weights=WEIGHTS, image_size=(3, 2))
    if dtype in (torch.float16, torch.bfloat16):
        yield Sample("half deltas, float32 boxes", rel_codes=codes, boxes=boxes.float())


def large_encode(dtype: torch.dtype) -> Iterator[Sample]:
    boxes, proposals = (random_boxes(50_000, low=24).to(dtype) for _ in range(2))
    yield Sample("50,000 boxes", reference_boxes=boxes, proposals=proposals)


def large_decode(dtype: torch.dtype) -> Iterator[Sample]:
    codes, boxes = torch.randn(50_000, 4).to(dtype), random_boxes(50_000).to(dtype)
    yield Sample("50,000 boxes", rel_codes=codes, boxes=boxes, image_size=(600, 800))


def refused_coding(name: str, first: str, second: str) -> Callable[[], Iterator[Refused]]:
    def refused() -> Iterator[Refused]:
        boxes = random_boxes(3)
        both = {first: boxes, second: boxes}
        form = rf"{name}: {first} must be \[\.\.\., 4\], got"
        yield Refused(RuntimeError, rf"{form} \[3, 3\]", {first: boxes[:, :3], second: boxes[:, :3]})
        yield Refused(RuntimeError, rf"{form} \[3, 1\]", {**both, first: torch.rand(3, 1)})
        yield Refused(RuntimeError, rf"{form} \[\]", {**both, first: torch.tensor(1.0)})
        message = rf"{name}: {second} must be real, got torch\.complex64"
        yield Refused(RuntimeError, message, {**both, second: boxes.to(torch.complex64)})
        message = rf"{name}: shapes must broadcast, got \[3, 4\] and \[2, 4\]"
        yield Refused(RuntimeError, message, {**both, second: boxes[:2]})
        message = f"{name}: weights must be finite and not 0, got 0"
        yield Refused(RuntimeError, message, {**both, "weights": (1, 1, 0, 1)})
        yield Refused(ValueError, f"{name}: weights must be four numbers", {**both, "weights": (1, 1)})
        message = "must be float16, bfloat16, float32 or float64, got int64"
        yield Refused(RuntimeError, message, {first: boxes.long(), second: boxes.long()})
        for size in ((-1, 5), (float("nan"), 5), (5,), (5, 6, 7)) if name == "decode_boxes" else ():
            message = r"decode_boxes: image_size must be \(height, width\), at least 0, got \("
            yield Refused(ValueError, message, {**both, "image_size": size})

    return refused
