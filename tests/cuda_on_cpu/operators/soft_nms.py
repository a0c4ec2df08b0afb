"""The launches of soft_nms/ on an emulated device, over tensors of the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from ..device import Array, Device
from .common import DTYPES


def soft_nms(
    device: Device,
    boxes: Tensor,
    scores: Tensor,
    threshold: float,
    method: str = "linear",
    sigma: float = 0.5,
    min_score: float = 0.001,
    classes: Tensor | None = None,
    offset: int = 0,
    first: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Kept indices, decayed scores and decays; sorted as the operator sorts. first: index of the first box."""
    n = len(boxes)
    dtype = torch.float64 if torch.float64 in (boxes.dtype, scores.dtype) else torch.float32
    rank = classes.sort(stable=True).indices if classes is not None else None
    scalars: dict[str, float] = {"box_dtype": DTYPES[boxes.dtype], "score_dtype": DTYPES[scores.dtype], "n": n}
    scalars |= {"threshold": threshold, "gaussian": method == "gaussian", "sigma": sigma, "min_score": min_score}
    scalars |= {"first": first, "step": 0}
    taken = {name: torch.empty(n, dtype=dtype) for name in ("taken_scores", "taken_decays")}
    count = torch.zeros((), dtype=torch.int64)
    arrays: dict[str, Array | Tensor | None] = {
        "boxes": Array(boxes, offset=offset),
        "scores": scores,
        "classes": classes,
        "rank": rank + first if rank is not None else None,
        "slot_boxes": Array(torch.empty(n, 4, dtype=dtype), False),
        "slot_scores": Array(torch.empty(n, dtype=dtype), False),
        "slot_decays": Array(torch.empty(n, dtype=dtype), False),
        "slot_inputs": Array(torch.empty(n, dtype=torch.int64), False),
        "slot_classes": Array(torch.empty(n, dtype=torch.int64), False) if classes is not None else None,
        "segment_starts": Array(torch.empty(n, dtype=torch.int64), False),
        "segments": torch.zeros((), dtype=torch.int32),
        "count": count,
        **{name: Array(tensor, False) for name, tensor in taken.items()},
    }
    device.run("soft_nms", scalars, arrays)
    size = int(count)
    keep = taken["taken_scores"].sort(stable=True, descending=True).indices[:size].contiguous()
    decayed, decays = torch.empty(size, dtype=scores.dtype), torch.empty(size, dtype=dtype)
    if size > 0:
        written: dict[str, Array | Tensor | None] = {
            **taken,
            "order": keep + first,
            "out_scores": Array(decayed, False),
            "out_decays": Array(decays, False),
        }
        device.run("soft_nms", {**scalars, "step": 1, "size": size}, written)
    return keep, decayed, decays
