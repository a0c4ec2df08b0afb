"""Inputs of the kernel tests, expected results in float64, and the tolerances."""

from __future__ import annotations

import torch
from torch import Tensor

from retina_ops import reference

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
HALF = (torch.float16, torch.bfloat16)
GAMMAS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)


def close(got: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """Asserts that results are within the precision of `dtype` of expected results in float64."""
    relative = {torch.float64: 1e-11, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}[dtype]
    absolute = {torch.float64: 1e-13, torch.float32: 1e-7, torch.float16: 1e-6, torch.bfloat16: 1e-7}[dtype]
    torch.testing.assert_close(got.double(), expected.double(), rtol=relative, atol=absolute, equal_nan=True)


def near(got: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """The same for coordinates and deltas, which are differences of large numbers: relative to the largest."""
    relative = {torch.float64: 1e-11, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}[dtype]
    scale = float(expected.abs().max())
    assert (got.double() - expected).abs().max() <= relative * max(scale, 1.0)


def focal_inputs(rows: int, classes: int, dtype: torch.dtype, kind: str) -> tuple[Tensor, Tensor]:
    logits = (torch.randn(rows, classes, dtype=torch.float64) * 3).to(dtype)
    if kind == "labels":
        labels = torch.randint(0, classes + 1, (rows,))
        labels[torch.rand(rows) < 0.2] = -1
        return logits, labels
    soft = torch.rand(rows, classes, dtype=torch.float64)
    return logits, (soft.to(dtype) if kind == "soft" else soft.float())


def focal_expected(logits: Tensor, targets: Tensor, alpha: float | Tensor, gamma: float, order: int) -> Tensor:
    x = logits.to(torch.float64, copy=True).requires_grad_()
    precise = targets.double() if targets.is_floating_point() else targets
    weight = alpha.double() if isinstance(alpha, Tensor) else alpha
    result = reference.sigmoid_focal_loss(x, precise, weight, gamma)
    for _ in range(order):
        (result,) = torch.autograd.grad(result.sum(), x, create_graph=True)
    return result.detach()
