"""Inputs of the focal loss's tests, and the precision that its results must have."""

from __future__ import annotations

import torch
from torch import Tensor

GAMMAS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 0.3, 2.7, 7.0)
HALVES = (torch.float16, torch.bfloat16)
DTYPES = (torch.float32, torch.float64, *HALVES)
TINY = 2.0**-126

# Shapes [..., K]: a lone element, one class, an odd tail, exactly one block of 64, rows that straddle a chunk of
# 16,384 elements, leading dimensions, no rows, no classes.
SHAPES = ((1, 1), (7, 1), (5, 3), (2, 32), (1, 64), (1, 65), (401, 91), (2, 3, 4, 5), (0, 4), (3, 0))


def labels_for(shape: tuple[int, ...], device: str, ignored: bool = True) -> Tensor:
    """Labels with every kind of row: each class, background and ignored."""
    return torch.randint(-1 if ignored else 0, shape[-1] + 1, shape[:-1], device=device)


def dense(labels: Tensor, classes: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.nn.functional.one_hot(labels, classes + 1)[..., :classes].to(dtype)


def gradient(function, logits: Tensor, *args, **kwargs) -> Tensor:
    logits = logits.detach().clone().requires_grad_()
    function(logits, *args, **kwargs).sum().backward()
    return logits.grad


# Relative error allowed: float32 is the contract of 4e-6 for named gammas and 1e-5 for others; half results carry one
# rounding to 8 or 11 bits; float64 is libm.
def tolerance(dtype: torch.dtype) -> float:
    return {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2**-10.9, torch.bfloat16: 2**-7.9}[dtype]
