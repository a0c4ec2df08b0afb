"""box_coding/ on an emulated device."""

from __future__ import annotations

import torch
from inputs.boxes import random_boxes
from torch import Tensor

from retina_ops import reference

from ..arguments import limits, output
from ..device import Array, Device
from ..room import BOTH, Bug

OPS = ("encode", "encode_backward", "decode", "decode_backward")  # BoxCodingOp


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
    """The result of one of OPS, or both gradients of a backward. first: index of the first box."""
    out = torch.empty(len(codes), 4, dtype=proposals.dtype)
    out2 = torch.empty_like(out) if grad is not None else None
    is_one_to_one = len(proposals) == len(codes)
    height, width = image_size or (-1, -1)
    device.launch(
        "launch_box_coding",
        {
            "op": OPS.index(op),
            "codes": Array(codes, offset=offset, first=first),
            "code_dtype": codes.dtype,
            "proposals": Array(proposals, first=first if is_one_to_one else 0),
            "proposal_dtype": proposals.dtype,
            "period": len(proposals) + (first if is_one_to_one else 0),
            "grad": Array(grad, first=first) if grad is not None else None,
            "out": output(out, first=first),
            "out2": output(out2, first=first) if out2 is not None else None,
            "weights": weights,
            "image_height": height,
            "image_width": width,
            "n": first + len(codes),
            "limits": limits(first),
        },
    )
    return out, out2


def encoded(device: Device) -> None:
    boxes, proposals = random_boxes(300), random_boxes(300)
    got = box_coding(device, "encode", boxes, proposals)[0]
    assert torch.allclose(got, reference.encode_boxes(boxes, proposals), rtol=1e-4, atol=1e-5)


def decoded(device: Device) -> None:
    deltas, proposals = torch.randn(200, 4), random_boxes(200)
    got = box_coding(device, "decode", deltas, proposals)[0]
    assert torch.allclose(got, reference.decode_boxes(deltas, proposals), rtol=1e-4, atol=1e-3)


def large(device: Device) -> None:
    boxes, proposals = random_boxes(300), random_boxes(300)
    far, _ = box_coding(device, "encode", boxes, proposals, first=2**31 + 4)
    assert torch.equal(far, box_coding(device, "encode", boxes, proposals)[0])


RANDOM = [encoded, decoded]
LARGE = [large]
PLANTED = {
    "coding: past the end": Bug("box_coding/box_coding_kernels.cuh", "  if (i >= args.n) return;\n", "", encoded, BOTH),
}
