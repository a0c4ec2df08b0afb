"""What public functions ask of their tensors before an operator sees them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad


def no_forward_mode(op: str, *tensors: Tensor) -> None:
    """Refuses tangents: below an operator without a rule for them they would be lost without a word.

    Raises:
        RuntimeError: one of the tensors has a tangent (``torch.func.jvp``, ``jacfwd``, ``forward_ad.make_dual``).
    """
    if torch.compiler.is_compiling():
        return
    if any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors):
        raise RuntimeError(f"{op}: forward-mode derivatives are not supported, use reverse mode")


def promoted(*dtypes: torch.dtype) -> torch.dtype:
    """The dtype that holds values of all of them: as PyTorch promotes them, but integers as float32, which half would
    round."""
    dtype = torch.float32 if not dtypes[0].is_floating_point else dtypes[0]
    for other in dtypes[1:]:
        dtype = torch.promote_types(dtype, other if other.is_floating_point else torch.float32)
    return dtype


def check_boxes(op: str, dimensions: int, **named: Tensor) -> None:
    """All are real ``[..., 4]`` of at least so many dimensions: a last one of 1 would broadcast.

    Raises:
        RuntimeError: one of them is not.
    """
    for name, boxes in named.items():
        if boxes.dim() < dimensions or boxes.shape[-1] != 4:
            form = "[..., 4]" if dimensions == 1 else "[..., N, 4]"
            raise RuntimeError(f"{op}: {name} must be {form}, got {list(boxes.shape)}")
        if boxes.is_complex():
            raise RuntimeError(f"{op}: {name} must be real, got {boxes.dtype}")


def is_batched(tensor: Tensor | None) -> bool:
    """Is it a batch of them, of ``torch.func.vmap`` or of ``is_grads_batched`` and vectorized Jacobians?"""
    kinds = torch._C._functorch
    return tensor is not None and (kinds.is_batchedtensor(tensor) or kinds.is_legacy_batchedtensor(tensor))
