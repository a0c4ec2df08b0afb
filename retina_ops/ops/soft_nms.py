"""Soft non-maximum suppression: the public function and its fake. The rule: ``csrc/soft_nms/soft_nms.h``."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from retina_ops.ops._checks import no_forward_mode
from retina_ops.ops._torchscript import no_torchscript
from retina_ops.ops.nms import _as_classes, _check_shapes

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
    """Soft non-maximum suppression: lowers the scores of boxes that overlap a better one, instead of dropping them.

    Bodla et al. 2017, "Soft-NMS: Improving Object Detection With One Line of Code". At each step the box of the highest
    current score is taken, of equal scores the one of the lowest index, and each remaining box (of its class) decays:

    - ``"linear"``: by ``1 - IoU`` where the IoU is above ``iou_threshold``, compared as a double;
    - ``"gaussian"``: by ``exp(-IoU * IoU / sigma)``, whatever the IoU; ``iou_threshold`` is not used.

    A box whose score is under ``min_score``, at first or after decaying, is dropped and decays nothing more. NaN IoU
    decays nothing; NaN scores are never kept. Arithmetic is in float32, or float64 where boxes or scores are: a box's
    decay is the product of its factors in the order in which boxes are taken, its score the input score times that.
    CPU and CUDA give the same indices and scores, bit by bit.

    Args:
        boxes: ``[N, 4]`` (x1, y1, x2, y2), float16, bfloat16, float32 or float64. They take no gradient.
        scores: ``[N]``, of any of these dtypes; under ``min_score``, and so under 0, they are dropped.
        iou_threshold: IoU above which the linear method decays.
        method: ``"linear"`` or ``"gaussian"``.
        sigma: of the gaussian method; positive.
        min_score: the lowest score that is kept, at least 0; rounded to the dtype of the arithmetic.
        idxs: integer ``[N]``, the class of each box, any values: boxes decay those of their own class alone.

    Returns:
        int64 ``[n]``: indices of the kept boxes by descending decayed score, equal ones in input order; and these
        scores ``[n]``, of the dtype of ``scores``. They are differentiable in ``scores``, with the order and the boxes
        held fixed: the derivative is the decay. On CUDA the size is read back from the device.

    Raises:
        ValueError: another ``method``, a ``sigma`` that is not positive and finite, a ``min_score`` under 0 or NaN.
        RuntimeError: shapes, dtypes or devices that do not fit; boxes that require a gradient while one is recorded.

    Example:
        >>> import torch
        >>> boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8], [20, 20, 30, 30]])
        >>> soft_nms(boxes, torch.tensor([0.5, 0.75, 0.625]), 0.5)
        (tensor([1, 2, 0]), tensor([0.7500, 0.6250, 0.1000]))
    """
    if method not in ("linear", "gaussian"):
        raise ValueError(f"soft_nms: method must be 'linear' or 'gaussian', got {method!r}")
    if not 0 < sigma < math.inf:
        raise ValueError(f"soft_nms: sigma must be positive and finite, got {sigma}")
    if not min_score >= 0:
        raise ValueError(f"soft_nms: min_score must be at least 0, got {min_score}")
    classes = None if idxs is None else _as_classes(idxs, "soft_nms")
    no_forward_mode("soft_nms", scores)
    records = torch.is_grad_enabled()
    if records and boxes.requires_grad:
        raise RuntimeError("soft_nms: boxes take no gradient, got some that require it: pass boxes.detach()")
    keep, decayed, decays = _soft_nms(
        boxes, scores.detach(), classes, iou_threshold, method == "gaussian", sigma, min_score
    )
    if records and scores.requires_grad:  # the same product once more, for autograd to see
        decayed = (scores[keep].to(decays.dtype) * decays).to(scores.dtype)
    return keep, decayed


@torch.library.register_fake("retina_ops::soft_nms")
def _(boxes, scores, idxs, iou_threshold, gaussian, sigma, min_score):  # type: ignore[no-untyped-def]
    _check_shapes("soft_nms", boxes, scores, idxs)
    count = torch.library.get_ctx().new_dynamic_size()
    dtype = torch.float64 if torch.float64 in (boxes.dtype, scores.dtype) else torch.float32
    return boxes.new_empty(count, dtype=torch.int64), scores.new_empty(count), boxes.new_empty(count, dtype=dtype)
