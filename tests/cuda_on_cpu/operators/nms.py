"""The launches of nms/ on an emulated device, over tensors of the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from ..device import Array, Device
from .common import DTYPES, arithmetic


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
    rows = min(-(-n // 64) * 64, 4096)
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
        "mask": Array(torch.empty(rows // 64, rows, dtype=torch.int64), False),
        "output": Array(output, False),
        "count": Array(count, False),
    }
    device.run("nms", scalars, arrays)
    return output.where(output < 0, output - first), int(count)
