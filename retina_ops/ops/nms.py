"""Non-maximum suppression: the public functions and fakes. The rule: ``csrc/nms/nms.h``."""

from __future__ import annotations

import torch
from torch import Tensor

from retina_ops.ops._torchscript import no_torchscript

_nms = torch.ops.retina_ops.nms.default
_nms_padded = torch.ops.retina_ops.nms_padded.default


@no_torchscript
def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Greedy non-maximum suppression: keeps boxes in order of score that no kept box overlaps too much.

    torchvision's signature and, but for ``docs/differences.md``, results: IoU is compared with the threshold as a
    double on every device, NaN IoU suppresses nothing, and boxes with a NaN score are not kept.

    Args:
        boxes: ``[N, 4]`` (x1, y1, x2, y2), float16, bfloat16, float32 or float64; compared in float32, or float64.
        scores: ``[N]``, of any of these dtypes.
        iou_threshold: a box is dropped where its IoU with a kept box is above this.

    Returns:
        int64 ``[n]``: indices of the kept boxes by descending score; equal scores keep their order. On CUDA the size
        is read back from the device: :func:`nms_padded` does without.

    Raises:
        RuntimeError: shapes, dtypes or devices that do not fit.

    Example:
        >>> import torch
        >>> boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]])
        >>> nms(boxes, torch.tensor([0.8, 0.9, 0.7]), 0.5)
        tensor([1, 2])
    """
    kept: Tensor = _nms(boxes, scores, None, iou_threshold)
    return kept


@no_torchscript
def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """:func:`nms` among the boxes of each class alone. torchvision's signature.

    The classes are compared as such, not moved apart by an offset: results do not depend on the number of classes,
    on the size of the coordinates or on their sign.

    Args:
        boxes: ``[N, 4]`` as for :func:`nms`.
        scores: ``[N]`` as for :func:`nms`.
        idxs: integer ``[N]``, the class (or image, or level) of each box; any values.
        iou_threshold: as for :func:`nms`.

    Returns:
        int64 ``[n]``: indices of the kept boxes of all classes by descending score; equal scores keep their order.

    Raises:
        RuntimeError: shapes, dtypes or devices that do not fit.

    Example:
        >>> import torch
        >>> boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 10]])
        >>> batched_nms(boxes, torch.tensor([0.8, 0.9, 0.7]), torch.tensor([0, 0, 1]), 0.5)
        tensor([1, 2])
    """
    kept: Tensor = _nms(boxes, scores, _as_classes(idxs, "batched_nms"), iou_threshold)
    return kept


@no_torchscript
def nms_padded(
    boxes: Tensor, scores: Tensor, iou_threshold: float, max_output: int, *, idxs: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """:func:`nms`, or with ``idxs`` :func:`batched_nms`, with an output of fixed size: no host synchronisation.

    Args:
        boxes: ``[N, 4]`` as for :func:`nms`.
        scores: ``[N]`` as for :func:`nms`.
        iou_threshold: as for :func:`nms`.
        max_output: the size of the output, at least 0.
        idxs: integer ``[N]``, the class of each box.

    Returns:
        int64 ``[max_output]``: the first kept indices by descending score, then -1; and int64 ``[]``: how many.

    Raises:
        RuntimeError: shapes, dtypes or devices that do not fit, a negative ``max_output``.

    Example:
        >>> import torch
        >>> boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]])
        >>> nms_padded(boxes, torch.tensor([0.8, 0.9, 0.7]), 0.5, max_output=4)
        (tensor([ 1,  2, -1, -1]), tensor(2))
    """
    classes = None if idxs is None else _as_classes(idxs, "nms_padded")
    kept, count = _nms_padded(boxes, scores, classes, iou_threshold, max_output)
    return kept, count


def _as_classes(idxs: Tensor, op: str) -> Tensor:
    if idxs.is_floating_point() or idxs.is_complex():
        raise RuntimeError(f"{op}: idxs must be integers, got {idxs.dtype}")
    return idxs.long()


def _check_shapes(op: str, boxes: Tensor, scores: Tensor, idxs: Tensor | None) -> None:
    torch._check(
        boxes.dim() == 2 and boxes.shape[1] == 4, lambda: f"{op}: boxes must be [N, 4], got {list(boxes.shape)}"
    )
    for name, tensor in (("scores", scores), ("idxs", idxs)):
        if tensor is not None:
            torch._check(
                tensor.dim() == 1 and tensor.shape[0] == boxes.shape[0],
                lambda name=name, tensor=tensor: f"{op}: {name} must be [{boxes.shape[0]}], got {list(tensor.shape)}",  # type: ignore[misc]
            )


@torch.library.register_fake("retina_ops::nms")
def _(boxes, scores, idxs, iou_threshold):  # type: ignore[no-untyped-def]
    _check_shapes("nms", boxes, scores, idxs)
    return boxes.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.int64)


@torch.library.register_fake("retina_ops::nms_padded")
def _(boxes, scores, idxs, iou_threshold, max_output):  # type: ignore[no-untyped-def]
    _check_shapes("nms_padded", boxes, scores, idxs)
    return boxes.new_empty(max_output, dtype=torch.int64), boxes.new_empty((), dtype=torch.int64)
