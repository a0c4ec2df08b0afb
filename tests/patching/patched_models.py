"""Patched models for these tests, classes that override a part of torchvision's, and what it means to compute alike."""

from __future__ import annotations

import copy
import functools
from typing import Any

import torch
from models.pairs import assert_same_detections, tiny_batch, tiny_torchvision
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator

from retina_ops import patch_torchvision

EVERYTHING = ("head", "loss", "post-processing", "anchors")
CELLS = (((12, 16), (24, 32), (48, 64)), ((0.5, 1.0, 2.0),) * 3)  # the anchor generator's of `tiny_torchvision`
ONES = (1.0, 1.0, 1.0, 1.0)  # weights of a box coder


def patched(kind: type = RetinaNet) -> Any:
    model = tiny_torchvision(kind)
    patch_torchvision(model)
    return model


def changed(model: Any, path: str, value: Any) -> Any:
    """The model, in which the attribute that the dotted path leads to is set to a copy of `value`."""
    *owners, name = path.split(".")
    setattr(functools.reduce(getattr, owners, model), name, copy.copy(value))
    return model


def assert_same(model: Any, stock: Any, device: str = "cpu", calls: int = 1) -> None:
    """The same losses, and the same detections after them, in each of several calls."""
    images, targets = tiny_batch(device)
    for _ in range(calls):
        got, expected = (each.train()(images, copy.deepcopy(targets)) for each in (model, stock))
        assert list(got) == list(expected)
        for name in expected:
            torch.testing.assert_close(got[name], expected[name], rtol=1e-5, atol=0)
        with torch.no_grad():
            assert_same_detections(model.eval()(images), stock.eval()(images), least=20)


class WithLoss(RetinaNet):
    def compute_loss(self, *arguments: Any) -> Any:
        return {name: 3 * loss for name, loss in super().compute_loss(*arguments).items()}


class WithPostprocess(RetinaNet):
    def postprocess_detections(self, *arguments: Any) -> Any:
        return [{**found, "labels": found["labels"] + 1} for found in super().postprocess_detections(*arguments)]


class WithMethods(RetinaNet):
    """Overrides nothing that is replaced."""

    def predict(self, images: list[Tensor]) -> Any:
        return self.eval()(images)


class OwnHead(nn.Module):
    pass


class OwnMatcher(Matcher):
    pass


class OwnCoder(BoxCoder):
    pass


class ShiftedAnchors(AnchorGenerator):
    def grid_anchors(self, *arguments: Any) -> list[Tensor]:
        return [anchors + 3 for anchors in super().grid_anchors(*arguments)]


class AnchorsOfEachImage(AnchorGenerator):
    def forward(self, images: Any, maps: list[Tensor]) -> list[Tensor]:
        return [anchors + 5 * i for i, anchors in enumerate(super().forward(images, maps))]
