"""Checks of arguments that several operators share, and the dtypes they compute in.

Public functions check options and what a fake or a kernel would not notice; fakes check shapes with `expect`, as the
compiled operators do.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

REDUCTIONS = ("none", "mean", "sum")


def check_reduction(reduction: str) -> None:
    """Raises ValueError, in torchvision's words, for an unknown reduction."""
    if reduction not in REDUCTIONS:
        raise ValueError(
            f"Invalid Value for arg 'reduction': '{reduction} \n Supported reduction modes: 'none', 'mean', 'sum'"
        )


def four_weights(op: str, name: str, weights: Sequence[float]) -> tuple[float, ...]:
    """The box coder's weights as four floats; raises ValueError if there are not four."""
    if len(weights) != 4:
        raise ValueError(f"{op}: {name} must be four numbers (wx, wy, ww, wh), got {len(weights)}")
    return tuple(float(weight) for weight in weights)


def check_boxes(op: str, dimensions: int, **named: Tensor) -> None:
    """Checks that all tensors are real ``[..., 4]`` with at least so many dimensions.

    A last dimension of 1 would broadcast to 4.

    Raises:
        RuntimeError: one of them is not.
    """
    for name, boxes in named.items():
        if boxes.dim() < dimensions or boxes.shape[-1] != 4:
            form = "[..., 4]" if dimensions == 1 else "[..., N, 4]"
            raise RuntimeError(f"{op}: {name} must be {form}, got {list(boxes.shape)}")
        if boxes.is_complex():
            raise RuntimeError(f"{op}: {name} must be real, got {boxes.dtype}")


def broadcast_shape(op: str, what: str, tensor1: Tensor, tensor2: Tensor, kept: int = 0) -> torch.Size:
    """The broadcast shape of two tensors without their last `kept` dimensions.

    Raises:
        RuntimeError: the shapes do not broadcast; `what` says what had to.
    """
    try:
        return torch.broadcast_shapes(*(tensor.shape[: tensor.dim() - kept] for tensor in (tensor1, tensor2)))
    except RuntimeError:
        raise RuntimeError(
            f"{op}: {what} must broadcast, got {list(tensor1.shape)} and {list(tensor2.shape)}"
        ) from None


def as_classes(op: str, idxs: Tensor) -> Tensor:
    """Classes of boxes as int64, equal where they were equal. Raises RuntimeError for complex numbers.

    Floating classes, such as a column of a detector's output, are numbered by their bits: any value is a class.
    """
    if idxs.is_complex():
        raise RuntimeError(f"{op}: idxs must be real, got {idxs.dtype}")
    if not idxs.is_floating_point():
        return idxs.long()
    wide = idxs.detach() + 0.0  # -0.0 becomes 0.0
    return wide.view(torch.int64) if wide.dtype == torch.float64 else wide.float().view(torch.int32).long()


def as_boxes(boxes: Tensor) -> Tensor:
    """The boxes; no boxes of shape ``[0]``, such as ``torch.tensor([])``, become ``[0, 4]``, as in torchvision."""
    return boxes.reshape(0, 4) if boxes.dim() == 1 and boxes.shape[0] == 0 else boxes


# --- dtypes -----------------------------------------------------------------------------------------------------------


def accumulate_dtype(*tensors: Tensor) -> torch.dtype:
    """The dtype of the arithmetic: float64 if one of the tensors is float64, float32 otherwise."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


def promoted_dtype(*dtypes: torch.dtype) -> torch.dtype:
    """The dtype that PyTorch promotes the dtypes to, with float32 for integers, which float16 would round."""
    dtype = torch.float32 if not dtypes[0].is_floating_point else dtypes[0]
    for other in dtypes[1:]:
        dtype = torch.promote_types(dtype, other if other.is_floating_point else torch.float32)
    return dtype


# --- fakes ------------------------------------------------------------------------------------------------------------


def expect(condition: bool, requirement: str, *got: Tensor | torch.Size | torch.dtype) -> None:
    """Raises RuntimeError, "<requirement>, got <got>", unless the condition holds.

    Args:
        condition: may be symbolic while a compiler traces.
        requirement: the operator and what it requires: "nms: boxes must be [N, 4]".
        got: shapes, dtypes, or tensors for both.
    """
    torch._check(condition, lambda: f"{requirement}, got {' and '.join(map(_described, got))}")


def _described(got: Tensor | torch.Size | torch.dtype) -> str:
    if isinstance(got, Tensor):
        return f"{got.dtype} {list(got.shape)}"
    return str(got) if isinstance(got, torch.dtype) else str(list(got))


def expect_scored_boxes(op: str, boxes: Tensor, scores: Tensor, idxs: Tensor | None) -> None:
    """Checks the shapes of boxes ``[N, 4]``, scores ``[N]`` and, if given, classes ``[N]``."""
    expect(boxes.dim() == 2 and boxes.shape[1] == 4, f"{op}: boxes must be [N, 4]", boxes.shape)
    for name, values in (("scores", scores), ("idxs", idxs)):
        if values is not None:
            fits = values.dim() == 1 and values.shape[0] == boxes.shape[0]
            expect(fits, f"{op}: {name} must be [{boxes.shape[0]}]", values.shape)
