"""Parts of a model that the user changes, before and after patching, and what the user's code changes in place."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from models.pairs import tiny_batch, tiny_torchvision
from patching.patched_models import (
    CELLS,
    EVERYTHING,
    ONES,
    AnchorsOfEachImage,
    OwnCoder,
    OwnHead,
    OwnMatcher,
    ShiftedAnchors,
    assert_same,
    changed,
    patched,
)
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNetClassificationHead

from retina_ops import patch_torchvision, unpatch_torchvision

CLIP = f"not torchvision's {math.log(1000 / 16)}"
# Each: what is set to what, the part that cannot be replaced then, and the reason.
CHANGES: dict[str, tuple[str, Any, str, str]] = {
    "matcher": (
        "proposal_matcher",
        OwnMatcher(0.5, 0.4),
        "loss",
        "model.proposal_matcher is OwnMatcher, not torchvision's Matcher",
    ),
    "mark of the matcher": (
        "proposal_matcher.BETWEEN_THRESHOLDS",
        -1,
        "loss",
        "model.proposal_matcher.BETWEEN_THRESHOLDS is -1, not torchvision's -2",
    ),
    "mark of the head": (
        "head.classification_head.BETWEEN_THRESHOLDS",
        -1,
        "loss",
        "model.head.classification_head.BETWEEN_THRESHOLDS is -1, not torchvision's -2",
    ),
    "coder of the loss": (
        "head.regression_head.box_coder",
        OwnCoder(ONES),
        "loss",
        "model.head.regression_head.box_coder is OwnCoder, not torchvision's BoxCoder",
    ),
    "coder of the model": (
        "box_coder",
        OwnCoder(ONES),
        "post-processing",
        "model.box_coder is OwnCoder, not torchvision's BoxCoder",
    ),
    "clip of the loss": (
        "head.regression_head.box_coder.bbox_xform_clip",
        1.5,
        "loss",
        f"model.head.regression_head.box_coder.bbox_xform_clip is 1.5, {CLIP}",
    ),
    "clip of the model": (
        "box_coder.bbox_xform_clip",
        1.5,
        "post-processing",
        f"model.box_coder.bbox_xform_clip is 1.5, {CLIP}",
    ),
    "loss on the instance": (
        "compute_loss",
        lambda *_: {"classification": torch.ones(())},
        "loss",
        "model.compute_loss is <lambda> of",
    ),
    "loss on a head": (
        "head.regression_head.compute_loss",
        lambda *_: torch.zeros(()),
        "loss",
        "model.head.regression_head.compute_loss is <lambda> of",
    ),
    "matching on the instance": (
        "proposal_matcher.set_low_quality_matches_",
        lambda *_: None,
        "loss",
        "model.proposal_matcher.set_low_quality_matches_ is <lambda> of",
    ),
    "post-processing on the instance": (
        "postprocess_detections",
        lambda *_: [],
        "post-processing",
        "model.postprocess_detections is <lambda> of",
    ),
    "anchors of each image": (
        "anchor_generator",
        AnchorsOfEachImage(*CELLS),
        "model",
        "model.anchor_generator.forward is AnchorsOfEachImage.forward of patching.patched_models, "
        "not torchvision's AnchorGenerator.forward",
    ),
    "another generator": (
        "anchor_generator",
        nn.Identity(),
        "model",
        "model.anchor_generator is Identity, not torchvision's AnchorGenerator",
    ),
    "box loss": (
        "head.regression_head._loss_type",
        "l3",
        "loss",
        "model.head.regression_head._loss_type is 'l3', not torchvision's l1 or smooth_l1 or giou or diou or ciou",
    ),
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_part_changed_before_patching_is_left_alone(case: str) -> None:
    path, value, part, reason = CHANGES[case]
    model, stock = (changed(tiny_torchvision(), path, value) for _ in range(2))
    report = patch_torchvision(model)
    assert list(report.left) == [part] and report.left[part].startswith(reason)
    assert set(report.replaced) == (set() if part == "model" else set(EVERYTHING) - {part})
    if case not in ("another generator", "box loss"):  # these are errors of torchvision's, too
        assert_same(model, stock)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("case", CHANGES)
def test_rejects_a_part_that_was_changed_after_patching(case: str, mode: str) -> None:
    path, value, _, reason = CHANGES[case]
    model = patched()
    images, targets = tiny_batch()
    getattr(model, mode)()(images, copy.deepcopy(targets))
    changed(model, path, value)
    with pytest.raises(RuntimeError) as raised:
        getattr(model, mode)()(images, copy.deepcopy(targets))
    assert str(raised.value).startswith(f"the model was changed after it was patched: {reason}")
    assert str(raised.value).endswith(": unpatch_torchvision and patch_torchvision the model again")


@pytest.mark.parametrize("case", ["matcher", "coder of the model", "clip of the loss", "mark of the matcher"])
def test_patching_again_takes_the_change_up(case: str) -> None:
    path, value, part, reason = CHANGES[case]
    model, stock = (changed(each, path, value) for each in (patched(), tiny_torchvision()))
    unpatch_torchvision(model)
    assert patch_torchvision(model).left[part].startswith(reason)
    assert_same(model, stock)


@pytest.mark.parametrize("how", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_rejects_a_change_in_a_copy(how: Any) -> None:
    """A copy does not trust what the calls of the first model found."""
    model = patched()
    images, targets = tiny_batch()
    model(images, targets)
    twin = changed(how(model), "proposal_matcher", OwnMatcher(0.5, 0.4))
    with pytest.raises(RuntimeError, match=r"model\.proposal_matcher is OwnMatcher"):
        twin(images, targets)
    model(images, targets)


def test_a_change_that_is_undone_is_forgotten() -> None:
    model = changed(patched(), "box_coder.bbox_xform_clip", 1.5)
    with pytest.raises(RuntimeError, match=r"bbox_xform_clip is 1\.5"):
        model(*tiny_batch())
    changed(model, "box_coder.bbox_xform_clip", math.log(1000 / 16))
    assert_same(model, tiny_torchvision())


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
    """By the parts left alone: each image has anchors of its own, and the next call gets new ones."""
    model, stock = patched(kind).to(device), tiny_torchvision(kind).to(device)
    assert "anchors" in model._retina_ops.replaced
    assert_same(model, stock, device, calls=3)


def test_what_is_left_alone_may_be_changed() -> None:
    model, stock = patched(MovesAnchors), tiny_torchvision(MovesAnchors)
    for each in (model, stock):
        changed(each, "proposal_matcher", OwnMatcher(0.6, 0.2))
        changed(each, "head.regression_head.box_coder", BoxCoder(ONES, bbox_xform_clip=1.0))
    assert_same(model, stock)


def test_another_matcher_and_coder_of_torchvision_take_effect() -> None:
    model, stock = patched(), tiny_torchvision()
    assert_same(model, stock)
    for each in (model, stock):
        changed(each, "proposal_matcher", Matcher(0.6, 0.2))
        changed(each, "head.regression_head.box_coder", BoxCoder((10.0, 8.0, 5.0, 4.0)))
    assert_same(model, stock)


def grid_moved_by_level(*arguments: Any) -> list[Tensor]:
    return [4 + level for level in AnchorGenerator(*CELLS).grid_anchors(*arguments)]


@pytest.mark.parametrize(
    ("path", "value"),
    [("anchor_generator", ShiftedAnchors(*CELLS)), ("anchor_generator.grid_anchors", grid_moved_by_level)],
    ids=["generator", "method on the instance"],
)
def test_another_grid_after_patching(path: str, value: Any) -> None:
    """Its anchors are taken from the generator, not from the cache, which has those of the old grid."""
    model, stock = patched(), tiny_torchvision()
    assert_same(model, stock)
    for each in (model, stock):
        changed(each, path, value)
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
    assert_same(model, stock, calls=2)
    assert called == ["patched", "stock"] * 4


def test_rejects_hooks_that_give_each_image_other_anchors() -> None:
    model = patched()
    model.anchor_generator.register_forward_hook(lambda _, given, anchors: [i + a for i, a in enumerate(anchors)])
    with pytest.raises(RuntimeError, match="hooks of the anchor generator gave each image other anchors: unpatch"):
        model(*tiny_batch())


def test_unpatches_a_model_with_another_head() -> None:
    model = patched()
    model.head = OwnHead()
    for each in (model.train(), model.eval()):
        with pytest.raises(RuntimeError, match=r"model\.head is OwnHead, not torchvision's RetinaNetHead: unpatch"):
            each(*tiny_batch())
    assert unpatch_torchvision(model).restored == ("loss", "post-processing", "anchors")
    assert type(model) is RetinaNet and type(model.head) is OwnHead and not hasattr(model, "_retina_ops")
    model.head = tiny_torchvision().head
    assert patch_torchvision(model).replaced == EVERYTHING
    assert_same(model, tiny_torchvision())


def test_rejects_torchvisions_own_head_after_patching() -> None:
    model = patched()
    model.eval()(tiny_batch()[0])
    model.head.classification_head = RetinaNetClassificationHead(16, 6, 5)
    with pytest.raises(RuntimeError, match="RetinaNetClassificationHead took the place of a patched head: unpatch"):
        model.eval()(tiny_batch()[0])
    unpatch_torchvision(model)
    patch_torchvision(model)
    assert len(model.eval()(tiny_batch()[0])) == 3


def test_rejects_another_head_in_a_compiled_model() -> None:
    torch._dynamo.reset()
    model = patched()
    model.head = tiny_torchvision().head
    with pytest.raises(RuntimeError, match="RetinaNetHead took the place of a patched head"):
        torch.compile(model, backend="eager")(*tiny_batch())
