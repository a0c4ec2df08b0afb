"""The launches of box_iou/ and box_coding/ on an emulated device, over tensors of the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from ..device import Array, Device
from .common import DTYPES, arithmetic

KINDS = {"generalized_box_iou": 0, "distance_box_iou": 1, "complete_box_iou": 2, "box_iou": 3}
_GRAD_ROWS, _GRAD_COLUMNS = 64, 128  # a tile


def _iou_scalars(boxes1: Tensor, boxes2: Tensor, name: str, first: int) -> dict[str, float]:
    return {
        "dtype": DTYPES[boxes1.dtype],
        "batch": boxes1.shape[0],
        "n": boxes1.shape[1],
        "m": boxes2.shape[1],
        "first": first,
        "kind": KINDS[name],
        "eps": 1e-7 if KINDS[name] in (1, 2) else 0.0,
    }


def box_iou(
    device: Device, boxes1: Tensor, boxes2: Tensor, offset: int = 0, *, name: str = "box_iou", first: int = 0
) -> Tensor:
    """[batch, n, 4] and [batch, m, 4] to [batch, n, m]. first: index of the first image."""
    iou = torch.empty(boxes1.shape[0], boxes1.shape[1], boxes2.shape[1], dtype=arithmetic(boxes1.dtype))
    arrays = {"boxes1": Array(boxes1, offset=offset), "boxes2": boxes2, "iou": Array(iou, False)}
    device.run("box_iou", _iou_scalars(boxes1, boxes2, name, first), arrays)
    return iou


def box_iou_backward(
    device: Device,
    grad: Tensor,
    boxes1: Tensor,
    boxes2: Tensor,
    *,
    name: str = "box_iou",
    wanted: tuple[bool, bool] = (True, True),
    first: int = 0,
    offset: int = 0,
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients that are wanted."""
    tiles = (-(-boxes2.shape[1] // _GRAD_COLUMNS), -(-boxes1.shape[1] // _GRAD_ROWS))
    grads = [torch.empty_like(boxes) if flag else None for boxes, flag in zip((boxes1, boxes2), wanted, strict=True)]
    sums = [
        Array(torch.empty(count, *each.shape, dtype=torch.float64), False) if each is not None else None
        for each, count in zip(grads, tiles, strict=True)
    ]
    arrays = {
        "boxes1": Array(boxes1, offset=offset),
        "boxes2": boxes2,
        "grad": grad,
        "row_sums": sums[0],
        "column_sums": sums[1],
        **{f"grad{i}": Array(each, False) if each is not None else None for i, each in enumerate(grads, 1)},
    }
    device.run("box_iou_grad", _iou_scalars(boxes1, boxes2, name, first), arrays)
    return grads[0], grads[1]


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
