"""Non-maximum suppression: the public functions and shapes. The rule is in ``csrc/nms/nms.h``."""

from __future__ import annotations

import torch
from torch import Tensor

from retina_ops.ops._checks import as_boxes, as_classes, expect_scored_boxes
from retina_ops.ops._torchscript import no_torchscript

_nms = torch.ops.retina_ops.nms.default
_nms_padded = torch.ops.retina_ops.nms_padded.default


@no_torchscript
def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Greedy non-maximum suppression: drops each box that overlaps a kept box of higher score by more than a threshold.

    The signature is torchvision's. So are the results, except for the rows of ``docs/differences.md``: IoU is compared
    with the threshold in float64 on every device, NaN IoU suppresses nothing, and boxes with a NaN score are not kept.

    Args:
        boxes: ``[N, 4]`` (x1, y1, x2, y2), float16, bfloat16, float32 or float64. IoUs are computed in float32, or in
            float64 for float64 boxes.
        scores: ``[N]``, of any of these dtypes.
        iou_threshold: a box is dropped if its IoU with a kept box is above this.

    Returns:
        int64 ``[n]``: indices of the kept boxes by descending score; boxes of equal score stay in input order. On CUDA
        the host waits for the size; :func:`nms_padded` does not.

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
    """:func:`nms` within each class: boxes of different classes do not suppress each other.

    The signature is torchvision's. Classes are compared directly and coordinates are not offset: results do not depend
    on the number of classes or on the size and sign of the coordinates.

    Args:
        boxes: ``[N, 4]`` as for :func:`nms`; ``[0]`` for none.
        scores: ``[N]`` as for :func:`nms`.
        idxs: integer or floating ``[N]``, the class (or image, or level) of each box; any values, compared exactly.
        iou_threshold: as for :func:`nms`.

    Returns:
        int64 ``[n]``: indices of the kept boxes of all classes by descending score; boxes of equal score stay in input
        order.

    Raises:
        RuntimeError: shapes, dtypes or devices that do not fit.

    Example:
        >>> import torch
        >>> boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 10]])
        >>> batched_nms(boxes, torch.tensor([0.8, 0.9, 0.7]), torch.tensor([0, 0, 1]), 0.5)
        tensor([1, 2])
    """
    kept: Tensor = _nms(as_boxes(boxes), scores, as_classes("batched_nms", idxs), iou_threshold)
    return kept


@no_torchscript
def nms_padded(
    boxes: Tensor, scores: Tensor, iou_threshold: float, max_output: int, *, idxs: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """:func:`nms`, or :func:`batched_nms` with ``idxs``, with an output of fixed size and no host synchronisation.

    Args:
        boxes: ``[N, 4]`` as for :func:`nms`; ``[0]`` for none.
        scores: ``[N]`` as for :func:`nms`.
        iou_threshold: as for :func:`nms`.
        max_output: the size of the output, at least 0.
        idxs: integer or floating ``[N]``, the class of each box, as for :func:`batched_nms`.

    Returns:
        int64 ``[max_output]``: the first kept indices by descending score, padded with -1; and int64 ``[]``: their
        number.

    Raises:
        RuntimeError: shapes, dtypes or devices that do not fit; a negative ``max_output``.

    Example:
        >>> import torch
        >>> boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]])
        >>> nms_padded(boxes, torch.tensor([0.8, 0.9, 0.7]), 0.5, max_output=4)
        (tensor([ 1,  2, -1, -1]), tensor(2))
    """
    classes = None if idxs is None else as_classes("nms_padded", idxs)
    kept, count = _nms_padded(as_boxes(boxes), scores, classes, iou_threshold, max_output)
    return kept, count


@torch.library.register_fake("retina_ops::nms")
def _(boxes, scores, idxs, iou_threshold):  # type: ignore[no-untyped-def]
    expect_scored_boxes("nms", boxes, scores, idxs)
    return boxes.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.int64)


@torch.library.register_fake("retina_ops::nms_padded")
def _(boxes, scores, idxs, iou_threshold, max_output):  # type: ignore[no-untyped-def]
    expect_scored_boxes("nms_padded", boxes, scores, idxs)
    return boxes.new_empty(max_output, dtype=torch.int64), boxes.new_empty((), dtype=torch.int64)
