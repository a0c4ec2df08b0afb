"""What `patch_torchvision` does not recognise stays as it is, is named, and works with what is replaced around it."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from models.pairs import assert_same_detections, tiny_batch, tiny_torchvision
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNetClassificationHead, RetinaNetRegressionHead

from retina_ops import patch_torchvision, unpatch_torchvision
from retina_ops.models import retinanet_small_fpn


class WithForward(RetinaNet):
    def forward(self, images: Any, targets: Any = None) -> Any:
        return super().forward(images, targets)


class WithLoss(RetinaNet):
    def compute_loss(self, *arguments: Any) -> Any:
        return {name: 3 * loss for name, loss in super().compute_loss(*arguments).items()}


class WithPostprocess(RetinaNet):
    def postprocess_detections(self, *arguments: Any) -> Any:
        return [{**found, "labels": found["labels"] + 1} for found in super().postprocess_detections(*arguments)]


class WithMethods(RetinaNet):
    """A subclass that overrides nothing that is replaced."""

    def predict(self, images: list[Tensor]) -> Any:
        return self.eval()(images)


class ClassificationHead(RetinaNetClassificationHead):
    def compute_loss(self, *arguments: Any) -> Tensor:
        return 5 * super().compute_loss(*arguments)


class RegressionHead(RetinaNetRegressionHead):
    def forward(self, x: list[Tensor]) -> Tensor:
        return 2 * super().forward(x)


class ShiftedAnchors(AnchorGenerator):
    def grid_anchors(self, *arguments: Any) -> list[Tensor]:
        return [anchors + 3 for anchors in super().grid_anchors(*arguments)]


class AnchorsOfEachImage(AnchorGenerator):
    def forward(self, images: Any, maps: list[Tensor]) -> list[Tensor]:
        return [anchors + 5 * i for i, anchors in enumerate(super().forward(images, maps))]


class LinearCoder(BoxCoder):
    pass


class OwnMatcher(Matcher):
    pass


def changed(path: str, value: Any) -> Any:
    model = tiny_torchvision()
    owner, _, name = path.rpartition(".")
    setattr(model.get_submodule(owner), name, value)
    return model


def reclassed(path: str, kind: type) -> Any:
    model = tiny_torchvision()
    model.get_submodule(path).__class__ = kind
    return model


def hooked(path: str, register: str) -> Any:
    model = tiny_torchvision()
    getattr(model.get_submodule(path), register)(lambda *arguments: None)
    return model


# Each: how the model is made, the part that is left alone, the reason.
PARTS = {
    "loss of the model": (lambda: tiny_torchvision(WithLoss), "loss", "WithLoss overrides compute_loss"),
    "loss of the head": (
        lambda: reclassed("head.classification_head", ClassificationHead),
        "loss",
        "ClassificationHead overrides compute_loss",
    ),
    "matcher": (
        lambda: changed("proposal_matcher", OwnMatcher(0.5, 0.4)),
        "loss",
        "the matcher is OwnMatcher, not torchvision's Matcher",
    ),
    "coder of the loss": (
        lambda: changed("head.regression_head.box_coder", LinearCoder((1.0, 1.0, 1.0, 1.0))),
        "loss",
        "the box coder of the regression head is LinearCoder, not torchvision's BoxCoder",
    ),
    "between thresholds": (
        lambda: changed("head.classification_head.BETWEEN_THRESHOLDS", -1),
        "loss",
        "BETWEEN_THRESHOLDS of the classification head is -1",
    ),
    "method on the instance": (
        lambda: changed("compute_loss", lambda *_: {"classification": torch.ones(())}),
        "loss",
        "compute_loss of RetinaNet is replaced on the instance",
    ),
    "post-processing": (
        lambda: tiny_torchvision(WithPostprocess),
        "post-processing",
        "WithPostprocess overrides postprocess_detections",
    ),
    "coder of the model": (
        lambda: changed("box_coder", BoxCoder((1.0, 1.0, 1.0, 1.0), bbox_xform_clip=math.log(10.0))),
        "post-processing",
        "the box coder of the model clips at 2.3",
    ),
    "grid": (
        lambda: changed("anchor_generator", ShiftedAnchors(((12, 16), (24, 32), (48, 64)), ((0.5, 1.0, 2.0),) * 3)),
        "anchors",
        "ShiftedAnchors overrides grid_anchors",
    ),
    "hooked anchors": (
        lambda: hooked("anchor_generator", "register_forward_hook"),
        "anchors",
        "AnchorGenerator has hooks",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", PARTS)
def test_a_part_is_left_alone(case: str) -> None:
    """The rest is replaced, and both together still give what the stock model gives."""
    build, part, reason = PARTS[case]
    stock, model = build(), build()
    report = patch_torchvision(model)
    assert list(report.left) == [part] and report.left[part].startswith(reason)
    assert set(report.replaced) == {"head", "loss", "post-processing", "anchors"} - {part}
    assert f"left alone: {part}: {reason}" in str(report)
    images, targets = tiny_batch()
    got, expected = model(images, copy.deepcopy(targets)), stock(images, copy.deepcopy(targets))
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], rtol=1e-5, atol=0)
    with torch.no_grad():
        assert_same_detections(model.eval()(images), stock.eval()(images), least=20)
    assert part not in unpatch_torchvision(model).restored


def scripted() -> Any:
    return torch.jit.script(tiny_torchvision())


def patched() -> Any:
    model = tiny_torchvision()
    patch_torchvision(model)
    return model


def shares_a_patched_head() -> Any:
    model = tiny_torchvision()
    model.head = patched().head
    return model


class OwnHead(nn.Module):
    pass


WHOLES = {
    "forward": (lambda: tiny_torchvision(WithForward), "WithForward overrides forward"),
    "another head": (lambda: changed("head", OwnHead()), "the head is OwnHead, not torchvision's RetinaNetHead"),
    "another subnet": (
        lambda: changed("head.regression_head", OwnHead()),
        "the regression head is OwnHead, not torchvision's RetinaNetRegressionHead",
    ),
    "forward of a subnet": (
        lambda: reclassed("head.regression_head", RegressionHead),
        "RegressionHead overrides forward",
    ),
    "anchors of each image": (
        lambda: changed("anchor_generator", AnchorsOfEachImage(((12,), (24,), (48,)), ((0.5, 1.0, 2.0),) * 3)),
        "AnchorsOfEachImage overrides forward",
    ),
    "another generator": (
        lambda: changed("anchor_generator", OwnHead()),
        "the anchor generator is OwnHead, not torchvision's AnchorGenerator",
    ),
    "hook on the head": (lambda: hooked("head", "register_forward_hook"), "RetinaNetHead has hooks"),
    "hook on a subnet": (
        lambda: hooked("head.classification_head", "register_full_backward_hook"),
        "RetinaNetClassificationHead has hooks",
    ),
    "TorchScript": (scripted, "it is in TorchScript: patch the model that it was made of"),
    "patched": (patched, "it is patched already"),
    "shared head": (shares_a_patched_head, "its head is that of another model, which is patched"),
}


@pytest.mark.parametrize("case", WHOLES)
def test_a_model_is_left_alone(case: str) -> None:
    build, reason = WHOLES[case]
    model = build()
    before = [(name, type(module)) for name, module in model.named_modules()]
    report = patch_torchvision(model)
    assert report.replaced == () and report.left == {"model": reason}
    assert str(report) == f"left alone: model: {reason}"
    assert before == [(name, type(module)) for name, module in model.named_modules()]


def test_nothing_is_patched_where_nothing_would_be_faster() -> None:
    class Both(WithLoss, WithPostprocess):
        pass

    model = tiny_torchvision(Both)
    report = patch_torchvision(model)
    assert report.replaced == () and list(report.left) == ["loss", "post-processing"] and type(model) is Both


def test_subclasses_with_methods_of_their_own() -> None:
    model = tiny_torchvision(WithMethods)
    assert not patch_torchvision(model).left
    assert isinstance(model, WithMethods) and len(model.predict(tiny_batch()[0])) == 3
    twin = copy.deepcopy(model)
    unpatch_torchvision(twin)
    assert type(twin) is WithMethods


def test_hooks_on_the_model_and_its_layers_are_called() -> None:
    model = tiny_torchvision()
    patch_torchvision(model)
    called: list[str] = []
    for name in ("", "backbone", "head.classification_head.cls_logits"):
        model.get_submodule(name).register_forward_hook(lambda *_, name=name: called.append(name))
    model.eval()(tiny_batch()[0])
    assert called == ["backbone", *["head.classification_head.cls_logits"] * 3, ""]


@pytest.mark.parametrize("function", [patch_torchvision, unpatch_torchvision])
def test_rejects_what_is_no_retinanet(function: Any) -> None:
    name = function.__name__
    with pytest.raises(
        TypeError, match=rf"{name}: expected a torchvision RetinaNet, got torch\.nn\.modules\.linear\.Linear"
    ):
        function(nn.Linear(2, 2))
    with pytest.raises(TypeError, match=r"got retina_ops\.models\.retinanet\.RetinaNet"):
        function(retinanet_small_fpn(num_classes=2))
    with pytest.raises(TypeError, match=r"patch the model inside it: model\.module"):
        function(nn.DataParallel(tiny_torchvision()))
    with pytest.raises(TypeError, match=r"patch the model inside it: model\._orig_mod"):
        function(torch.compile(tiny_torchvision()))


def test_rejects_torchscript_of_a_patched_model() -> None:
    with pytest.raises(RuntimeError, match="TorchScript is not supported by a patched model: unpatch_torchvision it"):
        torch.jit.script(patched())


def test_rejects_a_head_that_came_after_patching() -> None:
    model = patched()
    model.head.classification_head = RetinaNetClassificationHead(16, 6, 5)
    with pytest.raises(RuntimeError, match="RetinaNetClassificationHead took the place of a patched part: unpatch"):
        model.eval()(tiny_batch()[0])
    unpatch_torchvision(model)
    patch_torchvision(model)
    assert len(model.eval()(tiny_batch()[0])) == 3


def test_rejects_unpatching_a_class_that_was_changed() -> None:
    model = patched()
    model.__class__ = type("FSDPRetinaNet", (type(model),), {})
    with pytest.raises(RuntimeError, match="class of a patched module was changed to FSDPRetinaNet; undo that first"):
        unpatch_torchvision(model)
