"""Box coding: the public functions, shapes and derivatives. The formulas are in ``csrc/box_coding/box_coding.h``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from retina_ops.ops._autograd import no_forward_mode
from retina_ops.ops._checks import broadcast_shape, check_boxes, expect, four_weights, promoted_dtype
from retina_ops.ops._registration import register_differentiable
from retina_ops.ops._torchscript import no_torchscript
from retina_ops.reference import box_coding as reference

_encode = torch.ops.retina_ops.encode_boxes.default
_decode = torch.ops.retina_ops.decode_boxes.default


@no_torchscript
def encode_boxes(reference_boxes: Tensor, proposals: Tensor, weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0)) -> Tensor:
    """Deltas (dx, dy, dw, dh) from proposals (anchors) to boxes, which a box subnet is trained to predict.

    Girshick et al. 2014, "Rich feature hierarchies", appendix C. The signature is that of torchvision's
    ``encode_boxes``.

    Args:
        reference_boxes: ``[..., 4]`` (x1, y1, x2, y2) in pixels, float16, bfloat16, float32 or float64.
        proposals: the boxes to start from; leading dimensions broadcast.
        weights: factors (wx, wy, ww, wh) of the deltas.

    Returns:
        Deltas of the broadcast shape and promoted dtype; computed in float32 for float16 and bfloat16. Twice
        differentiable. A box or proposal without area gives inf or NaN, as in torchvision.

    Raises:
        RuntimeError: shapes, dtypes or devices that do not fit; a weight that is 0 or not finite.

    Example:
        >>> import torch
        >>> encode_boxes(torch.tensor([[2.0, 0.0, 6.0, 4.0]]), torch.tensor([[0.0, 0.0, 4.0, 4.0]]))
        tensor([[0.5000, 0.0000, 0.0000, 0.0000]])
    """
    check_boxes("encode_boxes", 1, reference_boxes=reference_boxes, proposals=proposals)
    reference_boxes, proposals = _as_operands("encode_boxes", reference_boxes, proposals)
    deltas: Tensor = _encode(reference_boxes, proposals, *four_weights("encode_boxes", "weights", weights))
    return deltas


@no_torchscript
def decode_boxes(
    rel_codes: Tensor,
    boxes: Tensor,
    weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    *,
    image_size: tuple[int, int] | None = None,
) -> Tensor:
    """Boxes from deltas: the inverse of :func:`encode_boxes`, with sizes of at most 1000 / 16 times the proposal's.

    Args:
        rel_codes: deltas ``[..., 4]``, float16, bfloat16, float32 or float64; the dtype of ``boxes`` may differ.
        boxes: proposals (anchors) ``[..., 4]`` (x1, y1, x2, y2) in pixels; leading dimensions broadcast.
        weights: factors (wx, wy, ww, wh) of the deltas.
        image_size: (height, width) in pixels; the decoded boxes are clipped to it.

    Returns:
        Boxes of the broadcast shape and promoted dtype; computed in float32 for float16 and bfloat16. Twice
        differentiable; a clipped coordinate gets no gradient.

    Raises:
        ValueError: an ``image_size`` that is not two numbers of at least 0.
        RuntimeError: shapes, dtypes or devices that do not fit; a weight that is 0 or not finite.

    Example:
        >>> import torch
        >>> decode_boxes(torch.tensor([[0.5, 0.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 4.0, 4.0]]), image_size=(4, 5))
        tensor([[2., 0., 5., 4.]])
    """
    check_boxes("decode_boxes", 1, rel_codes=rel_codes, boxes=boxes)
    rel_codes, boxes = _as_operands("decode_boxes", rel_codes, boxes)
    height, width = (-1.0, -1.0) if image_size is None else _size(image_size)  # -1: not clipped
    decoded: Tensor = _decode(rel_codes, boxes, *four_weights("decode_boxes", "weights", weights), height, width)
    return decoded


def _size(image_size: Sequence[float]) -> tuple[float, float]:
    if len(image_size) != 2 or not all(side >= 0 for side in image_size):
        raise ValueError(f"decode_boxes: image_size must be (height, width), at least 0, got {tuple(image_size)}")
    return float(image_size[0]), float(image_size[1])


def _as_operands(op: str, codes: Tensor, proposals: Tensor) -> tuple[Tensor, Tensor]:
    """The tensors as the operator takes them.

    They have one dtype, or codes are float16 or bfloat16 and proposals float32. Proposals have the shape of the codes,
    or of its last dimensions.
    """
    no_forward_mode(op, codes, proposals)
    if codes.dtype != proposals.dtype:
        dtype = promoted_dtype(codes.dtype, proposals.dtype)
        proposals = proposals.to(dtype)
        if not (dtype == torch.float32 and codes.dtype in (torch.float16, torch.bfloat16)):
            codes = codes.to(dtype)
    if not _fit(codes, proposals):
        shape = broadcast_shape(op, "shapes", codes, proposals)
        codes, proposals = codes.expand(shape), proposals.expand(shape)
    return codes, proposals


def _fit(codes: Tensor, proposals: Tensor) -> bool:
    leading = codes.dim() - proposals.dim()
    return leading >= 0 and codes.shape[leading:] == proposals.shape


def _fake_coding(op: str, codes: Tensor, proposals: Tensor) -> Tensor:
    is_floating = codes.is_floating_point() and proposals.is_floating_point()
    expect(is_floating, f"{op}: both inputs must be floating", codes.dtype, proposals.dtype)
    fits = proposals.dim() >= 1 and proposals.shape[-1] == 4 and _fit(codes, proposals)
    expect(fits, f"{op}: inputs must be [..., 4] and fit", codes.shape, proposals.shape)
    return codes.new_empty(codes.shape, dtype=proposals.dtype)


def _fake_encode(reference_boxes: Tensor, proposals: Tensor, *weights: float) -> Tensor:
    return _fake_coding("encode_boxes", reference_boxes, proposals)


def _fake_decode(rel_codes: Tensor, boxes: Tensor, *weights_and_size: float) -> Tensor:
    return _fake_coding("decode_boxes", rel_codes, boxes)


def _reference_encode(reference_boxes: Tensor, proposals: Tensor, *weights: float) -> Tensor:
    wx, wy, ww, wh = weights
    return reference.encode_boxes(reference_boxes, proposals, (wx, wy, ww, wh))


def _reference_decode(rel_codes: Tensor, boxes: Tensor, *weights_and_size: float) -> Tensor:
    wx, wy, ww, wh, height, width = weights_and_size
    size = (height, width) if height >= 0 else None
    return reference.decode_boxes(rel_codes, boxes, (wx, wy, ww, wh), image_size=size)


register_differentiable(
    "retina_ops::encode_boxes", _fake_encode, differentiable=2, reference=_reference_encode, broadcasts=True
)
register_differentiable(
    "retina_ops::decode_boxes", _fake_decode, differentiable=2, reference=_reference_decode, broadcasts=True
)
