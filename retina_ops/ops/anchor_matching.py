"""Anchor matching: the public function and shapes. The rule is in ``csrc/anchor_matching/anchor_matching.h``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import torch
from torch import Tensor

from retina_ops._deprecated import MATCHING, renamed_arguments
from retina_ops.ops._checks import expect
from retina_ops.ops._padding import pad_boxes, promote_anchors
from retina_ops.ops._torchscript import no_torchscript
from retina_ops.reference.anchor_matching import match_matrix

_OP = "match_anchors"
_match_anchors = torch.ops.retina_ops.match_anchors.default


@overload
def match_anchors(
    anchors: Tensor | Sequence[Tensor],
    gt_boxes: Tensor,
    fg_iou_thresh: float = ...,
    bg_iou_thresh: float = ...,
    allow_low_quality_matches: bool = ...,
    *,
    ignore_regions: Tensor | None = ...,
    ignore_iof: float = ...,
    min_pos_iou: float = ...,
    iou: None = ...,
) -> Tensor: ...


@overload
def match_anchors(
    anchors: Tensor | Sequence[Tensor],
    gt_boxes: Sequence[Tensor],
    fg_iou_thresh: float = ...,
    bg_iou_thresh: float = ...,
    allow_low_quality_matches: bool = ...,
    *,
    ignore_regions: Sequence[Tensor] | None = ...,
    ignore_iof: float = ...,
    min_pos_iou: float = ...,
    iou: None = ...,
) -> list[Tensor]: ...


@overload
def match_anchors(
    anchors: Tensor | Sequence[Tensor] | None = ...,
    gt_boxes: None = ...,
    fg_iou_thresh: float = ...,
    bg_iou_thresh: float = ...,
    allow_low_quality_matches: bool = ...,
    *,
    min_pos_iou: float = ...,
    iou: Tensor,
) -> Tensor: ...


@overload
def match_anchors(
    anchors: Tensor | Sequence[Tensor] | None = ...,
    gt_boxes: None = ...,
    fg_iou_thresh: float = ...,
    bg_iou_thresh: float = ...,
    allow_low_quality_matches: bool = ...,
    *,
    min_pos_iou: float = ...,
    iou: Sequence[Tensor],
) -> list[Tensor]: ...


@renamed_arguments(**MATCHING)
@no_torchscript
def match_anchors(
    anchors: Tensor | Sequence[Tensor] | None = None,
    gt_boxes: Tensor | Sequence[Tensor] | None = None,
    fg_iou_thresh: float = 0.5,
    bg_iou_thresh: float = 0.4,
    allow_low_quality_matches: bool = True,
    *,
    ignore_regions: Tensor | Sequence[Tensor] | None = None,
    ignore_iof: float = 0.5,
    min_pos_iou: float = 0.0,
    iou: Tensor | Sequence[Tensor] | None = None,
) -> Tensor | list[Tensor]:
    """Assigns every anchor a ground-truth box, background, or neither, without a matrix of IoUs.

    Ren et al. 2015, "Faster R-CNN", section 3.1.2, as torchvision's ``Matcher(box_iou(gt_boxes, anchors))``. It needs
    O(anchors + boxes) memory. ``iou`` takes a matrix that is there already, of whatever measure of overlap.

    Args:
        anchors: ``[A, 4]`` (x1, y1, x2, y2) in pixels, float16, bfloat16, float32 or float64. For a batch also a list
            with one ``[A, 4]`` per image or a tensor ``[B, A, 4]``.
        gt_boxes: ``[M, 4]`` of one image, or a list with one per image for a batch; M may be 0.
        fg_iou_thresh: an anchor whose highest IoU is at least this is foreground; mmdet's ``pos_iou_thr``.
        bg_iou_thresh: an anchor whose highest IoU is below this is background; at most ``fg_iou_thresh``; mmdet's
            ``neg_iou_thr``.
        allow_low_quality_matches: an anchor that attains the highest IoU of some box (ties included) is foreground as
            well, and is assigned the box that it overlaps best. A box that overlaps no anchor makes none foreground.
        ignore_regions: ``[R, 4]`` (crowd boxes), or a list with one per image for a batch.
        ignore_iof: an anchor that is not foreground and has at least this share of its area inside an ignore region
            becomes -2.
        min_pos_iou: a box has low-quality matches only if its highest IoU is at least this, as in mmdet's assigners.
        iou: in place of ``anchors`` and ``gt_boxes`` the overlaps ``[M, A]`` of one image, or a list with one matrix
            per image, floating.

    Returns:
        int64 ``[A]``, or a list with one per image: the index of a box (the lowest for equal IoUs), -1 for background,
        -2 for anchors between the thresholds, which no loss should count. Thresholds are compared in the dtype of the
        arithmetic: float32, or float64 if boxes or anchors are float64; for ``iou`` in its dtype.

    Raises:
        ValueError: ``bg_iou_thresh`` above ``fg_iou_thresh``, ``ignore_iof`` not above 0, ``min_pos_iou`` that is NaN,
            lists of different lengths, ``iou`` beside boxes, anchors or regions, or neither of them.
        RuntimeError: shapes, dtypes or devices that do not fit.

    Example:
        >>> import torch
        >>> anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 4], [50, 50, 60, 60]])
        >>> match_anchors(anchors, torch.tensor([[0.0, 0, 10, 9]]))
        tensor([ 0, -2, -1])
        >>> match_anchors(iou=torch.tensor([[0.9, 0.45, 0.0]]))
        tensor([ 0, -2, -1])
    """
    if not bg_iou_thresh <= fg_iou_thresh:
        raise ValueError(f"{_OP}: bg_iou_thresh must be at most fg_iou_thresh, got {bg_iou_thresh} and {fg_iou_thresh}")
    if ignore_regions is not None and not ignore_iof > 0:
        raise ValueError(f"{_OP}: ignore_iof must be above 0, got {ignore_iof}")
    if min_pos_iou != min_pos_iou:
        raise ValueError(f"{_OP}: min_pos_iou must be a number, got {min_pos_iou}")
    thresholds = (float(fg_iou_thresh), float(bg_iou_thresh), allow_low_quality_matches)
    if iou is not None:
        if anchors is not None or gt_boxes is not None or ignore_regions is not None:
            raise ValueError(
                f"{_OP}: iou takes the place of anchors, gt_boxes and ignore_regions: give one or the other"
            )
        if isinstance(iou, Tensor):
            return _match_matrix(iou, *thresholds, float(min_pos_iou))
        return [_match_matrix(matrix, *thresholds, float(min_pos_iou)) for matrix in iou]
    if anchors is None or gt_boxes is None:
        raise ValueError(f"{_OP}: anchors and gt_boxes, or iou, must be given")
    one_image = isinstance(gt_boxes, Tensor)
    images: Sequence[Tensor] = [gt_boxes] if isinstance(gt_boxes, Tensor) else gt_boxes
    regions: Sequence[Tensor] | None = [ignore_regions] if isinstance(ignore_regions, Tensor) else ignore_regions
    if regions is not None and len(regions) != len(images):
        raise ValueError(f"{_OP}: one tensor of ignore_regions per image, got {len(regions)} for {len(images)} images")
    if not isinstance(anchors, Tensor):
        if len(anchors) != len(images):
            raise ValueError(f"{_OP}: one tensor of anchors per image, got {len(anchors)} for {len(images)} images")
        if len(anchors) == 0:
            return []
        shared = all(image is anchors[0] for image in anchors)
        if not shared and any(image.shape != anchors[0].shape for image in anchors):  # images of different sizes
            return [
                match_anchors(
                    anchors[i],
                    images[i],
                    *thresholds,
                    ignore_regions=None if regions is None else regions[i],
                    ignore_iof=ignore_iof,
                    min_pos_iou=min_pos_iou,
                )
                for i in range(len(images))
            ]
        anchors = anchors[0] if shared else torch.stack(list(anchors))
    if len(images) == 0:
        return []
    if anchors.is_floating_point():
        anchors = promote_anchors(anchors, images, regions)
    padded, counts = pad_boxes(_OP, "gt_boxes", images, anchors)
    padded_regions, region_counts = (
        (None, None) if regions is None else pad_boxes(_OP, "ignore_regions", regions, anchors)
    )
    matches, _ = _match_anchors(
        anchors, padded, counts, padded_regions, region_counts, *thresholds, float(ignore_iof), float(min_pos_iou)
    )
    return matches[0] if one_image else list(matches.unbind(0))


def _match_matrix(iou: Tensor, fg_iou_thresh: float, bg_iou_thresh: float, low_quality: bool, lowest: float) -> Tensor:
    if iou.dim() != 2 or not iou.is_floating_point():
        raise RuntimeError(f"{_OP}: iou must be floating [M, A], got {iou.dtype} {list(iou.shape)}")
    return match_matrix(iou.detach(), fg_iou_thresh, bg_iou_thresh, low_quality, lowest)


@torch.library.register_fake("retina_ops::match_anchors")
def _(  # type: ignore[no-untyped-def]
    anchors,
    gt_boxes,
    gt_counts,
    regions,
    region_counts,
    fg_iou_thresh,
    bg_iou_thresh,
    allow_low_quality,
    ignore_iof,
    low,
):
    expect(anchors.is_floating_point(), f"{_OP}: anchors must be floating", anchors.dtype)
    expect(gt_boxes.dim() == 3 and gt_boxes.shape[2] == 4, f"{_OP}: gt_boxes must be [B, M, 4]", gt_boxes.shape)
    fits = anchors.dim() in (2, 3) and anchors.shape[-1] == 4
    expect(fits, f"{_OP}: anchors must be [A, 4] or [B, A, 4]", anchors.shape)
    batch = gt_boxes.shape[0]
    return (
        anchors.new_empty((batch, anchors.shape[-2]), dtype=torch.int64),
        anchors.new_empty(batch, dtype=torch.int64),
    )
