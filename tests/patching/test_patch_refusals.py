"""What `patch_torchvision` leaves alone and names, what works around it, and what both functions refuse."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from models.pairs import tiny_batch, tiny_torchvision
from patching.patched_models import (
    CELLS,
    EVERYTHING,
    OwnHead,
    ShiftedAnchors,
    WithLoss,
    WithMethods,
    WithPostprocess,
    assert_same,
    changed,
    patched,
)
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.retinanet import RetinaNetClassificationHead, RetinaNetRegressionHead

from retina_ops import patch_torchvision, unpatch_torchvision
from retina_ops.models import retinanet_small_fpn


class WithForward(RetinaNet):
    def forward(self, images: Any, targets: Any = None) -> Any:
        return super().forward(images, targets)


class ClassificationHead(RetinaNetClassificationHead):
    def compute_loss(self, *arguments: Any) -> Tensor:
        return 5 * super().compute_loss(*arguments)


class RegressionHead(RetinaNetRegressionHead):
    def forward(self, x: list[Tensor]) -> Tensor:
        return 2 * super().forward(x)


def hooked(path: str, register: str) -> Any:
    model = tiny_torchvision()
    getattr(model.get_submodule(path), register)(lambda *arguments: None)
    return model


# Each: how the model is made, the part that is left alone, the reason. More parts: `CHANGES` of test_patch_changes.py.
PARTS = {
    "loss": (
        lambda: tiny_torchvision(WithLoss),
        "loss",
        "model.compute_loss is WithLoss.compute_loss of patching.patched_models, not torchvision's "
        "RetinaNet.compute_loss",
    ),
    "loss of a head": (
        lambda: changed(tiny_torchvision(), "head.classification_head.__class__", ClassificationHead),
        "loss",
        f"model.head.classification_head.compute_loss is ClassificationHead.compute_loss of {__name__}, not "
        "torchvision's RetinaNetClassificationHead.compute_loss",
    ),
    "post-processing": (
        lambda: tiny_torchvision(WithPostprocess),
        "post-processing",
        "model.postprocess_detections is WithPostprocess.postprocess_detections of patching.patched_models, not "
        "torchvision's RetinaNet.postprocess_detections",
    ),
    "grid": (
        lambda: changed(tiny_torchvision(), "anchor_generator", ShiftedAnchors(*CELLS)),
        "anchors",
        "model.anchor_generator.grid_anchors is ShiftedAnchors.grid_anchors of patching.patched_models, not "
        "torchvision's AnchorGenerator.grid_anchors",
    ),
    "hooked anchors": (
        lambda: hooked("anchor_generator", "register_forward_hook"),
        "anchors",
        "model.anchor_generator has hooks",
    ),
}


@pytest.mark.parametrize("case", PARTS)
def test_a_part_is_left_alone(case: str) -> None:
    """The rest is replaced, and both together give what the stock model gives."""
    build, part, reason = PARTS[case]
    stock, model = build(), build()
    report = patch_torchvision(model)
    assert report.left == {part: reason}
    assert set(report.replaced) == set(EVERYTHING) - {part}
    assert f"left alone: {part}: {reason}" in str(report)
    assert_same(model, stock)
    assert part not in unpatch_torchvision(model).restored


def shares_a_patched_head() -> Any:
    model = tiny_torchvision()
    model.head = patched().head
    return model


WHOLES = {
    "forward": (
        lambda: tiny_torchvision(WithForward),
        f"model.forward is WithForward.forward of {__name__}, not torchvision's RetinaNet.forward",
    ),
    "forward on the instance": (
        lambda: changed(tiny_torchvision(), "forward", print),
        "model.forward is <built-in function print>, not torchvision's RetinaNet.forward",
    ),
    "another head": (
        lambda: changed(tiny_torchvision(), "head", OwnHead()),
        "model.head is OwnHead, not torchvision's RetinaNetHead",
    ),
    "no head": (
        lambda: changed(tiny_torchvision(), "head", None),
        "model.head is NoneType, not torchvision's RetinaNetHead",
    ),
    "another regression head": (
        lambda: changed(tiny_torchvision(), "head.regression_head", OwnHead()),
        "model.head.regression_head is OwnHead, not torchvision's RetinaNetRegressionHead",
    ),
    "forward of a head": (
        lambda: changed(tiny_torchvision(), "head.regression_head.__class__", RegressionHead),
        f"model.head.regression_head.forward is RegressionHead.forward of {__name__}, not torchvision's "
        "RetinaNetRegressionHead.forward",
    ),
    "hook on the head": (lambda: hooked("head", "register_forward_hook"), "model.head has hooks"),
    "hook in the head": (
        lambda: hooked("head.classification_head", "register_full_backward_hook"),
        "model.head.classification_head has hooks",
    ),
    "TorchScript": (
        lambda: torch.jit.script(tiny_torchvision()),
        "it is in TorchScript: patch the model that it was made of",
    ),
    "patched": (patched, "it is patched already"),
    "shared head": (shares_a_patched_head, "its head belongs to another model, which is patched"),
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
    model = patched()
    called: list[str] = []
    for name in ("", "backbone", "head.classification_head.cls_logits"):
        model.get_submodule(name).register_forward_hook(lambda *_, name=name: called.append(name))
    model.eval()(tiny_batch()[0])
    assert called == ["backbone", *["head.classification_head.cls_logits"] * 3, ""]


@pytest.mark.parametrize("path", ["forward", "head.forward", "head.regression_head.forward"])
def test_a_forward_that_wraps_a_patched_one_is_called(path: str) -> None:
    """As libraries do that replace ``forward`` on the instance."""
    model = patched()
    wrapped = model.get_submodule(path.rpartition(".")[0]).forward
    called: list[str] = []

    def forward(*given: Any, **options: Any) -> Any:
        called.append(path)
        return wrapped(*given, **options)

    assert_same(changed(model, path, forward), tiny_torchvision())
    assert called == [path] * 2


@pytest.mark.parametrize("function", [patch_torchvision, unpatch_torchvision])
@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: nn.Linear(2, 2),
            r"expected a torchvision RetinaNet, .* or KeypointRCNN, got torch\.nn\.modules\.linear\.Linear$",
        ),
        (
            lambda: retinanet_small_fpn(num_classes=2),
            r"got retina_ops\.models\.retinanet\.RetinaNet; it has the fused operators already$",
        ),
        (lambda: nn.DataParallel(tiny_torchvision()), r"patch the model inside it: model\.module$"),
        (lambda: torch.compile(tiny_torchvision()), r"patch the model inside it: model\._orig_mod$"),
    ],
    ids=["layer", "our model", "wrapped", "compiled"],
)
def test_rejects_what_is_no_retinanet(function: Any, build: Any, message: str) -> None:
    with pytest.raises(TypeError, match=f"{function.__name__}: .*{message}"):
        function(build())


def test_rejects_torchscript_of_a_patched_model() -> None:
    message = "TorchScript does not support a patched model: call unpatch_torchvision on it first"
    with pytest.raises(RuntimeError, match=message):
        torch.jit.script(patched())


def test_rejects_unpatching_a_class_that_was_changed() -> None:
    model = patched()
    model.__class__ = type("FSDPRetinaNet", (type(model),), {})
    model(*tiny_batch())  # it works, as under `fully_shard`
    with pytest.raises(RuntimeError, match="class of a patched module was changed to FSDPRetinaNet; undo that first"):
        unpatch_torchvision(model)
