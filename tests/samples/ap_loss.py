"""Inputs of ap_loss."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .row import Refused, Sample

# Shapes [..., K].
SHAPES = {
    (0, 4): "no rows",
    (3, 0): "no classes",
    (1, 1): "one element",
    (7, 1): "one class",
    (5, 3): "less than a block",
    (1, 65): "a block of 64 and a tail",
    (401, 91): "rows that straddle a block of 64",
    (2, 3, 4, 5): "leading dimensions",
}


def logits_of(*shape: int, dtype: torch.dtype) -> Tensor:
    return (torch.randn(shape, dtype=torch.float64) * 3).to(dtype)


def labels_of(*shape: int, share: float = 0.2) -> Tensor:
    """A share of positives, and a tenth of ignored rows."""
    *rows, classes = shape
    labels = torch.where(torch.rand(rows) < share, torch.randint(0, max(classes, 1), rows), classes).clamp(max=classes)
    labels[torch.rand(rows) < 0.1] = -1
    return labels


def dense_of(*shape: int, dtype: torch.dtype, share: float = 0.2) -> Tensor:
    return (torch.rand(shape) < share).to(dtype) - (torch.rand(shape) < 0.1).to(dtype) * 2


def samples(dtype: torch.dtype) -> Iterator[Sample]:
    for shape, why in SHAPES.items():
        logits = logits_of(*shape, dtype=dtype)
        yield Sample(why, logits=logits, targets=labels_of(*shape))
        yield Sample(f"{why}, dense", logits=logits, targets=dense_of(*shape, dtype=dtype))
    yield Sample("no dimension", logits=logits_of(dtype=dtype), targets=torch.ones((), dtype=dtype))
    shape = (50, 4)
    logits, labels = logits_of(*shape, dtype=dtype), labels_of(*shape)
    for delta in (1e-3, 0.5, 100.0):
        yield Sample(f"delta {delta}", logits=logits, targets=labels, delta=delta)
    yield Sample("no positive", logits=logits, targets=torch.full((50,), 4))
    yield Sample("all rows ignored", logits=logits, targets=torch.full((50,), -1))
    yield Sample("all positive", logits=logits, targets=torch.ones(shape, dtype=dtype))
    yield Sample("all equal", logits=torch.zeros(shape, dtype=dtype), targets=labels)
    yield Sample("ties", logits=logits.round(), targets=labels)
    yield Sample("logits closer than delta", logits=logits / 64, targets=labels)
    huge = logits * (1e30 if dtype != torch.float16 else 1e4)
    yield Sample(
        "huge gaps and ties in them", logits=torch.where(torch.rand(shape) < 0.5, huge[0, 0], huge), targets=labels
    )
    infinite = logits.clone()
    infinite[:9, 1], infinite[20:29, 2] = torch.inf, -torch.inf
    yield Sample("infinite logits", logits=infinite, targets=labels)
    invalid = torch.where(torch.rand(shape) < 0.02, torch.nan, logits)
    yield Sample("NaN", logits=invalid, targets=labels.clamp(min=0))
    ignored = torch.where(invalid.isnan().any(-1), -1, labels)
    yield Sample("NaN in ignored rows", logits=invalid, targets=ignored)
    for index, why in ((3, "a class"), (4, "the background")):
        yield Sample(f"{why} is ignored", logits=logits, targets=labels.clamp(min=0), ignore_index=index)
    for integer in (torch.int32, torch.int16, torch.int8, torch.uint8):
        few = labels if integer.is_signed else labels.clamp(min=0)
        yield Sample(f"labels in {integer}", logits=logits, targets=few.to(integer))
    if dtype in (torch.float16, torch.bfloat16):
        yield Sample("float32 dense targets", logits=logits, targets=dense_of(*shape, dtype=torch.float32))


def small(dtype: torch.dtype, size: int) -> Iterator[Sample]:
    logits = logits_of(size, 3, dtype=dtype)
    yield Sample("class indices", logits=logits, targets=torch.arange(-1, size - 1) % 5 - 1)
    dense = (torch.arange(size * 3).view(size, 3) % 4 - 1).clamp(max=1)
    yield Sample("dense", logits=logits, targets=dense.to(dtype), delta=0.5)


def large(dtype: torch.dtype) -> Iterator[Sample]:
    shape = (9000, 80)
    logits = logits_of(*shape, dtype=dtype)
    yield Sample("720,000 logits, 30 positives", logits=logits, targets=labels_of(*shape, share=30 / 9000))
    yield Sample("dense", logits=logits, targets=dense_of(*shape, dtype=dtype, share=1e-4))


def refused() -> Iterator[Refused]:
    logits, labels = torch.randn(3, 2), torch.zeros(3, dtype=torch.int64)

    def bad(error: type[Exception], message: str, **arguments: object) -> Refused:
        return Refused(error, message, {"logits": logits, "targets": labels, **arguments})

    for delta in (0.0, -1.0, float("inf"), float("nan")):
        yield bad(ValueError, r"ap_loss: delta must be in \[1e-280, 1e280\], got", delta=delta)
    yield bad(ValueError, "ap_loss: targets must not require grad", targets=torch.rand(3, 2, requires_grad=True))
    message = r"ap_loss: class-index targets .* logits \[3, 2\] and targets \[4\]"
    yield bad(RuntimeError, message, targets=torch.zeros(4, dtype=torch.int64))
    yield bad(RuntimeError, r"ap_loss: floating targets .* targets \[3\]", targets=torch.zeros(3))
    yield bad(RuntimeError, "integer targets are class indices", targets=torch.zeros(3, 2, dtype=torch.int64))
    message = "logits must be float16, bfloat16, float32 or float64, got int64"
    yield bad(RuntimeError, message, logits=labels[:, None])
