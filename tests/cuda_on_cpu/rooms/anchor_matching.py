"""anchor_matching/ on an emulated device."""

from __future__ import annotations

import torch
from inputs.boxes import random_boxes
from torch import Tensor

from retina_ops import reference

from ..arguments import limits, output, padded_boxes
from ..device import Array, Device
from ..room import BOTH, Bug


def match_anchors(
    device: Device,
    anchors: Tensor,
    gt_boxes: list[Tensor],
    fg_iou_thresh: float = 0.5,
    bg_iou_thresh: float = 0.4,
    allow_low_quality: bool = True,
    *,
    regions: list[Tensor] | None = None,
    ignore_iof: float = 0.5,
    min_pos_iou: float = 0.0,
    offset: int = 0,
    first: int = 0,
    surplus: int = 0,
) -> tuple[Tensor, Tensor]:
    """Matches [batch, A] and numbers of foreground anchors [batch].

    Args:
        anchors: of all images [A, 4], or of each image [batch, A, 4].
        first: index of the first image.
        surplus: added to the counts of boxes and regions, which are then wrong.
    """
    batch, per_image = len(gt_boxes), anchors.dim() == 3
    padded, counts = padded_boxes(gt_boxes, anchors.dtype)
    matches = torch.empty(batch, anchors.shape[-2], dtype=torch.int64)
    foreground = torch.zeros(batch, dtype=torch.int64)
    best_dtype = torch.int64 if anchors.dtype == torch.float64 else torch.int32
    fields = {
        "anchors": Array(anchors, offset=offset, first=first if per_image else 0),
        "anchors_per_image": per_image,
        "gt_boxes": Array(padded, first=first),
        "gt_counts": Array(counts + surplus, first=first),
        "dtype": anchors.dtype,
        "batch": first + batch,
        "anchor_count": anchors.shape[-2],
        "gt_capacity": padded.shape[1],
        "region_capacity": 0,
        "fg_iou": fg_iou_thresh,
        "bg_iou": bg_iou_thresh,
        "ignore_iof": ignore_iof,
        "allow_low_quality": allow_low_quality,
        "min_pos_iou": min_pos_iou,
        "matches": output(matches, first=first),
        "foreground": Array(foreground, first=first),
        "best": Array(torch.zeros(batch, padded.shape[1], dtype=best_dtype), first=first),
        "limits": limits(first),
    }
    if regions is not None:
        padded_regions, region_counts = padded_boxes(regions, anchors.dtype)
        fields |= {
            "regions": Array(padded_regions, first=first),
            "region_counts": Array(region_counts + surplus, first=first),
            "region_capacity": padded_regions.shape[1],
        }
    device.launch("launch_match_anchors", fields)
    return matches, foreground


def matched(device: Device) -> None:
    anchors, truth = random_boxes(700), [random_boxes(40), random_boxes(3)]
    regions = [random_boxes(5), random_boxes(0)]
    matches, _ = match_anchors(device, anchors, truth, regions=regions)
    for image, boxes in enumerate(truth):
        expected = reference.match_anchors(anchors, boxes, ignore_regions=regions[image])
        assert torch.equal(matches[image], expected)
    matches, foreground = match_anchors(device, anchors, truth)
    for image, boxes in enumerate(truth):
        assert torch.equal(matches[image], reference.match_anchors(anchors, boxes))
    assert torch.equal(foreground, (matches >= 0).sum(dim=1))


def matched_few(device: Device) -> None:
    boxes = random_boxes(200)
    matches, foreground = match_anchors(device, boxes, [boxes[:20]])
    assert torch.equal(matches[0], reference.match_anchors(boxes, boxes[:20]))
    assert foreground[0] == (matches >= 0).sum()


def large(device: Device) -> None:
    anchors, boxes = random_boxes(300), random_boxes(25)
    truth = [boxes[:20], boxes[20:]]
    far = match_anchors(device, anchors, truth, regions=truth, first=2**31 // 8 + 1)
    near = match_anchors(device, anchors, truth, regions=truth)
    assert torch.equal(far[0], near[0]) and torch.equal(far[1], near[1])


_KERNELS = "anchor_matching/anchor_matching_kernels.cuh"

RANDOM = [matched_few]
LARGE = [large]
PLANTED = {
    "match: past the anchors": Bug(
        _KERNELS,
        "  if (warp.index < args.anchor_count) {\n    args.matches",
        "  if (true) {\n    args.matches",
        matched,
        BOTH,
    ),
    "match: maximum not atomic": Bug(
        _KERNELS,
        "atomicMax(&args.best[warp.image * args.gt_capacity + index], iou_bits(highest));",
        "auto& best = args.best[warp.image * args.gt_capacity + index];\n"
        "        best = best > iou_bits(highest) ? best : iou_bits(highest);",
        matched,
    ),
    "match: vote of a part of the warp": Bug(
        _KERNELS,
        "__any_sync(kFullWarp, !is_foreground(match))",
        "(in_range && __any_sync(kFullWarp, !is_foreground(match)))",
        matched,
        BOTH,
    ),
    "match: count not atomic": Bug(
        _KERNELS,
        "atomicAdd(&args.foreground[warp.image], 1ull);",
        "args.foreground[warp.image] += 1ull;",
        matched,
    ),
}
