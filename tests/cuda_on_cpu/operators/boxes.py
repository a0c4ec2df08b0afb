"""The launches of box_iou/ and box_coding/ on an emulated device, over tensors of the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from ..device import Array, Device
from .common import DTYPES, arithmetic


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
