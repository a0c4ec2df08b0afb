"""Box coding: the public functions, fakes and autograd. The formulas: ``csrc/box_coding/box_coding.h``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from retina_ops.ops._checks import check_boxes, no_forward_mode, promoted
from retina_ops.ops._torchscript import no_torchscript
from retina_ops.reference import boxes as reference


@no_torchscript
def encode_boxes(reference_boxes: Tensor, proposals: Tensor, weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0)) -> Tensor:
    """Deltas (dx, dy, dw, dh) that lead from proposals (anchors) to boxes: what a box subnet is trained to predict.

    Girshick et al. 2014, "Rich feature hierarchies", appendix C; torchvision's ``encode_boxes``.

    Args:
        reference_boxes: ``[..., 4]`` (x1, y1, x2, y2) in pixels, float16, bfloat16, float32 or float64.
        proposals: the boxes to start from; leading dimensions broadcast.
        weights: factors (wx, wy, ww, wh) of the deltas.

    Returns:
        Deltas of the broadcast shape and promoted dtype; computed in float32 for half. Differentiable, twice too.
        A box or proposal without area gives inf or NaN, as in torchvision.

    Raises:
        RuntimeError: shapes, dtypes or devices that do not fit; a weight that is 0 or not finite.

    Example:
        >>> import torch
        >>> encode_boxes(torch.tensor([[2.0, 0.0, 6.0, 4.0]]), torch.tensor([[0.0, 0.0, 4.0, 4.0]]))
        tensor([[0.5000, 0.0000, 0.0000, 0.0000]])
    """
    check_boxes("encode_boxes", 1, reference_boxes=reference_boxes, proposals=proposals)
    reference_boxes, proposals = _fit(reference_boxes, proposals, "encode_boxes")
    deltas: Tensor = torch.ops.retina_ops.encode_boxes(reference_boxes, proposals, *_four(weights, "encode_boxes"))
    return deltas


@no_torchscript
def decode_boxes(
    rel_codes: Tensor,
    boxes: Tensor,
    weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    *,
    image_size: tuple[int, int] | None = None,
) -> Tensor:
    """Boxes from deltas: the inverse of :func:`encode_boxes`, with sizes limited to 1000 / 16 of the proposal's.

    Args:
        rel_codes: deltas ``[..., 4]``, float16, bfloat16, float32 or float64; half deltas may meet float32 boxes.
        boxes: proposals (anchors) ``[..., 4]`` (x1, y1, x2, y2) in pixels; leading dimensions broadcast.
        weights: factors (wx, wy, ww, wh) of the deltas.
        image_size: (height, width) in pixels; the decoded boxes are clipped to it.

    Returns:
        Boxes of the broadcast shape and promoted dtype; computed in float32 for half. Differentiable, twice too; a
        clipped coordinate passes no gradient.

    Raises:
        ValueError: an ``image_size`` that is not two numbers of at least 0.
        RuntimeError: shapes, dtypes or devices that do not fit; a weight that is 0 or not finite.

    Example:
        >>> import torch
        >>> decode_boxes(torch.tensor([[0.5, 0.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 4.0, 4.0]]), image_size=(4, 5))
        tensor([[2., 0., 5., 4.]])
    """
    check_boxes("decode_boxes", 1, rel_codes=rel_codes, boxes=boxes)
    rel_codes, boxes = _fit(rel_codes, boxes, "decode_boxes")
    height, width = (-1.0, -1.0) if image_size is None else _size(image_size)
    decoded: Tensor = torch.ops.retina_ops.decode_boxes(
        rel_codes, boxes, *_four(weights, "decode_boxes"), height, width
    )
    return decoded


def _size(image_size: Sequence[float]) -> tuple[float, float]:
    if len(image_size) != 2 or not all(side >= 0 for side in image_size):
        raise ValueError(f"decode_boxes: image_size must be (height, width), at least 0, got {tuple(image_size)}")
    return float(image_size[0]), float(image_size[1])


def _four(weights: Sequence[float], op: str) -> tuple[float, ...]:
    if len(weights) != 4:
        raise ValueError(f"{op}: weights must be four numbers (wx, wy, ww, wh), got {len(weights)}")
    return tuple(float(weight) for weight in weights)


def _fit(codes: Tensor, proposals: Tensor, op: str) -> tuple[Tensor, Tensor]:
    """The arguments with dtypes and shapes that the operator takes: one dtype, or half codes beside float32."""
    no_forward_mode(op, codes, proposals)
    if codes.dtype != proposals.dtype:
        dtype = promoted(codes.dtype, proposals.dtype)
        proposals = proposals.to(dtype)
        if not (dtype == torch.float32 and codes.dtype in (torch.float16, torch.bfloat16)):
            codes = codes.to(dtype)
    ends = codes.shape[codes.dim() - proposals.dim() :] if codes.dim() >= proposals.dim() else None
    if ends != proposals.shape:
        try:
            shape = torch.broadcast_shapes(codes.shape, proposals.shape)
        except RuntimeError:
            raise RuntimeError(
                f"{op}: shapes must broadcast, got {list(codes.shape)} and {list(proposals.shape)}"
            ) from None
        codes, proposals = codes.expand(shape), proposals.expand(shape)
    return codes, proposals


def _check_shapes(op: str, codes: Tensor, proposals: Tensor) -> Tensor:
    """The fakes' check; returns an empty result."""
    torch._check(
        codes.is_floating_point() and proposals.is_floating_point(),
        lambda: f"{op}: both inputs must be floating, got {codes.dtype} and {proposals.dtype}",
    )
    ends = codes.shape[codes.dim() - proposals.dim() :] if codes.dim() >= proposals.dim() else None
    torch._check(
        proposals.dim() >= 1 and proposals.shape[-1] == 4 and ends == proposals.shape,
        lambda: f"{op}: inputs must be [..., 4] and fit, got {list(codes.shape)} and {list(proposals.shape)}",
    )
    return codes.new_empty(codes.shape, dtype=proposals.dtype)


def _sum_to(grad: Tensor, like: Tensor) -> Tensor:
    """A gradient summed over the leading dimensions that its tensor lacks, in that tensor's dtype."""
    leading = grad.dim() - like.dim()
    return (grad.sum(tuple(range(leading))) if leading else grad).to(like.dtype)


def _register(name: str, formula: Callable[..., Tensor], options: int) -> None:
    """Fakes and autograd of an operator and its backward; `options` is the number of numbers after the tensors."""

    def fake(codes: Tensor, proposals: Tensor, *numbers: float) -> Tensor:
        return _check_shapes(name, codes, proposals)

    def fake_backward(grad: Tensor, codes: Tensor, proposals: Tensor, *numbers: float) -> tuple[Tensor, Tensor]:
        result = _check_shapes(name, codes, proposals)
        return result, torch.empty_like(result)

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[: len(inputs) - options])
        ctx.numbers = inputs[len(inputs) - options :]

    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        codes, proposals = ctx.saved_tensors
        for_codes, for_proposals = getattr(torch.ops.retina_ops, f"{name}_backward")(
            grad.contiguous(), codes, proposals, *ctx.numbers
        )
        return _sum_to(for_codes, codes), _sum_to(for_proposals, proposals), *(None,) * options

    def backward_backward(ctx: Any, *grad_grads: Tensor) -> tuple[Tensor | None, ...]:
        """Differentiates the plain PyTorch formula, whose graph autograd keeps for yet higher derivatives."""
        with torch.enable_grad():
            # Views: where grad depends on codes and proposals, their derivative must not be taken through it too.
            inputs = [t.view_as(t) if t.requires_grad else t.detach().requires_grad_() for t in ctx.saved_tensors]
            grad, codes, proposals = inputs
            weights, image = ctx.numbers[:4], ctx.numbers[4:]
            dtype = promoted(proposals.dtype, torch.float32)
            wide = codes.to(dtype)
            spread = proposals.to(dtype).expand_as(wide)
            keywords = {"image_size": image} if image and image[0] >= 0 else {}
            value = formula(wide, spread, weights, **keywords)
            first = torch.autograd.grad(value, (wide, spread), grad.to(dtype), create_graph=True)
            product = (first[0] * grad_grads[0]).sum() + (first[1] * grad_grads[1]).sum()
            second = torch.autograd.grad(product, inputs, create_graph=True, allow_unused=True)
        return *second, *(None,) * options

    torch.library.register_fake(f"retina_ops::{name}", fake)
    torch.library.register_fake(f"retina_ops::{name}_backward", fake_backward)
    torch.library.register_autograd(f"retina_ops::{name}", backward, setup_context=setup)
    torch.library.register_autograd(f"retina_ops::{name}_backward", backward_backward, setup_context=setup)


_register("encode_boxes", reference.encode_boxes, 4)
_register("decode_boxes", reference.decode_boxes, 6)
