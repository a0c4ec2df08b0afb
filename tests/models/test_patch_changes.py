"""What is changed in a patched model, and what the user's code changes in place."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch
from models.pairs import assert_same_detections, tiny_batch, tiny_torchvision
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator

from retina_ops import patch_torchvision, unpatch_torchvision

EVERYTHING = ("head", "loss", "post-processing", "anchors")
CELLS = (((12, 16), (24, 32), (48, 64)), ((0.5, 1.0, 2.0),) * 3)  # of `tiny_torchvision`


def patched(kind: type = RetinaNet) -> Any:
    model = tiny_torchvision(kind)
    patch_torchvision(model)
    return model


def set_in(model: Any, path: str, value: Any) -> None:
    """Sets what a dotted path of attributes leads to."""
    *owners, name = path.split(".")
    setattr(functools.reduce(getattr, owners, model), name, value)


def assert_same(model: Any, stock: Any, device: str = "cpu") -> None:
    """The losses of three calls, and detections after each."""
    images, targets = tiny_batch(device)
    for _ in range(3):
        got, expected = (each.train()(images, copy.deepcopy(targets)) for each in (model, stock))
        assert list(got) == list(expected)
        for name in expected:
            torch.testing.assert_close(got[name], expected[name], rtol=1e-5, atol=0)
        with torch.no_grad():
            assert_same_detections(model.eval()(images), stock.eval()(images), least=20)


class MovesAnchors(RetinaNet):
    def compute_loss(self, targets: Any, outputs: Any, anchors: list[Tensor]) -> Any:
        for index, of_image in enumerate(anchors):
            of_image += 1 + index
        return super().compute_loss(targets, outputs, anchors)


class ClampsAnchors(RetinaNet):
    def postprocess_detections(self, outputs: Any, anchors: list[list[Tensor]], sizes: Any) -> Any:
        for index, levels in enumerate(anchors):
            for level in levels:
                level.sub_(index).clamp_(min=3, max=50)
        return super().postprocess_detections(outputs, anchors, sizes)


@pytest.mark.parametrize("kind", [MovesAnchors, ClampsAnchors])
def test_anchors_may_be_edited_in_place(device: str, kind: type) -> None:
    """By the parts left alone: each image has anchors of its own, and the next call new ones."""
    model, stock = patched(kind).to(device), tiny_torchvision(kind).to(device)
    assert "anchors" in model._retina_ops.replaced
    assert_same(model, stock, device)


# --- after patching ---------------------------------------------------------------------------------------------------


class OwnMatcher(Matcher):
    pass


class OwnCoder(BoxCoder):
    pass


class AnchorsOfEachImage(AnchorGenerator):
    def forward(self, images: Any, maps: list[Tensor]) -> list[Tensor]:
        return [anchors + 5 * i for i, anchors in enumerate(super().forward(images, maps))]


class ShiftedAnchors(AnchorGenerator):
    def grid_anchors(self, *arguments: Any) -> list[Tensor]:
        return [anchors + 3 for anchors in super().grid_anchors(*arguments)]


ONES = (1.0, 1.0, 1.0, 1.0)
# Each: what is set to what, and how the error names it.
CHANGES: dict[str, tuple[str, Any, str]] = {
    "matcher": ("proposal_matcher", OwnMatcher(0.5, 0.4), "the matcher is OwnMatcher"),
    "mark of the matcher": ("proposal_matcher.BETWEEN_THRESHOLDS", -1, "BETWEEN_THRESHOLDS of the matcher is -1"),
    "mark of the head": (
        "head.classification_head.BETWEEN_THRESHOLDS",
        -1,
        "BETWEEN_THRESHOLDS of the classification head is -1",
    ),
    "coder of the loss": (
        "head.regression_head.box_coder",
        OwnCoder(ONES),
        "the box coder of the regression head is OwnCoder",
    ),
    "coder of the model": ("box_coder", OwnCoder(ONES), "the box coder of the model is OwnCoder"),
    "clip of the loss": (
        "head.regression_head.box_coder.bbox_xform_clip",
        1.5,
        "the box coder of the regression head clips at 1.5",
    ),
    "clip of the model": ("box_coder.bbox_xform_clip", 1.5, "the box coder of the model clips at 1.5"),
    "loss": ("compute_loss", lambda *_: {}, "compute_loss of RetinaNet is replaced on the instance"),
    "loss of a subnet": (
        "head.regression_head.compute_loss",
        lambda *_: 0,
        "compute_loss of RetinaNetRegressionHead is replaced on the instance",
    ),
    "post-processing": (
        "postprocess_detections",
        lambda *_: [],
        "postprocess_detections of RetinaNet is replaced on the instance",
    ),
    "anchors of each image": ("anchor_generator", AnchorsOfEachImage(*CELLS), "AnchorsOfEachImage overrides forward"),
    "another generator": ("anchor_generator", nn.Identity(), "the anchor generator is Identity, not torchvision's"),
    "box loss": ("head.regression_head._loss_type", "l3", "the box loss 'l3' is none of l1, smooth_l1, giou"),
}


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("case", CHANGES)
def test_rejects_a_part_that_was_changed_after_patching(case: str, mode: str) -> None:
    path, value, reason = CHANGES[case]
    model = patched()
    images, targets = tiny_batch()
    model(images, copy.deepcopy(targets))
    set_in(model, path, value)
    again = ": unpatch_torchvision and patch_torchvision the model again"
    with pytest.raises(RuntimeError, match=f"was changed after it was patched: {reason}.*{again}"):
        getattr(model, mode)()(images, copy.deepcopy(targets))


@pytest.mark.parametrize("case", ["matcher", "coder of the model", "clip of the loss", "mark of the matcher"])
def test_patching_again_takes_the_change_up(case: str) -> None:
    path, value, reason = CHANGES[case]
    model, stock = patched(), tiny_torchvision()
    for each in (model, stock):
        set_in(each, path, copy.copy(value))
    unpatch_torchvision(model)
    (found,) = patch_torchvision(model).left.values()
    assert found.startswith(reason)
    assert_same(model, stock)


def test_what_is_left_alone_may_be_changed() -> None:
    model, stock = patched(MovesAnchors), tiny_torchvision(MovesAnchors)
    for each in (model, stock):
        each.proposal_matcher = OwnMatcher(0.6, 0.2)
        each.head.regression_head.box_coder = BoxCoder(ONES, bbox_xform_clip=1.0)
    assert_same(model, stock)


def test_another_grid_after_patching() -> None:
    """Taken from the generator; the cache would not know of a method on the instance."""
    for change in (
        lambda each: setattr(each, "anchor_generator", ShiftedAnchors(*CELLS)),
        lambda each: setattr(
            each.anchor_generator,
            "grid_anchors",
            lambda *arguments: [4 + level for level in AnchorGenerator(*CELLS).grid_anchors(*arguments)],
        ),
    ):
        model, stock = patched(), tiny_torchvision()
        assert_same(model, stock)  # the cache has anchors of the old grid
        for each in (model, stock):
            change(each)
        assert_same(model, stock)


@pytest.mark.parametrize("before", [True, False], ids=["before patching", "after patching"])
def test_hooks_of_the_anchor_generator(before: bool) -> None:
    """They are called, and what they return counts."""
    model, stock = tiny_torchvision(), tiny_torchvision()
    called: list[str] = []

    def hook_both() -> None:
        for name, each in (("patched", model), ("stock", stock)):
            each.anchor_generator.register_forward_pre_hook(lambda *_, name=name: called.append(name))
            each.anchor_generator.register_forward_hook(lambda _, given, anchors: [3 + image for image in anchors])

    if before:
        hook_both()
    patch_torchvision(model)
    if not before:
        assert_same(model, stock)
        hook_both()
    assert_same(model, stock)
    assert called == ["patched", "stock"] * 6


def test_rejects_hooks_that_give_images_anchors_of_their_own() -> None:
    model = patched()
    model.anchor_generator.register_forward_hook(lambda _, given, anchors: [i + a for i, a in enumerate(anchors)])
    with pytest.raises(RuntimeError, match="hooks of the anchor generator gave images anchors of their own: unpatch"):
        model(*tiny_batch())


class OwnHead(nn.Module):
    pass


def test_unpatches_a_model_with_another_head() -> None:
    model = patched()
    model.head = OwnHead()
    for each in (model.train(), model.eval()):
        with pytest.raises(RuntimeError, match="OwnHead took the place of a patched part: unpatch_torchvision and"):
            each(*tiny_batch())
    assert unpatch_torchvision(model).restored == ("loss", "post-processing", "anchors")
    assert type(model) is RetinaNet and type(model.head) is OwnHead and not hasattr(model, "_retina_ops")
    model.head = tiny_torchvision().head
    assert patch_torchvision(model).replaced == EVERYTHING
    assert_same(model, tiny_torchvision())
