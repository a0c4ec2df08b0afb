"""Inputs of sigmoid_focal_loss."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from inputs.focal import GAMMAS, HALVES, dense, labels_for
from torch import Tensor

from .row import Refused, Sample

# Shapes [..., K].
SHAPES = {
    (0, 4): "no rows",
    (3, 0): "no classes",
    (1, 1): "one element",
    (7, 1): "one class",
    (5, 3): "less than a vector",
    (2, 32): "one block of 64",
    (1, 64): "one block of 64 in one row",
    (1, 65): "a block of 64 and a tail",
    (401, 91): "rows that straddle a chunk of 16,384 elements",
    (2, 3, 4, 5): "leading dimensions",
}


def logits_of(*shape: int, dtype: torch.dtype) -> Tensor:
    return (torch.randn(shape, dtype=torch.float64) * 3).to(dtype)


def samples(dtype: torch.dtype) -> Iterator[Sample]:
    for shape, why in SHAPES.items():
        logits, labels = logits_of(*shape, dtype=dtype), labels_for(shape, "cpu")
        for gamma in GAMMAS:
            yield Sample(f"{why}, gamma {gamma}", inputs=logits, targets=labels, gamma=gamma)
    shape = (401, 91)
    logits, labels = logits_of(*shape, dtype=dtype), labels_for(shape, "cpu")
    soft = torch.rand(shape, dtype=torch.float64).to(dtype)
    hard = dense(labels_for(shape, "cpu", ignored=False), 91, dtype)
    for gamma in GAMMAS:
        why = f"gamma {gamma}, which may have kernels of its own"
        yield Sample(f"{why}: the sum", inputs=logits, targets=labels, gamma=gamma, reduction="sum")
        for reduction in ("none", "sum"):
            yield Sample(f"{why}: soft targets", inputs=logits, targets=soft, gamma=gamma, reduction=reduction)
    alphas = {
        "no weights": -1,
        "negatives alone": 0.0,
        "positives alone": 1.0,
        "a weight per class": torch.rand(91, dtype=torch.float64).to(dtype),
    }
    for why, alpha in alphas.items():
        for targets in (labels, soft, hard):
            for reduction in ("none", "sum", "mean"):
                yield Sample(why, inputs=logits, targets=targets, alpha=alpha, reduction=reduction)
    for ignored, why in ((3, "a class"), (91, "the background")):
        every = labels.clamp(min=0)
        for reduction in ("none", "sum", "mean"):
            yield Sample(f"{why} is ignored", inputs=logits, targets=every, ignore_index=ignored, reduction=reduction)
    for integer in (torch.int32, torch.int16, torch.int8, torch.uint8):
        few = labels_for((50, 4), "cpu", ignored=integer.is_signed)
        yield Sample(f"labels in {integer}", inputs=logits[:50, :4], targets=few.to(integer))
    if dtype in HALVES:
        yield Sample("half logits, float32 soft targets", inputs=logits, targets=soft.float())


def small(dtype: torch.dtype, size: int) -> Iterator[Sample]:
    logits = logits_of(size, 3, dtype=dtype) / 3
    labels = torch.arange(-1, size - 1) % 5 - 1
    soft = torch.rand(size, 3, dtype=torch.float64).to(dtype)
    for gamma in (2.0, 0.0, 0.5, 2.6):
        for reduction in ("none", "sum", "mean"):
            for why, targets in (("class indices", labels), ("soft targets", soft)):
                yield Sample(why, inputs=logits, targets=targets, gamma=gamma, reduction=reduction)
    alpha = torch.rand(3, dtype=torch.float64).to(dtype)
    yield Sample("a weight per class", inputs=logits, targets=labels, alpha=alpha)


def large(dtype: torch.dtype) -> Iterator[Sample]:
    logits, labels = logits_of(9000, 80, dtype=dtype), labels_for((9000, 80), "cpu")
    yield Sample("720,000 elements", inputs=logits, targets=labels, reduction="sum")
    yield Sample("720,000 losses", inputs=logits, targets=labels)


def refused() -> Iterator[Refused]:
    logits, labels = torch.randn(3, 2), torch.zeros(3, dtype=torch.int64)

    def bad(error: type[Exception], message: str, **arguments: object) -> Refused:
        return Refused(error, message, {"inputs": logits, "targets": labels, **arguments})

    yield bad(ValueError, r"Invalid alpha value: 1\.5", alpha=1.5)
    yield bad(ValueError, "Invalid gamma value: -1", gamma=-1)
    yield bad(ValueError, "reduction", reduction="avg")
    yield bad(ValueError, "targets must not require grad", targets=torch.rand(3, 2, requires_grad=True))
    yield bad(ValueError, "alpha must not require grad", alpha=torch.rand(2, requires_grad=True))
    message = r"sigmoid_focal_loss: class-index targets .* inputs \[3, 2\] and targets \[4\]"
    yield bad(RuntimeError, message, targets=torch.zeros(4, dtype=torch.int64))
    yield bad(RuntimeError, r"sigmoid_focal_loss: floating targets .* targets \[3\]", targets=torch.zeros(3))
    yield bad(RuntimeError, "integer targets are class indices", targets=torch.zeros(3, 2, dtype=torch.int64))
    message = "inputs must be float16, bfloat16, float32 or float64, got int64"
    yield bad(RuntimeError, message, inputs=labels[:, None])
    message = r"alpha must be one number or have one value per class, \[2\], got \[3\]"
    yield bad(RuntimeError, message, alpha=torch.rand(3))
