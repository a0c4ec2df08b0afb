"""Inputs of the fused operators: outputs of a detection head."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from inputs.heads import SIZES, Head, channels_last, head_outputs, random_head
from torch import Tensor

from .row import Refused, Sample

# Levels of a head: several strips of cells, fewer cells than a vector, one cell.
LEVELS = [(11, 13), (5, 7), (2, 3), (1, 1)]
LAYOUTS = ("planar", "channels_last", "rows")
BOX_LOSSES = ("l1", "smooth_l1", "giou", "diou", "ciou")
IMAGES = [(70, 90), (60, 96)]  # (height, width)


def arguments_of(head: Head) -> dict[str, Any]:
    return {
        "cls_logits": [level.detach() for level in head.cls_logits],
        "bbox_regression": [level.detach() for level in head.bbox_regression],
        "anchors": head.anchors,
        "gt_boxes": head.gt_boxes,
        "gt_labels": head.gt_labels,
    }


# --- retinanet_loss ---------------------------------------------------------------------------------------------------


def fixed_divisor(foreground: Tensor) -> Tensor:
    return foreground.sum() + 7.5


def loss(dtype: torch.dtype) -> Iterator[Sample]:
    for layout in LAYOUTS:
        for box_loss in BOX_LOSSES:
            for gamma, normalization in ((2.0, "image"), (1.3, "batch"), (0.0, fixed_divisor)):
                yield Sample(
                    f"{layout}, {box_loss}, gamma {gamma}",
                    **arguments_of(random_head(LEVELS, [6, 0, 3], layout=layout, dtype=dtype)),
                    box_loss=box_loss,
                    smooth_l1_beta=3.0,  # of deltas that the weights enlarge
                    gamma=gamma,
                    normalization=normalization,
                    bbox_reg_weights=(10.0, 10.0, 5.0, 5.0),
                )
        head = arguments_of(random_head([(9, 9), (2, 2)], [3, 2], layout=layout, dtype=dtype))
        for gamma in (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 2.7):
            yield Sample(f"{layout}, gamma {gamma}, which may have kernels of its own", **head, gamma=gamma)
        head = arguments_of(random_head(LEVELS, [4, 2], layout=layout, classes=91, dtype=dtype))
        yield Sample(f"{layout}, more classes than a block of 64", **head)
    for layout in ("planar", "rows"):
        head = random_head([(67, 65)], [9], per_cell=1, classes=3, layout=layout, dtype=dtype)
        head.gt_labels[0][:] = torch.tensor([0, 2, 1] * 3)
        yield Sample(f"{layout}, more cells than a strip, labels at both ends", **arguments_of(head))
    yield Sample("no boxes at all", **arguments_of(random_head(LEVELS, [0, 0], dtype=dtype)))
    head = arguments_of(random_head(LEVELS, [5, 1], dtype=dtype))
    regions = [boxes + 3 for boxes in head["gt_boxes"]]
    yield Sample("regions to ignore", **head, ignore_regions=regions, ignore_iof=0.4)
    yield Sample("a region to ignore in one image", **head, ignore_regions=[regions[0], regions[1][:0]], alpha=1.0)
    thresholds = {"fg_iou_thresh": 0.6, "bg_iou_thresh": 0.3, "allow_low_quality_matches": False}
    yield Sample("no low-quality matches", **head, **thresholds, alpha=-1)
    yield Sample("low-quality matches from 0.4", **head, fg_iou_thresh=0.7, bg_iou_thresh=0.3, min_pos_iou=0.4)
    empty = arguments_of(random_head([(0, 3), (2, 2)], [2, 1], dtype=dtype))
    yield Sample("a level without cells", **empty)


def small_loss(dtype: torch.dtype, size: int) -> Iterator[Sample]:
    for layout, box_loss in (("planar", "giou"), ("channels_last", "smooth_l1"), ("rows", "giou")):
        head = random_head([(2 * size - 5, 2), (2, 3)], [2, 1], per_cell=2, classes=3, layout=layout, dtype=dtype)
        yield Sample(f"{layout}, {box_loss}", **arguments_of(head), box_loss=box_loss)


def large_loss(dtype: torch.dtype) -> Iterator[Sample]:
    for layout in ("planar", "channels_last"):
        head = random_head([(70, 40), (9, 9)], [5, 2], per_cell=9, classes=20, layout=layout, dtype=dtype)
        yield Sample(f"51,858 anchors, {layout}", **arguments_of(head))


def refused_loss() -> Iterator[Refused]:
    head = arguments_of(random_head([(2, 2), (1, 1)], [1, 0]))
    logits, deltas, boxes, labels = (head[name] for name in ("cls_logits", "bbox_regression", "gt_boxes", "gt_labels"))

    def bad(error: type[Exception], message: str, **arguments: object) -> Refused:
        return Refused(error, f"retinanet_loss: .*{message}", {**head, **arguments})

    message = "box_loss must be one of l1, smooth_l1, giou, diou, ciou, got 'l2'"
    yield bad(ValueError, message, box_loss="l2")
    yield bad(ValueError, r"alpha must be in \[0, 1\], or -1 for none, got 1.5", alpha=1.5)
    yield bad(ValueError, "gamma must be finite and at least 0, got -1", gamma=-1)
    yield bad(ValueError, "smooth_l1_beta must be finite and at least 0, got -1", smooth_l1_beta=-1)
    message = "normalization must be image, batch or a callable.* got 'ema'"
    yield bad(ValueError, message, normalization="ema")
    message = r"normalization must return a tensor .* got \[0\]"
    yield bad(ValueError, message, normalization=lambda foreground: foreground[:0])
    yield bad(ValueError, "bbox_reg_weights must be four numbers", bbox_reg_weights=(1, 1))
    message = "ignore_regions must be a list of 2 tensors, one per image, got 0"
    yield bad(ValueError, message, ignore_regions=[])
    message = "gt_boxes must be a list of 2 tensors, one per image, got 1"
    yield bad(ValueError, message, gt_boxes=boxes[:1], gt_labels=labels[:1])
    message = "must be lists of one tensor per level"
    yield bad(RuntimeError, message, cls_logits=logits[0], bbox_regression=deltas[0])
    yield bad(RuntimeError, "must have the same levels.* got 2 and 1", bbox_regression=deltas[:1])
    message = r"level 0 must be cls_logits \[B, A \* K, H, W\]"
    yield bad(RuntimeError, message, bbox_regression=logits)
    message = r"anchors must be \[15, 4\], got \[3, 4\]"
    yield bad(RuntimeError, message, anchors=head["anchors"][:3])
    message = r"gt_boxes must be \[M, 4\], got \[1, 3\]"
    yield bad(RuntimeError, message, gt_boxes=[boxes[0][:, :3], boxes[1]])
    message = r"gt_labels must be integers \[1\]"
    yield bad(RuntimeError, message, gt_labels=[labels[0][:0], labels[1]])
    message = "must have one dtype and device"
    yield bad(RuntimeError, message, bbox_regression=[deltas[0], deltas[1].double()])
    message = "must have 1 to 8 levels, got 9"
    yield bad(RuntimeError, message, cls_logits=logits[:1] * 9, bbox_regression=deltas[:1] * 9)


# --- postprocess ------------------------------------------------------------------------------------------------------


def maps(*args: Any, **options: Any) -> dict[str, Any]:
    logits, deltas, anchors = head_outputs(*args, **options)
    return {"cls_logits": logits, "bbox_regression": deltas, "anchors": anchors}


def in_channels_last(arguments: dict[str, Any]) -> dict[str, Any]:
    return {
        **arguments,
        "cls_logits": channels_last(arguments["cls_logits"]),
        "bbox_regression": channels_last(arguments["bbox_regression"]),
    }


def detections(dtype: torch.dtype) -> Iterator[Sample]:
    for kind in ("trained", "dense", "ties", "constant"):
        head = {**maps(2, 7, kind=kind, dtype=dtype), "image_sizes": IMAGES}
        yield Sample(f"{kind} scores", **head)
        for topk, most in ((1, 300), (10, 20), (1000, 3), (0, 4), (7, 0)):
            why = f"{kind} scores, {most} of {topk} candidates"
            yield Sample(why, **head, topk_candidates=topk, detections_per_img=most)
        options = {"score_thresh": 0.5, "nms_thresh": 0.0, "bbox_reg_weights": (10.0, 10.0, 5.0, 5.0)}
        yield Sample(f"{kind} scores, other thresholds and weights", **head, **options)
    for classes in (1, 2, 91):
        for per_cell in (1, 9):
            for sizes in (((1, 1),), ((1, 7), (5, 1)), SIZES, ((17, 13), (0, 4), (1, 1))):
                head = {**maps(1, classes, per_cell=per_cell, sizes=sizes, dtype=dtype), "image_sizes": IMAGES[:1]}
                yield Sample(f"{classes} classes, {per_cell} anchors per cell, levels {sizes}", **head)
    for batch, classes, sizes in ((0, 3, SIZES), (2, 3, ((0, 0), (0, 5))), (2, 0, SIZES)):
        head = {**maps(batch, classes, sizes=sizes, dtype=dtype), "image_sizes": IMAGES[:batch]}
        yield Sample(f"{batch} images, {classes} classes, levels {sizes}", **head, detections_per_img=4)


def small_detections(dtype: torch.dtype, size: int) -> Iterator[Sample]:
    sizes = torch.tensor(IMAGES)
    head = {**maps(2, 3, sizes=((size, 9), (6, size), (2, 3)), dtype=dtype), "image_sizes": sizes}
    yield Sample("planar", **head, detections_per_img=20)
    yield Sample("channels-last", **in_channels_last(head), detections_per_img=20)
    yield Sample("sizes as numbers", **{**head, "image_sizes": IMAGES}, detections_per_img=20)


def large_detections(dtype: torch.dtype) -> Iterator[Sample]:
    head = {**maps(2, 21, sizes=((70, 71), (9, 9)), kind="dense", dtype=dtype), "image_sizes": IMAGES}
    yield Sample("two images, 15,153 anchors", **head)


def refused_detections() -> Iterator[Refused]:
    head = {**maps(2, 3), "image_sizes": IMAGES}
    logits, deltas = head["cls_logits"], head["bbox_regression"]

    def bad(error: type[Exception], message: str, **arguments: object) -> Refused:
        return Refused(error, message, {**head, **arguments})

    yield bad(ValueError, "topk_candidates must be at least 0, got -1", topk_candidates=-1)
    yield bad(ValueError, "detections_per_img must be at least 0, got -5", detections_per_img=-5)
    message = r"bbox_reg_weights must be four numbers \(wx, wy, ww, wh\), got 3"
    yield bad(ValueError, message, bbox_reg_weights=(1, 1, 1))
    message = "postprocess: bbox_reg_weights must be finite and not 0, got 0"
    yield bad(RuntimeError, message, bbox_reg_weights=(1, 1, 0, 1))
    message = "postprocess: cls_logits and bbox_regression must be lists"
    yield bad(RuntimeError, message, cls_logits=logits[0])
    message = "must have the same levels, at least one, got 4 and 3"
    yield bad(RuntimeError, message, bbox_regression=deltas[:3])
    message = r"postprocess: level 0 must be cls_logits .* got \[2, 9, 12, 9\]"
    yield bad(RuntimeError, message, bbox_regression=[level[:, :7] for level in deltas])
    message = r"postprocess: cls_logits must be float16, .* got int64"
    yield bad(RuntimeError, message, cls_logits=[level.long() for level in logits])
    message = "the levels of cls_logits must have one dtype and device, got float32"
    yield bad(RuntimeError, message, cls_logits=[logits[0], *(level.double() for level in logits[1:])])
    message = "level 0 has 324 anchors in cls_logits and 297 in bbox_regression"
    yield bad(RuntimeError, message, bbox_regression=[deltas[0][:, :, :11], *deltas[1:]])
    message = "postprocess: cls_logits must have 1 to 8 levels, got 9"
    nine = {"cls_logits": [torch.zeros(1, 1, 1)] * 9, "bbox_regression": [torch.zeros(1, 1, 4)] * 9}
    yield bad(RuntimeError, message, **nine, anchors=torch.zeros(9, 4), image_sizes=[(4, 4)])
    message = r"postprocess: anchors must be \[\d+, 4\], got \[7, 4\]"
    yield bad(RuntimeError, message, anchors=head["anchors"][:7])
    message = r"postprocess: image_sizes must be \[2, 2\], got \[1, 2\]"
    yield bad(RuntimeError, message, image_sizes=IMAGES[:1])
    message = r"postprocess: image_sizes must be \[2, 2\], got \[2, 3\]"
    yield bad(RuntimeError, message, image_sizes=torch.zeros(2, 3))
    message = r"image_sizes must be \(height, width\) of each image"
    yield bad(ValueError, message, image_sizes=[(1, 2, 3), (4, 5)])
