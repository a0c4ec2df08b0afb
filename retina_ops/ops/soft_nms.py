"""Soft non-maximum suppression: the public function and shapes. The rule is in ``csrc/soft_nms/soft_nms.h``."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from retina_ops.ops._autograd import no_forward_mode
from retina_ops.ops._checks import accumulate_dtype, as_boxes, as_classes, expect_scored_boxes
from retina_ops.ops._torchscript import no_torchscript

_nms = torch.ops.retina_ops.nms.default
_soft_nms = torch.ops.retina_ops.soft_nms.default


@no_torchscript
def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    method: str = "linear",
    sigma: float = 0.5,
    min_score: float = 0.001,
    *,
    idxs: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Soft non-maximum suppression: lowers the scores of boxes that overlap a better box, instead of dropping them.

    Bodla et al. 2017, "Soft-NMS: Improving Object Detection With One Line of Code". Each step takes the box of the
    highest current score, of equal scores the one of the lowest index. Each remaining box (of its class) decays:

    - ``"linear"``: by ``1 - IoU`` if the IoU, compared in float64, is above ``iou_threshold``;
    - ``"gaussian"``: by ``exp(-IoU * IoU / sigma)`` for every IoU; ``iou_threshold`` is not used;
    - ``"naive"``: a box is dropped if the IoU is above ``iou_threshold``, as by :func:`nms`, and no score changes.

    A box whose score is below ``min_score``, from the start or after decaying, is dropped and no longer decays others.
    NaN IoU does not decay; boxes with a NaN score are never kept. Arithmetic is in float32, or in float64 if boxes or
    scores are float64. A box's decay is the product of its factors in the order in which boxes are taken; its score is
    the input score times the decay. CPU and CUDA give the same indices and scores, bit by bit.

    Args:
        boxes: ``[N, 4]`` (x1, y1, x2, y2), float16, bfloat16, float32 or float64. They get no gradient.
        scores: ``[N]``, of any of these dtypes. Scores below ``min_score`` are dropped, and so are all below 0.
        iou_threshold: IoU above which the linear method decays.
        method: ``"linear"``, ``"gaussian"`` or ``"naive"``, as in mmcv.
        sigma: of the gaussian method; positive.
        min_score: the lowest score that is kept, at least 0; rounded to the dtype of the arithmetic.
        idxs: integer or floating ``[N]``, the class of each box, any values; boxes decay only boxes of their own class.

    Returns:
        int64 ``[n]``: indices of the kept boxes by descending decayed score, those of equal score in input order; and
        the decayed scores ``[n]``, of the dtype of ``scores``. They are differentiable with respect to ``scores``, with
        the order and the boxes held fixed: the derivative is the decay. On CUDA the host waits for the size.

    Raises:
        ValueError: an unknown ``method``, a ``sigma`` that is not positive and finite, a ``min_score`` below 0 or NaN.
        RuntimeError: shapes, dtypes or devices that do not fit; boxes that require grad while a graph is recorded.

    Example:
        >>> import torch
        >>> boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8], [20, 20, 30, 30]])
        >>> soft_nms(boxes, torch.tensor([0.5, 0.75, 0.625]), 0.5)
        (tensor([1, 2, 0]), tensor([0.7500, 0.6250, 0.1000]))
    """
    if method not in ("linear", "gaussian", "naive"):
        raise ValueError(f"soft_nms: method must be 'linear', 'gaussian' or 'naive', got {method!r}")
    if not 0 < sigma < math.inf:
        raise ValueError(f"soft_nms: sigma must be positive and finite, got {sigma}")
    if not min_score >= 0:
        raise ValueError(f"soft_nms: min_score must be at least 0, got {min_score}")
    classes = None if idxs is None else as_classes("soft_nms", idxs)
    no_forward_mode("soft_nms", scores)
    records_graph = torch.is_grad_enabled()
    if records_graph and boxes.requires_grad:
        raise RuntimeError("soft_nms: boxes take no gradient, got some that require it: pass boxes.detach()")
    if method == "naive":
        return _naive_nms(as_boxes(boxes), scores, classes, iou_threshold, min_score)
    keep, decayed, decays = _soft_nms(
        as_boxes(boxes), scores.detach(), classes, iou_threshold, method == "gaussian", sigma, min_score
    )
    if records_graph and scores.requires_grad:  # autograd records the operator's product
        decayed = (scores[keep].to(decays.dtype) * decays).to(scores.dtype)
    return keep, decayed


def _naive_nms(
    boxes: Tensor, scores: Tensor, classes: Tensor | None, iou_threshold: float, min_score: float
) -> tuple[Tensor, Tensor]:
    wide = scores.detach().to(accumulate_dtype(boxes, scores))
    if wide.dtype == torch.float64 and boxes.is_floating_point():
        boxes = boxes.double()
    expect_scored_boxes("soft_nms", boxes, scores, classes)
    keep = _nms(boxes, scores.detach(), classes, iou_threshold)
    keep = keep[wide[keep] >= min_score]  # boxes of lower scores come later and drop only others of lower scores
    return keep, scores[keep]


@torch.library.register_fake("retina_ops::soft_nms")
def _(boxes, scores, idxs, iou_threshold, gaussian, sigma, min_score):  # type: ignore[no-untyped-def]
    expect_scored_boxes("soft_nms", boxes, scores, idxs)
    count = torch.library.get_ctx().new_dynamic_size()
    dtype = accumulate_dtype(boxes, scores)
    return boxes.new_empty(count, dtype=torch.int64), scores.new_empty(count), boxes.new_empty(count, dtype=dtype)
