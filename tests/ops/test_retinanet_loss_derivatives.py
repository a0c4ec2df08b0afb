"""retinanet_loss: derivatives of one loss and of functions of both, loss scaling, NaN."""

from __future__ import annotations

import pytest
import torch
from inputs.heads import Head, random_head
from test_retinanet_loss import SIZES, loss_of

from retina_ops import reference, retinanet_loss


@pytest.mark.parametrize("create_graph", [False, True])
def test_one_loss_alone(device: str, create_graph: bool) -> None:
    """The outputs of the other have no gradient: not zeros, which a NaN among them would turn into NaN."""
    head = random_head([(4, 4)], [4], device=device)
    with torch.no_grad():
        head.bbox_regression[0].fill_(torch.nan)
    for box_loss in ("l1", "giou"):
        losses = loss_of(head, box_loss=box_loss)
        assert losses[1].isnan()
        grads = torch.autograd.grad(
            losses[0], head.outputs, allow_unused=True, retain_graph=True, create_graph=create_graph
        )
        assert grads[0].isfinite().all() and grads[0].abs().sum() > 0 and grads[1] is None
        grads = torch.autograd.grad(losses[1], head.outputs, allow_unused=True, create_graph=create_graph)
        assert grads[0] is None and grads[1].isfinite().logical_not().any() == (box_loss == "giou")


# Functions of both losses and a factor: linear in the losses, and with upstream gradients that depend on the outputs.
TOTALS = {
    "linear": lambda classification, box, factor: classification * factor + box * factor**2,
    "curved": lambda classification, box, factor: factor * classification**2 + classification * box + box.exp(),
    "logarithms": lambda classification, box, factor: classification.log() * factor + box.log(),
}


@pytest.mark.parametrize("total", TOTALS)
@pytest.mark.parametrize("layout", ["planar", "channels_last"])
def test_second_derivatives(device: str, layout: str, total: str) -> None:
    """Of a function of the gradients and the upstream factors, against the definition's."""
    results = []
    for function in (retinanet_loss, reference.retinanet_loss):
        torch.manual_seed(3)
        head = random_head(SIZES[1:], [3, 1], dtype=torch.float64, device=device, layout=layout)
        factor = torch.tensor(1.3, dtype=torch.float64, device=device, requires_grad=True)
        losses = function(
            head.cls_logits, head.bbox_regression, head.anchors, head.gt_boxes, head.gt_labels, box_loss="smooth_l1"
        )
        first = torch.autograd.grad(TOTALS[total](*losses, factor), head.outputs, create_graph=True)
        inputs = [factor, *head.outputs]
        results.append(torch.autograd.grad(sum((g**2).sum() for g in first), inputs))
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


def test_float16_with_a_loss_scaler(device: str) -> None:
    """Gradients under the smallest float16 are there once the loss is scaled, as if scaled in float64."""
    head = random_head([(8, 8)], [2], dtype=torch.float16, device=device)
    with torch.no_grad():
        head.cls_logits[0].sub_(8)
    exact = [level.detach().double().requires_grad_() for level in head.outputs]
    scaled, expected = (
        torch.autograd.grad(
            loss_of(Head(levels[:1], levels[1:], anchors, boxes, head.gt_labels))[0] * 65536, levels[0]
        )[0]
        for levels, anchors, boxes in (
            (head.outputs, head.anchors, head.gt_boxes),
            (exact, head.anchors.double(), [boxes.double() for boxes in head.gt_boxes]),
        )
    )
    lost_unscaled = (expected != 0) & (expected.abs() / 65536 < 2**-25)
    assert lost_unscaled.any()
    torch.testing.assert_close(scaled[lost_unscaled].double(), expected[lost_unscaled], rtol=2e-3, atol=2**-24)


@pytest.mark.parametrize("box_loss", ["l1", "smooth_l1"])
def test_nan_deltas_of_foreground_anchors(device: str, box_loss: str) -> None:
    """The loss is NaN, and where the definition's gradient is NaN so is ours."""
    head = random_head([(4, 4)], [4], device=device)
    with torch.no_grad():
        head.bbox_regression[0][:, 2].fill_(torch.nan)
    grads = []
    for function in (retinanet_loss, reference.retinanet_loss):
        loss = function(
            head.cls_logits, head.bbox_regression, head.anchors, head.gt_boxes, head.gt_labels, box_loss=box_loss
        )[1]
        assert loss.isnan()
        grads.append(torch.autograd.grad(loss, head.bbox_regression)[0])
    assert grads[1].isnan().any() == (box_loss == "smooth_l1")
    torch.testing.assert_close(*grads, equal_nan=True)
