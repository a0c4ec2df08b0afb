"""Anchor matching: the public function and fake. The rule: ``csrc/anchor_matching/anchor_matching.h``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import torch
from torch import Tensor

from retina_ops._deprecated import MATCHING, renamed_arguments
from retina_ops.ops._padding import in_one_dtype, pad_boxes
from retina_ops.ops._torchscript import no_torchscript

_OP = "match_anchors"


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
) -> list[Tensor]: ...


@renamed_arguments(**MATCHING)
@no_torchscript
def match_anchors(
    anchors: Tensor | Sequence[Tensor],
    gt_boxes: Tensor | Sequence[Tensor],
    fg_iou_thresh: float = 0.5,
    bg_iou_thresh: float = 0.4,
    allow_low_quality_matches: bool = True,
    *,
    ignore_regions: Tensor | Sequence[Tensor] | None = None,
    ignore_iof: float = 0.5,
) -> Tensor | list[Tensor]:
    """Assigns every anchor a ground-truth box, background, or neither, without the matrix of their IoUs.

    Ren et al. 2015, "Faster R-CNN", section 3.1.2, as torchvision's ``Matcher(box_iou(gt_boxes, anchors))``. Memory
    is O(anchors + boxes).

    Args:
        anchors: ``[A, 4]`` (x1, y1, x2, y2) in pixels, float16, bfloat16, float32 or float64; for a batch also a list
            of one ``[A, 4]`` an image or a tensor ``[B, A, 4]``.
        gt_boxes: ``[M, 4]`` of one image, or a list of such for a batch; M may be 0.
        fg_iou_thresh: an anchor whose highest IoU is at least this is foreground.
        bg_iou_thresh: an anchor whose highest IoU is under this is background; at most ``fg_iou_thresh``.
        allow_low_quality_matches: anchors that attain the highest IoU of some box (ties included) are foreground, too,
            each for its own best box. A box that overlaps no anchor makes none foreground.
        ignore_regions: ``[R, 4]`` (crowd boxes), or a list of such for a batch.
        ignore_iof: an anchor that is not foreground and has at least this share of its area inside a region to ignore
            becomes -2.

    Returns:
        int64 ``[A]``, or a list of such: the index of a box (the lowest among equal IoUs), -1 for background, -2 for
        anchors between the thresholds, which no loss should count. Thresholds are compared in the type of the
        arithmetic: float32, or float64 where boxes or anchors are.

    Raises:
        ValueError: ``bg_iou_thresh`` above ``fg_iou_thresh``, ``ignore_iof`` not above 0, lists of different lengths.
        RuntimeError: shapes, dtypes or devices that do not fit.

    Example:
        >>> import torch
        >>> anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 4], [50, 50, 60, 60]])
        >>> match_anchors(anchors, torch.tensor([[0.0, 0, 10, 9]]))
        tensor([ 0, -2, -1])
    """
    if not bg_iou_thresh <= fg_iou_thresh:
        raise ValueError(f"{_OP}: bg_iou_thresh must be at most fg_iou_thresh, got {bg_iou_thresh} and {fg_iou_thresh}")
    if ignore_regions is not None and not ignore_iof > 0:
        raise ValueError(f"{_OP}: ignore_iof must be above 0, got {ignore_iof}")
    one_image = isinstance(gt_boxes, Tensor)
    images: Sequence[Tensor] = [gt_boxes] if isinstance(gt_boxes, Tensor) else gt_boxes
    regions: Sequence[Tensor] | None = [ignore_regions] if isinstance(ignore_regions, Tensor) else ignore_regions
    if regions is not None and len(regions) != len(images):
        raise ValueError(f"{_OP}: one tensor of ignore_regions an image, got {len(regions)} for {len(images)} images")
    if not isinstance(anchors, Tensor):
        if len(anchors) != len(images):
            raise ValueError(f"{_OP}: one tensor of anchors an image, got {len(anchors)} for {len(images)} images")
        if len(anchors) == 0:
            return []
        shared = all(a is anchors[0] for a in anchors)
        if not shared and any(a.shape != anchors[0].shape for a in anchors):  # images of different sizes, one by one
            return [
                match_anchors(
                    anchors[i],
                    images[i],
                    fg_iou_thresh,
                    bg_iou_thresh,
                    allow_low_quality_matches,
                    ignore_regions=None if regions is None else regions[i],
                    ignore_iof=ignore_iof,
                )
                for i in range(len(images))
            ]
        anchors = anchors[0] if shared else torch.stack(list(anchors))
    if len(images) == 0:
        return []
    if anchors.is_floating_point():
        anchors = in_one_dtype(anchors, images, regions)
    padded, counts = pad_boxes(_OP, "gt_boxes", images, anchors)
    padded_regions, region_counts = (
        (None, None) if regions is None else pad_boxes(_OP, "ignore_regions", regions, anchors)
    )
    matches, _ = torch.ops.retina_ops.match_anchors(
        anchors,
        padded,
        counts,
        padded_regions,
        region_counts,
        float(fg_iou_thresh),
        float(bg_iou_thresh),
        allow_low_quality_matches,
        float(ignore_iof),
    )
    return matches[0] if one_image else list(matches.unbind(0))


@torch.library.register_fake("retina_ops::match_anchors")
def _(  # type: ignore[no-untyped-def]
    anchors, gt_boxes, gt_counts, regions, region_counts, fg_iou_thresh, bg_iou_thresh, allow_low_quality, ignore_iof
):
    torch._check(anchors.is_floating_point(), lambda: f"{_OP}: anchors must be floating, got {anchors.dtype}")
    torch._check(
        gt_boxes.dim() == 3 and gt_boxes.shape[2] == 4,
        lambda: f"{_OP}: gt_boxes must be [B, M, 4], got {list(gt_boxes.shape)}",
    )
    torch._check(
        anchors.dim() in (2, 3) and anchors.shape[-1] == 4,
        lambda: f"{_OP}: anchors must be [A, 4] or [B, A, 4], got {list(anchors.shape)}",
    )
    batch = gt_boxes.shape[0]
    return (
        anchors.new_empty((batch, anchors.shape[-2]), dtype=torch.int64),
        anchors.new_empty(batch, dtype=torch.int64),
    )
