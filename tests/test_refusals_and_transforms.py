"""What all operators have in common: forward mode is refused, batched gradients work, shapes and dtypes are real."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from boxes import random_boxes
from heads import random_head
from torch import Tensor
from torch.autograd import forward_ad

import retina_ops as ops
from retina_ops import reference


def cases(device: str) -> dict[str, tuple[Callable[[Tensor], Tensor], Tensor]]:
    """Functions of one tensor that has a derivative."""
    a, b = random_boxes(4, device), random_boxes(4, device)
    head = random_head([(2, 2)], [2], device=device)
    found: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]] = {
        "sigmoid_focal_loss": (lambda x: ops.sigmoid_focal_loss(x, (x > 0).detach().to(x.dtype), reduction="sum"), b),
        "sigmoid_focal_loss, each": (lambda x: ops.sigmoid_focal_loss(x, torch.zeros_like(x)), b),
        "encode_boxes": (lambda x: ops.encode_boxes(x, a), b),
        "decode_boxes": (lambda x: ops.decode_boxes(x, a), torch.randn_like(a)),
        "soft_nms": (lambda x: ops.soft_nms(a, x, 0.5)[1], torch.rand(4, device=device)),
        "retinanet_loss": (
            lambda x: ops.retinanet_loss([x], head.bbox_regression, head.anchors, head.gt_boxes, head.gt_labels)[0],
            head.cls_logits[0].detach(),
        ),
    }
    for name in ("box_iou", "generalized_box_iou", "distance_box_iou", "complete_box_iou"):
        found[name] = (lambda x, name=name: getattr(ops, name)(x, a), b)  # type: ignore[misc]
    for name in ("generalized_box_iou_loss", "distance_box_iou_loss", "complete_box_iou_loss"):
        found[name] = (lambda x, name=name: getattr(ops, name)(x, a, "mean"), b)  # type: ignore[misc]
    return found


NAMES = tuple(cases("cpu"))


@pytest.mark.parametrize("name", NAMES)
def test_forward_mode_is_refused(device: str, name: str) -> None:
    """Not lost: below the operators, which have no rule for them, tangents would be zero or missing."""
    function, x = cases(device)[name]
    message = f"{name.split(',')[0]}: forward-mode derivatives are not supported"
    with pytest.raises(RuntimeError, match=message):
        torch.func.jvp(function, (x,), (torch.ones_like(x),))
    with pytest.raises(RuntimeError, match=message), forward_ad.dual_level():
        function(forward_ad.make_dual(x, torch.ones_like(x)))
    with forward_ad.dual_level():
        function(x)  # without a tangent nothing is lost


# soft_nms indexes; the operators of retinanet_loss take lists, of which torch has no batches, and say so.
@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("soft_nms", "retinanet_loss")])
def test_batched_gradients(device: str, name: str) -> None:
    """At the first backward as at the second, one upstream gradient a row as one by one."""
    function, x = cases(device)[name]
    x = x.clone().requires_grad_()
    out = function(x)
    upstream = torch.randn(3, *out.shape, device=device)
    batched, again = (
        torch.autograd.grad(out, x, upstream, is_grads_batched=True, retain_graph=True)[0] for _ in range(2)
    )
    single = torch.stack([torch.autograd.grad(out, x, each, retain_graph=True)[0] for each in upstream])
    torch.testing.assert_close(batched, single)
    torch.testing.assert_close(again, single)


@pytest.mark.parametrize("name", ["encode_boxes", "decode_boxes", "generalized_box_iou_loss", "box_iou"])
def test_the_last_dimension_is_four(device: str, name: str) -> None:
    """One value does not stand for four."""
    function, boxes = getattr(ops, name), random_boxes(3, device)
    for bad, wanted in (
        (torch.rand(3, 1, device=device), r"\[\.\.\., (N, )?4\], got \[3, 1\]"),
        (torch.tensor(1.0, device=device), r"\[\.\.\., (N, )?4\], got \[\]"),
        (boxes.to(torch.complex64), "real, got torch.complex64"),
    ):
        for arguments in ((bad, boxes), (boxes, bad)):
            with pytest.raises(RuntimeError, match=rf"{name}: \w+ must be {wanted}"):
                function(*arguments)


def test_integer_boxes_are_not_rounded_to_half(device: str) -> None:
    anchors = torch.tensor([[2048.0, 0, 2050, 2]], device=device).half()
    boxes = torch.tensor([[2047, 0, 2049, 2]], device=device)
    assert ops.match_anchors(anchors, boxes, 0.3, 0.3, False).tolist() == [0]
    large = torch.tensor([[0, 0, 100_000, 100_000]], device=device)
    half = torch.tensor([[0.0, 0, 1000, 1000]], device=device).half()
    torch.testing.assert_close(ops.box_iou(large, half), reference.box_iou(large.float(), half.float()))
    assert ops.encode_boxes(large, half).isfinite().all()


@pytest.mark.parametrize("size", [(-1, 5), (float("nan"), 5), (5,), (5, 6, 7)])
def test_decode_rejects_sizes(device: str, size: tuple[float, ...]) -> None:
    boxes = random_boxes(2, device)
    with pytest.raises(ValueError, match=r"decode_boxes: image_size must be \(height, width\), at least 0, got \("):
        ops.decode_boxes(torch.zeros_like(boxes), boxes, image_size=size)  # type: ignore[arg-type]


def test_second_derivatives_of_half_are_computed_in_float32(device: str) -> None:
    torch.manual_seed(4)
    anchors = random_boxes(200, device, high=40).bfloat16()
    boxes = (anchors.float() + torch.rand(200, 4, device=device)).bfloat16()
    results = []
    for function, dtype in ((ops.encode_boxes, torch.bfloat16), (reference.encode_boxes, torch.float64)):
        x, y = boxes.to(dtype).requires_grad_(), anchors.to(dtype).requires_grad_()
        first = torch.autograd.grad(function(x, y).sum(), (x, y), create_graph=True)
        results.append(torch.autograd.grad(sum(g.double().sum() for g in first), (x, y)))
    for mine, exact in zip(*results, strict=True):
        known = exact.isfinite() & mine.isfinite()
        assert (mine[known] - exact[known]).norm() <= 0.01 * exact[known].norm()
