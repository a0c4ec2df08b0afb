"""The operators' launches on an emulated device, over tensors of the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from .device import Array, Device

DTYPES = {torch.float16: 0, torch.bfloat16: 1, torch.float32: 2, torch.float64: 3}  # csrc/common/half_block.h


def arithmetic(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def focal_loss(
    device: Device,
    logits: Tensor,
    targets: Tensor,
    alpha: float | Tensor = 0.25,
    gamma: float = 2.0,
    *,
    order: int = 0,
    upstream: Tensor | float = 1.0,
    ignore_index: int = -1,
    first: int = 0,
    offset: int = 0,
) -> Tensor:
    """The loss of each element (order 0), or its derivative times `upstream`. first: index of the first element."""
    out = torch.empty_like(logits)
    is_labels = not targets.is_floating_point()
    per_element = isinstance(upstream, Tensor)
    device.run(
        "focal_loss",
        _focal_scalars(logits, targets, alpha, gamma, ignore_index) | {"order": order, "first": first, "reduced": 0},
        {
            "logits": Array(logits, offset=offset),
            "labels": targets if is_labels else None,
            "soft_targets": None if is_labels else Array(targets, offset=targets.element_size() if offset else 0),
            "alpha_per_class": alpha.to(arithmetic(logits.dtype)) if isinstance(alpha, Tensor) else None,
            "value": Array(out, False, offset) if order == 0 else None,
            "derivative": Array(out, False, offset) if order else None,
            "upstream": Array(upstream, offset=offset) if isinstance(upstream, Tensor) and order else None,
            "upstream_scalar": torch.tensor(upstream, dtype=torch.float64) if order and not per_element else None,
        },
    )
    return out


def focal_loss_reduced(
    device: Device,
    logits: Tensor,
    targets: Tensor,
    alpha: float | Tensor = 0.25,
    gamma: float = 2.0,
    *,
    mean: bool = False,
    with_grad: bool = True,
    ignore_index: int = -1,
    first: int = 0,
) -> tuple[Tensor, Tensor | None]:
    """The sum or mean, and its gradient."""
    is_labels = not targets.is_floating_point()
    grad = torch.empty_like(logits) if with_grad else None
    result = torch.empty((), dtype=arithmetic(logits.dtype))
    done = torch.zeros(1, dtype=torch.int32)
    counted = None
    if mean:
        counted = count_labels(device, targets, logits.shape[-1], ignore_index)[:1].clone() if is_labels else None
        counted = torch.tensor([logits.numel()]) if counted is None else counted
    device.run(
        "focal_loss",
        _focal_scalars(logits, targets, alpha, gamma, ignore_index) | {"order": 1, "first": first, "reduced": 1},
        {
            "logits": logits,
            "labels": targets if is_labels else None,
            "soft_targets": None if is_labels else targets,
            "alpha_per_class": alpha.to(arithmetic(logits.dtype)) if isinstance(alpha, Tensor) else None,
            "derivative": Array(grad, False) if grad is not None else None,
            "partial": Array(torch.empty(2048, dtype=torch.float64), False),
            "done": done,
            "result": Array(result, False),
            "counted": counted,
        },
    )
    assert done.item() == 0
    return result, grad


def _focal_scalars(
    logits: Tensor, targets: Tensor, alpha: float | Tensor, gamma: float, ignore_index: int
) -> dict[str, float]:
    return {
        "dtype": DTYPES[logits.dtype],
        "soft_dtype": DTYPES.get(targets.dtype, 2),
        "classes": max(1, logits.shape[-1]),
        "n": logits.numel(),
        "ignore_index": ignore_index,
        "alpha": -1.0 if isinstance(alpha, Tensor) else alpha,
        "gamma": gamma,
    }


def count_labels(device: Device, labels: Tensor, classes: int, ignore_index: int = -1, *, first: int = 0) -> Tensor:
    """[2]: elements of rows that count, and rows with a bad label."""
    counts = torch.zeros(2, dtype=torch.int64)
    scalars = {"rows": len(labels), "classes": classes, "ignore_index": ignore_index, "first": first}
    device.run("focal_loss_count", scalars, {"labels": labels, "counts": counts})
    return counts


def scale_gradient(device: Device, grad: Tensor, scale: float, offset: int = 0, *, first: int = 0) -> Tensor:
    scaled = grad.clone()
    scalars = {"dtype": DTYPES[grad.dtype], "n": grad.numel(), "first": first}
    arrays = {"grad": Array(scaled, offset=offset), "scale": torch.tensor(scale, dtype=torch.float64)}
    device.run("scale_gradient", scalars, arrays)
    return scaled


def box_iou(device: Device, boxes1: Tensor, boxes2: Tensor, offset: int = 0, *, first: int = 0) -> Tensor:
    """[batch, n, 4] and [batch, m, 4] to [batch, n, m]. first: index of the first image."""
    batch, n, m = boxes1.shape[0], boxes1.shape[1], boxes2.shape[1]
    iou = torch.empty(batch, n, m, dtype=arithmetic(boxes1.dtype))
    arrays = {"boxes1": Array(boxes1, offset=offset), "boxes2": boxes2, "iou": Array(iou, False)}
    device.run("box_iou", {"dtype": DTYPES[boxes1.dtype], "batch": batch, "n": n, "m": m, "first": first}, arrays)
    return iou


def box_coding(
    device: Device,
    op: str,
    codes: Tensor,
    proposals: Tensor,
    weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0),
    *,
    grad: Tensor | None = None,
    image_size: tuple[int, int] | None = None,
    first: int = 0,
    offset: int = 0,
) -> tuple[Tensor, Tensor | None]:
    """op: encode, encode_backward, decode or decode_backward; the backwards return both gradients."""
    out = torch.empty(len(codes), 4, dtype=proposals.dtype)
    out2 = torch.empty_like(out) if grad is not None else None
    height, width = image_size or (-1, -1)
    scalars = {
        "op": ("encode", "encode_backward", "decode", "decode_backward").index(op),
        "code_dtype": DTYPES[codes.dtype],
        "proposal_dtype": DTYPES[proposals.dtype],
        "n": len(codes),
        "period": len(proposals),
        "first": first,
        "image_height": height,
        "image_width": width,
        **{f"w{i}": weight for i, weight in enumerate(weights)},
    }
    arrays = {
        "codes": Array(codes, offset=offset),
        "proposals": proposals,
        "grad": grad,
        "out": Array(out, False),
        "out2": Array(out2, False) if out2 is not None else None,
    }
    device.run("box_coding", scalars, arrays)
    return out, out2


def match_anchors(
    device: Device,
    anchors: Tensor,
    gt_boxes: list[Tensor],
    fg_iou: float = 0.5,
    bg_iou: float = 0.4,
    allow_low_quality: bool = True,
    *,
    regions: list[Tensor] | None = None,
    ignore_iof: float = 0.5,
    offset: int = 0,
    first: int = 0,
) -> Tensor:
    """Matches [batch, A] of a batch whose images share the anchors [A, 4], or have their own [batch, A, 4].
    first: index of the first image."""
    batch, own = len(gt_boxes), anchors.dim() == 3
    padded, counts = _padded(gt_boxes, anchors.dtype)
    matches = torch.empty(batch, anchors.shape[-2], dtype=torch.int64)
    best = torch.zeros(batch * padded.shape[1], dtype=torch.int64 if anchors.dtype == torch.float64 else torch.int32)
    padded_regions, region_counts = _padded(regions, anchors.dtype) if regions is not None else (None, None)
    scalars = {
        "dtype": DTYPES[anchors.dtype],
        "anchors_per_image": own,
        "first": first,
        "batch": batch,
        "anchor_count": anchors.shape[-2],
        "gt_capacity": padded.shape[1],
        "region_capacity": 0 if padded_regions is None else padded_regions.shape[1],
        "fg_iou": fg_iou,
        "bg_iou": bg_iou,
        "ignore_iof": ignore_iof,
        "allow_low_quality": allow_low_quality,
    }
    arrays = {
        "anchors": Array(anchors, offset=offset),
        "gt_boxes": padded,
        "gt_counts": counts,
        "regions": padded_regions,
        "region_counts": region_counts,
        "best": best,
        "matches": Array(matches, False),
    }
    device.run("match_anchors", scalars, arrays)
    return matches


def _padded(boxes: list[Tensor], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    capacity = max(8, *(len(each) for each in boxes))
    padded = torch.zeros(len(boxes), capacity, 4, dtype=dtype)
    for row, each in zip(padded, boxes, strict=True):
        row[: len(each)] = each
    return padded, torch.tensor([len(each) for each in boxes], dtype=torch.int32)


def nms(
    device: Device,
    boxes: Tensor,
    scores: Tensor,
    threshold: float,
    classes: Tensor | None = None,
    max_output: int | None = None,
    offset: int = 0,
    first: int = 0,
) -> tuple[Tensor, int]:
    """Kept indices padded with -1, and their count; sorted as the operator sorts. first: index of the first box."""
    n = len(boxes)
    output = torch.empty(n if max_output is None else max_output, dtype=torch.int64)
    count = torch.zeros((), dtype=torch.int64)
    order = scores.sort(stable=True, descending=True).indices
    words = -(-n // 32)
    bits = [torch.zeros(words, dtype=torch.int32) for _ in range(3)]
    rank = classes[order].sort(stable=True).indices if classes is not None else None
    scalars = {"box_dtype": DTYPES[boxes.dtype], "score_dtype": DTYPES[scores.dtype], "threshold": threshold, "n": n}
    scalars |= {"max_output": len(output), "first": first}
    arrays = {
        "boxes": Array(boxes, offset=offset),
        "scores": scores,
        "classes": classes,
        "order": order + first,
        "rank": rank + first if rank is not None else None,
        "sorted_boxes": Array(torch.empty(n, 4, dtype=arithmetic(boxes.dtype)), False),
        "sorted_classes": Array(torch.empty(n, dtype=torch.int64), False) if classes is not None else None,
        "struck": Array(bits[0], False),
        "kept": Array(bits[1], False),
        "by_score": bits[2],
        "mask": Array(torch.empty(min(-(-n // 64) * 64, 4096), 64, dtype=torch.int64), False),
        "output": Array(output, False),
        "count": Array(count, False),
    }
    device.run("nms", scalars, arrays)
    return output.where(output < 0, output - first), int(count)
