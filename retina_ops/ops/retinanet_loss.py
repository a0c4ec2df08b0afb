"""The fused RetinaNet loss: the public function. The rule is in ``csrc/retinanet_loss/``."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from retina_ops._deprecated import BOX_CODER, MATCHING, renamed_arguments
from retina_ops.ops._autograd import no_forward_mode, wanted_in_forward
from retina_ops.ops._checks import accumulate_dtype, four_weights
from retina_ops.ops._head_outputs import check_levels, memory_order_levels
from retina_ops.ops._padding import pad_boxes, pad_labels, promote_anchors
from retina_ops.ops._retinanet_loss_autograd import BOX_LOSSES as BOX_LOSSES
from retina_ops.ops._retinanet_loss_eager import FusedLoss, are_plain
from retina_ops.ops._torchscript import no_torchscript
from retina_ops.ops.normalization import Normalization, loss_divisors

_OP = "retinanet_loss"
_match_anchors = torch.ops.retina_ops.match_anchors.default
_loss = torch.ops.retina_ops.retinanet_loss.default


@renamed_arguments(**MATCHING, **BOX_CODER)
@no_torchscript
def retinanet_loss(
    cls_logits: Sequence[Tensor],
    bbox_regression: Sequence[Tensor],
    anchors: Tensor,
    gt_boxes: Sequence[Tensor],
    gt_labels: Sequence[Tensor],
    *,
    fg_iou_thresh: float = 0.5,
    bg_iou_thresh: float = 0.4,
    allow_low_quality_matches: bool = True,
    alpha: float = 0.25,
    gamma: float = 2.0,
    box_loss: str = "l1",
    smooth_l1_beta: float = 1.0,
    bbox_reg_weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    normalization: Normalization = "image",
    ignore_regions: Sequence[Tensor] | None = None,
    ignore_iof: float = 0.5,
    min_pos_iou: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Classification and box loss of a batch, computed from the outputs of the head in a few kernel launches.

    Lin et al. 2017, "Focal Loss for Dense Object Detection", section 4.1, as torchvision's ``RetinaNet.compute_loss``:
    anchors are matched to boxes (:func:`match_anchors`); every anchor that is not between the thresholds has a focal
    loss (:func:`sigmoid_focal_loss`), and every foreground anchor a box loss. The outputs are read in the memory format
    of the convolutions, and their gradients are written in the same pass. Nothing is permuted, concatenated, gathered
    or made one-hot, and the host does not wait for the device. Besides the gradients, 8 bytes per anchor and image are
    needed.

    Args:
        cls_logits: one tensor per level, at most 8, ``[B, A * K, H, W]`` (contiguous or channels-last; A anchors per
            cell, K classes) or ``[B, H * W * A, K]``; float16, bfloat16, float32 or float64.
        bbox_regression: for the same levels ``[B, A * 4, H, W]`` or ``[B, H * W * A, 4]``: deltas (dx, dy, dw, dh).
        anchors: ``[N, 4]`` (x1, y1, x2, y2) in pixels: level by level, ordered by row, column and index within the
            cell.
        gt_boxes: for each image ``[M, 4]`` in pixels; M may be 0.
        gt_labels: for each image integers ``[M]`` in 0..K-1.
        fg_iou_thresh, bg_iou_thresh, allow_low_quality_matches: as for :func:`match_anchors`.
        alpha, gamma: numbers, as for :func:`sigmoid_focal_loss`.
        box_loss: ``"l1"`` or ``"smooth_l1"`` of the deltas, summed over the four; ``"giou"``, ``"diou"`` or
            ``"ciou"`` of the decoded boxes.
        smooth_l1_beta: where ``"smooth_l1"`` changes from quadratic to linear, in units of the deltas; with 0 it is
            ``"l1"``.
        bbox_reg_weights: factors of the deltas, as for :func:`encode_boxes`.
        normalization: ``"image"``: the sums of each image are divided by its number of foreground anchors (at least 1)
            and averaged over the images, as in torchvision. ``"batch"``: the sums of the batch are divided by its
            number of foreground anchors, averaged over all processes of ``torch.distributed``. A callable, such as
            :class:`EmaNormalizer`: it is given the number of foreground anchors of each image, int64 ``[B]``, and
            returns what the sums are divided by, ``[]`` or ``[B]``.
        ignore_regions: for each image ``[R, 4]`` (crowd boxes); see :func:`match_anchors`.
        ignore_iof, min_pos_iou: as for :func:`match_anchors`.

    Returns:
        Classification and box loss, scalars: float32, or float64 for float64 outputs. Twice differentiable with respect
        to ``cls_logits`` and ``bbox_regression``.

    Raises:
        ValueError: invalid options.
        RuntimeError: shapes, dtypes or devices that do not fit; on CPU, a label outside [0, K). On CUDA such a
            label makes the classification loss NaN.

    Example:
        >>> import torch
        >>> logits = torch.zeros(1, 3, 2, 2, requires_grad=True)  # one anchor per cell, 3 classes, 2 x 2 cells
        >>> deltas = torch.zeros(1, 4, 2, 2, requires_grad=True)
        >>> x = torch.tensor([0.0, 8.0])
        >>> anchors = torch.stack([x.repeat(2), x.repeat_interleave(2)], 1).repeat(1, 2) + torch.tensor([0, 0, 8.0, 8])
        >>> losses = retinanet_loss([logits], [deltas], anchors, [torch.tensor([[0.0, 0, 8, 6]])], [torch.tensor([2])])
        >>> [round(loss.item(), 4) for loss in losses]
        [1.4729, 0.4127]
        >>> sum(losses).backward()
    """
    _check_options(alpha, gamma, box_loss, smooth_l1_beta)
    check_levels(_OP, cls_logits, bbox_regression)
    maps = (*cls_logits, *bbox_regression)
    no_forward_mode(_OP, *maps)
    batch = maps[0].shape[0]
    for name, values in (("gt_boxes", gt_boxes), ("gt_labels", gt_labels), ("ignore_regions", ignore_regions)):
        if values is not None and (isinstance(values, Tensor) or len(values) != batch):
            got = "one tensor" if isinstance(values, Tensor) else str(len(values))
            raise ValueError(f"{_OP}: {name} must be a list of {batch} tensors, one per image, got {got}")
    if batch == 0:
        raise ValueError(f"{_OP}: there must be at least one image")
    if not anchors.is_floating_point() or anchors.dim() != 2 or anchors.shape[1] != 4:
        raise RuntimeError(f"{_OP}: anchors must be floating [N, 4], got {anchors.dtype} {list(anchors.shape)}")
    anchors = promote_anchors(anchors.detach(), gt_boxes, ignore_regions)
    boxes, counts = pad_boxes(_OP, "gt_boxes", gt_boxes, anchors)
    labels = pad_labels(_OP, "gt_labels", gt_labels, gt_boxes, boxes)
    regions = (None, None) if ignore_regions is None else pad_boxes(_OP, "ignore_regions", ignore_regions, anchors)
    matches, foreground = _match_anchors(
        anchors, boxes, counts, *regions, float(fg_iou_thresh), float(bg_iou_thresh), allow_low_quality_matches,
        float(ignore_iof), float(min_pos_iou),
    )  # fmt: skip
    dtype = accumulate_dtype(bbox_regression[0])
    divisors = loss_divisors(normalization, foreground, _OP)
    tensors = (anchors.to(dtype), boxes.to(dtype), labels, matches, divisors)
    weights = four_weights(_OP, "bbox_reg_weights", bbox_reg_weights)
    options = (float(alpha), float(gamma), BOX_LOSSES.index(box_loss), float(smooth_l1_beta), *weights)
    with_grad = any(wanted_in_forward(*maps))
    if with_grad and are_plain(*maps):
        return FusedLoss.apply(len(cls_logits), tensors, options, *maps)  # type: ignore[no-any-return]
    losses = _loss(*memory_order_levels(cls_logits, bbox_regression), *tensors, *options, with_grad)
    return losses[0], losses[1]


def _check_options(alpha: float, gamma: float, box_loss: str, smooth_l1_beta: float) -> None:
    if alpha != -1 and not 0 <= alpha <= 1:
        raise ValueError(f"{_OP}: alpha must be in [0, 1], or -1 for none, got {alpha}")
    if not 0 <= gamma < math.inf:  # math.isfinite rejects SymFloat.
        raise ValueError(f"{_OP}: gamma must be finite and at least 0, got {gamma}")
    if box_loss not in BOX_LOSSES:
        raise ValueError(f"{_OP}: box_loss must be one of {', '.join(BOX_LOSSES)}, got {box_loss!r}")
    if not 0 <= smooth_l1_beta < math.inf:
        raise ValueError(f"{_OP}: smooth_l1_beta must be finite and at least 0, got {smooth_l1_beta}")
