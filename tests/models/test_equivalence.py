"""Fifty steps from one seed in float64: the fused path ends at the weights of the composed path, and of torchvision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from models.composed import composed_losses
from models.pairs import tiny_batch, tiny_torchvision

from retina_ops import patch_torchvision
from retina_ops.models import LossOptions, default_anchor_generator, retinanet_small_fpn

STEPS = 50
OPTIONS = {
    "l1, image": LossOptions(),
    "smooth_l1, batch": LossOptions(
        box_loss="smooth_l1", smooth_l1_beta=0.1, normalization="batch", box_loss_weight=2.0
    ),
    "giou, ema": LossOptions(box_loss="giou", normalization="ema", gamma=1.5, alpha=0.5),
    "diou, image": LossOptions(box_loss="diou"),
    "ciou, batch": LossOptions(box_loss="ciou", normalization="batch"),
}


def trained(build: Callable[[], Any], device: str) -> tuple[Any, list[float]]:
    """The model after `STEPS` of SGD on scenes that change with each step, and its losses."""
    torch.manual_seed(11)
    model = build().double().to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    history = []
    for step in range(STEPS):
        torch.manual_seed(step % 5)
        images, targets = tiny_batch(device, torch.float64)
        losses = model(images, targets)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        history.append(sum(loss.item() for loss in losses.values()))
    assert abs(sum(history[-5:]) / sum(history[:5]) - 1) > 0.1  # it moves: the gradients matter
    return model, history


def assert_same_weights(mine: Any, theirs: Any) -> None:
    for (name, a), b in zip(mine.state_dict().items(), theirs.state_dict().values(), strict=True):
        assert (a - b).abs().max() <= 1e-8 * b.abs().max(), name


@pytest.mark.parametrize("name", OPTIONS)
def test_fused_equals_composed(device: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def build() -> Any:
        return retinanet_small_fpn(
            num_classes=3, width=8, fpn_channels=16, head_depth=1, min_size=64, max_size=96, loss=OPTIONS[name],
            anchor_generator=default_anchor_generator((8, 16, 32, 48, 64)),
        )  # fmt: skip

    fused, fused_losses = trained(build, device)
    monkeypatch.setattr("retina_ops.models.retinanet.retinanet_losses", composed_losses)
    composed, losses = trained(build, device)
    assert fused_losses == pytest.approx(losses, rel=1e-8)
    assert_same_weights(fused, composed)


@pytest.mark.parametrize("box_loss", ["l1", "giou"])
def test_patched_equals_torchvision(device: str, box_loss: str) -> None:
    def build(patch: bool) -> Any:
        model = tiny_torchvision()
        model.head.regression_head._loss_type = box_loss
        if patch:
            assert "loss" in patch_torchvision(model).replaced
        return model

    patched, patched_losses = trained(lambda: build(True), device)
    stock, losses = trained(lambda: build(False), device)
    assert patched_losses == pytest.approx(losses, rel=1e-8)
    assert_same_weights(patched, stock)
