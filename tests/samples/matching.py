"""Inputs of match_anchors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from inputs.boxes import boxes_at_iou, odd_boxes, random_boxes
from torch import Tensor

from retina_ops import reference

from .row import Refused, Sample

# Numbers of anchors and boxes.
SIZES = {
    (0, 3): "no anchors",
    (5, 0): "no boxes",
    (1, 1): "one pair",
    (31, 2): "an anchor less than a warp of 32",
    (33, 40): "an anchor more than a warp of 32, more boxes than anchors",
    (64, 7): "a tile of 64",
    (65, 8): "an anchor more than a tile of 64",
    (257, 9): "an anchor more than a block of 256",
    (5000, 33): "more than a group of 4,096",
}
THRESHOLDS = {
    (0.5, 0.4): "the paper's thresholds",
    (0.5, 0.5): "equal thresholds",
    (0.9, 0.05): "thresholds far apart",
    (0.5, 0.0): "no IoU is background: every pair counts",
    (0.0, 0.0): "every IoU is foreground",
    (0.3, -1.0): "a threshold below every IoU",
    (2.0, 0.4): "a threshold above every IoU",
}


def boxes_of(count: int, dtype: torch.dtype) -> Tensor:
    return random_boxes(count, width=300, height=200, high=90).to(dtype)


def samples(dtype: torch.dtype) -> Iterator[Sample]:
    for (anchors, boxes), why in SIZES.items():
        for low_quality in (True, False):
            yield Sample(
                f"{why}, low-quality matches {low_quality}",
                anchors=boxes_of(anchors, dtype),
                gt_boxes=boxes_of(boxes, dtype),
                allow_low_quality_matches=low_quality,
            )
    for (fg, bg), why in THRESHOLDS.items():
        thresholds = {"fg_iou_thresh": fg, "bg_iou_thresh": bg}
        for low_quality in (True, False):
            anchors, boxes = boxes_of(700, dtype), boxes_of(40, dtype)
            options = {**thresholds, "allow_low_quality_matches": low_quality}
            yield Sample(why, anchors=anchors, gt_boxes=boxes, **options)
            yield Sample(f"{why}, whole pixels: ties", anchors=anchors.round(), gt_boxes=boxes.round(), **options)
    for lowest in (0.2, 0.45, 0.7, 2.0, -1.0):
        anchors, boxes = boxes_of(700, dtype), boxes_of(40, dtype)
        options = {"fg_iou_thresh": 0.7, "bg_iou_thresh": 0.3, "min_pos_iou": lowest}
        yield Sample(f"low-quality matches from {lowest}", anchors=anchors, gt_boxes=boxes, **options)
    pairs = boxes_at_iou(500, 1 / 3).to(dtype)
    options = {"fg_iou_thresh": 0.9, "bg_iou_thresh": 0.1, "min_pos_iou": 1 / 3}
    yield Sample("highest IoUs within a few ulps of min_pos_iou", anchors=pairs[1::2], gt_boxes=pairs[0::2], **options)
    for iou in (0.4, 0.5, 1 / 3):
        pairs = boxes_at_iou(500, iou).to(dtype)
        for fg, bg in ((iou, 0.1), (0.9, iou)):
            options = {"fg_iou_thresh": fg, "bg_iou_thresh": bg, "allow_low_quality_matches": False}
            why = f"IoUs within a few ulps of {iou:.3g}"
            yield Sample(why, anchors=pairs[1::2], gt_boxes=pairs[0::2], **options)
    anchors, boxes = torch.cat([boxes_of(300, dtype), odd_boxes().to(dtype)]), boxes_of(20, dtype)
    for bg in (0.4, 0.0):
        for gt_boxes in (boxes, torch.cat([odd_boxes().to(dtype), boxes])):
            yield Sample("boxes without area, infinite, NaN", anchors=anchors, gt_boxes=gt_boxes, bg_iou_thresh=bg)
    anchors, boxes = boxes_of(3000, dtype), boxes_of(12, dtype)
    regions = torch.cat([boxes_of(4, dtype), torch.tensor([[5.0, 5, 5, 9]], dtype=dtype)])
    for iof in (0.1, 0.5, 1.0):
        yield Sample(
            f"regions to ignore from {iof}", anchors=anchors, gt_boxes=boxes, ignore_regions=regions, ignore_iof=iof
        )
    yield Sample("regions to ignore and no boxes", anchors=anchors, gt_boxes=boxes[:0], ignore_regions=regions)
    images = [boxes_of(count, dtype) for count in (3, 0, 17, 1)]
    ignored = [boxes_of(count, dtype) for count in (0, 2, 1, 9)]
    own = [boxes_of(900, dtype) for _ in images]
    ragged = [boxes_of(100 * index, dtype) for index in range(4)]
    for why, its_anchors in {
        "shared anchors": anchors,
        "the same anchors, listed": [anchors] * 4,
        "anchors of each image": own,
        "a tensor of anchors of each image": torch.stack(own),
        "images of different sizes": ragged,
    }.items():
        yield Sample(f"a batch, {why}", anchors=its_anchors, gt_boxes=images, ignore_regions=ignored)
    yield Sample("no images", anchors=anchors, gt_boxes=[])


def small(dtype: torch.dtype, size: int) -> Iterator[Sample]:
    anchors, boxes = boxes_of(10 * size, dtype), boxes_of(size, dtype)
    yield Sample("one image", anchors=anchors, gt_boxes=boxes)
    yield Sample("regions to ignore", anchors=anchors, gt_boxes=boxes, ignore_regions=boxes[:2])
    own, images = torch.stack([anchors, anchors.flip(0)]), [boxes, boxes[:3]]
    yield Sample("anchors of each image", anchors=own, gt_boxes=images)
    yield Sample("anchors of each image, regions to ignore", anchors=own, gt_boxes=images, ignore_regions=images)


def large(dtype: torch.dtype) -> Iterator[Sample]:
    yield Sample("30,000 anchors, 50 boxes", anchors=boxes_of(30_000, dtype), gt_boxes=boxes_of(50, dtype))
    images = [boxes_of(count, dtype) for count in (50, 0, 9)]
    yield Sample("three images", anchors=boxes_of(30_000, dtype), gt_boxes=images, ignore_regions=images)


def refused() -> Iterator[Refused]:
    anchors, boxes = boxes_of(5, torch.float32), boxes_of(2, torch.float32)

    def bad(error: type[Exception], message: str, **arguments: object) -> Refused:
        return Refused(error, message, {"anchors": anchors, "gt_boxes": boxes, **arguments})

    message = r"bg_iou_thresh must be at most fg_iou_thresh, got 0\.6 and 0\.5"
    yield bad(ValueError, message, fg_iou_thresh=0.5, bg_iou_thresh=0.6)
    yield bad(ValueError, "ignore_iof must be above 0, got 0", ignore_regions=boxes, ignore_iof=0)
    yield bad(ValueError, "match_anchors: min_pos_iou must be a number, got nan", min_pos_iou=float("nan"))
    message = "match_anchors: iou takes the place of anchors, gt_boxes and ignore_regions"
    yield bad(ValueError, message, iou=torch.rand(2, 5))
    yield bad(ValueError, "match_anchors: anchors and gt_boxes, or iou, must be given", gt_boxes=None)
    message = r"match_anchors: iou must be floating \[M, A\], got torch.int64 \[2\]"
    yield bad(RuntimeError, message, anchors=None, gt_boxes=None, iou=torch.zeros(2, dtype=torch.int64))
    message = "one tensor of anchors per image, got 1 for 2 images"
    yield bad(ValueError, message, anchors=[anchors], gt_boxes=[boxes, boxes])
    message = "one tensor of ignore_regions per image, got 1 for 2 images"
    yield bad(ValueError, message, gt_boxes=[boxes, boxes], ignore_regions=[boxes])
    yield bad(RuntimeError, r"match_anchors: gt_boxes must be \[M, 4\], got \[2, 3\]", gt_boxes=boxes[:, :3])
    message = r"match_anchors: anchors must be \[A, 4\] or \[1, A, 4\], got \[5, 3\]"
    yield bad(RuntimeError, message, anchors=anchors[:, :3])
    message = "anchors must be float16, bfloat16, float32 or float64, got int64"
    yield bad(RuntimeError, message, anchors=anchors.long())


def by_image(
    anchors: Tensor | Sequence[Tensor],
    gt_boxes: Tensor | Sequence[Tensor],
    *args: float | bool,
    ignore_regions: Tensor | Sequence[Tensor] | None = None,
    **options: float | bool,
) -> Tensor | list[Tensor]:
    """The reference, which takes one image, for a batch too."""
    if isinstance(gt_boxes, Tensor):
        return reference.match_anchors(anchors, gt_boxes, *args, ignore_regions=ignore_regions, **options)
    shared = isinstance(anchors, Tensor) and anchors.dim() == 2
    return [
        reference.match_anchors(
            anchors if shared else anchors[index],
            boxes,
            *args,
            ignore_regions=None if ignore_regions is None else ignore_regions[index],
            **options,
        )
        for index, boxes in enumerate(gt_boxes)
    ]
