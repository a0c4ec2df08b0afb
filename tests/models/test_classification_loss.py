"""Losses beside the focal loss: FL*, cross entropy, online hard example mining."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from inputs.heads import random_head
from torch import Tensor

import retina_ops
from retina_ops.models import LossOptions, retinanet_losses
from retina_ops.models.classification_loss import IGNORED, focal_star, ohem
from retina_ops.reference.head_outputs import by_anchor

CLASSES = 5


def examples(images: int = 3, anchors: int = 60) -> tuple[Tensor, Tensor]:
    """float64 logits, and classes with objects, background and ignored anchors; the last image has no object."""
    logits = torch.randn(images, anchors, CLASSES, dtype=torch.float64) * 3
    classes = torch.where(torch.rand(images, anchors) < 0.2, torch.randint(0, CLASSES, (images, anchors)), CLASSES)
    classes[:, ::7] = IGNORED
    classes[-1] = classes[-1].masked_fill((classes[-1] >= 0) & (classes[-1] < CLASSES), CLASSES)
    return logits, classes


def binary_cross_entropy(logits: Tensor, classes: Tensor) -> Tensor:
    """Of each anchor ``[B, N]``; 0 where it is ignored."""
    targets = F.one_hot(torch.where(classes == IGNORED, CLASSES, classes), CLASSES + 1)[..., :CLASSES].to(logits.dtype)
    losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(-1)
    return torch.where(classes == IGNORED, 0.0, losses)


@pytest.mark.parametrize(("gamma", "beta"), [(2.0, 1.0), (4.0, 0.0), (0.5, 3.0)])
def test_focal_star_is_its_formula(gamma: float, beta: float) -> None:
    logits, classes = examples()
    options = LossOptions(classification="focal_star", gamma=gamma, focal_star_beta=beta, alpha=0.3)
    expected = torch.zeros(len(logits), dtype=torch.float64)
    for image, anchor in (classes != IGNORED).nonzero().tolist():
        for column in range(CLASSES):
            is_object = classes[image, anchor] == column
            x_t = logits[image, anchor, column] * (1 if is_object else -1)
            weight = 0.3 if is_object else 0.7
            expected[image] -= weight * F.logsigmoid(gamma * x_t + beta) / gamma
    torch.testing.assert_close(focal_star(logits, classes, options), expected)


def test_focal_star_gradient() -> None:
    logits, classes = examples(2, 9)
    options = LossOptions(classification="focal_star")
    assert torch.autograd.gradcheck(lambda x: focal_star(x, classes, options), logits.requires_grad_())


@pytest.mark.parametrize("count", [1, 7, 1000])
def test_ohem_counts_the_hardest(count: int) -> None:
    logits, classes = examples()
    losses = binary_cross_entropy(logits, classes)
    options = LossOptions(classification="ohem", ohem_examples=count, alpha=-1)
    expected = losses.sort(dim=1, descending=True).values[:, :count].sum(dim=1)
    torch.testing.assert_close(ohem(logits, classes, options), expected)


def test_ohem_with_a_ratio() -> None:
    """At most 16 / (1 + 3) = 4 objects count, and three times as many of the hardest others."""
    logits, classes = examples()
    losses = binary_cross_entropy(logits, classes)
    options = LossOptions(classification="ohem", ohem_examples=16, ohem_ratio=3, alpha=-1)
    for image, got in enumerate(ohem(logits, classes, options)):
        is_object = (classes[image] >= 0) & (classes[image] < CLASSES)
        objects = losses[image][is_object].sort(descending=True).values[:4]
        others = losses[image][classes[image] == CLASSES].sort(descending=True).values
        torch.testing.assert_close(got, objects.sum() + others[: 3 * max(1, len(objects))].sum())


def test_ohem_gradient_reaches_the_chosen_alone() -> None:
    logits, classes = examples()
    ohem(logits.requires_grad_(), classes, LossOptions(classification="ohem", ohem_examples=7)).sum().backward()
    assert logits.grad is not None
    assert (logits.grad.abs().sum(-1) > 0).sum(dim=1).tolist() == [7, 7, 7]


def test_ohem_of_equal_losses_is_deterministic() -> None:
    logits, classes = torch.zeros(1, 20, CLASSES), torch.full((1, 20), CLASSES)
    options = LossOptions(classification="ohem", ohem_examples=3, alpha=-1)
    assert ohem(logits, classes, options).item() == pytest.approx(3 * CLASSES * math.log(2))


def losses_of(head: Any, **options: Any) -> dict[str, Tensor]:
    targets = [{"boxes": boxes, "labels": labels} for boxes, labels in zip(head.gt_boxes, head.gt_labels, strict=True)]
    outputs = {"cls_logits": head.cls_logits, "bbox_regression": head.bbox_regression}
    return retinanet_losses(outputs, head.anchors, targets, LossOptions(**options))


@pytest.mark.parametrize("normalization", ["image", "batch"])
def test_all_anchors_by_ohem_are_the_cross_entropy(device: str, normalization: str) -> None:
    """The composed path has the fused path's anchors, divisors and box loss; both reach the same gradients."""
    head = random_head([(9, 7), (3, 2)], [3, 0, 5], classes=CLASSES, dtype=torch.float64, device=device)
    fused = losses_of(head, classification="cross_entropy", alpha=-1, normalization=normalization)
    composed = losses_of(head, classification="ohem", ohem_examples=10**6, alpha=-1, normalization=normalization)
    for name, value in fused.items():
        torch.testing.assert_close(composed[name], value)
    for mine, theirs in zip(
        torch.autograd.grad(sum(composed.values()), head.outputs),
        torch.autograd.grad(sum(fused.values()), head.outputs),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)


def test_ap_loss_ranks_the_anchors_of_the_batch(device: str) -> None:
    """The value is that of the operator for the classes of the anchors; the box loss is the fused one."""
    head = random_head([(9, 7), (3, 2)], [3, 0, 5], classes=CLASSES, dtype=torch.float64, device=device)
    got = losses_of(head, classification="ap_loss", ap_delta=0.5)
    rows = torch.cat(by_anchor(head.cls_logits, head.bbox_regression)[0], dim=1)
    classes = []
    for boxes, labels in zip(head.gt_boxes, head.gt_labels, strict=True):
        matches = retina_ops.match_anchors(head.anchors, boxes)
        padded = torch.cat([labels, labels.new_tensor([CLASSES])])
        classes.append(torch.where(matches == -2, -1, padded[matches.clamp(min=-1)]))
    expected = retina_ops.reference.ap_loss(rows, torch.stack(classes), delta=0.5)
    torch.testing.assert_close(got["classification"], expected)
    torch.testing.assert_close(got["bbox_regression"], losses_of(head)["bbox_regression"])
    gradients = torch.autograd.grad(sum(got.values()), head.outputs)
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.abs().sum() > 0 for gradient in gradients[: len(head.cls_logits)])


def test_cross_entropy_is_focal_with_gamma_0() -> None:
    head = random_head([(5, 4)], [2, 1], classes=CLASSES)
    assert losses_of(head, classification="cross_entropy", alpha=0.75) == losses_of(head, gamma=0.0, alpha=0.75)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"classification": "hinge"},
            "classification must be one of focal, cross_entropy, focal_star, ohem, ap_loss, got 'hinge'",
        ),
        ({"classification": "focal_star", "gamma": 0.0}, "gamma must be positive with the classification focal_star"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LossOptions(**options)
