"""Functions and methods of torchvision that were replaced: what calls them is left alone, and named."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
from models.pairs import tiny_batch, tiny_torchvision
from patching.patched_models import WithMethods, assert_same, patched
from torchvision.models.detection import RetinaNet, _utils, retinanet
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import boxes as box_ops

from retina_ops import patch_torchvision


def wrapped(owner: Any, name: str, change: Callable[[Any], Any]) -> Callable[..., Any]:
    """A monkeypatch that has the name and the ``__module__`` of what it replaces."""
    function = getattr(owner, name)

    @functools.wraps(function)
    def changed(*arguments: Any, **options: Any) -> Any:
        return change(function(*arguments, **options))

    return changed


def doubled(result: Any) -> Any:
    return {name: 2 * value for name, value in result.items()} if isinstance(result, dict) else 2 * result


def without_best(found: Any) -> Any:
    return [{name: rows[1:] for name, rows in image.items()} for image in found]


# Each: whose attribute is replaced, what is done to its result, the part that is left alone, how the reason begins.
MONKEYPATCHES: dict[str, tuple[Any, str, Callable[[Any], Any], str, str]] = {
    "loss": (RetinaNet, "compute_loss", doubled, "loss", "model.compute_loss is RetinaNet.compute_loss of"),
    "loss of a head": (
        retinanet.RetinaNetClassificationHead,
        "compute_loss",
        doubled,
        "loss",
        "model.head.classification_head.compute_loss is RetinaNetClassificationHead.compute_loss of",
    ),
    "post-processing": (
        RetinaNet,
        "postprocess_detections",
        without_best,
        "post-processing",
        "model.postprocess_detections is RetinaNet.postprocess_detections of",
    ),
    "focal loss": (
        retinanet,
        "sigmoid_focal_loss",
        doubled,
        "loss",
        "torchvision.models.detection.retinanet.sigmoid_focal_loss is sigmoid_focal_loss of",
    ),
    "encoding": (
        _utils,
        "encode_boxes",
        doubled,
        "loss",
        "torchvision.models.detection._utils.encode_boxes is encode_boxes of",
    ),
    "decoding": (BoxCoder, "decode_single", lambda found: found + 1, "loss", "model.head.regression_head.box_coder"),
    "matcher": (
        Matcher,
        "__call__",
        lambda found: found.clamp(max=0),
        "loss",
        "model.proposal_matcher.__call__ is Matcher.__call__ of",
    ),
    "suppression": (
        box_ops,
        "batched_nms",
        lambda kept: kept[1:],
        "post-processing",
        "torchvision.ops.boxes.batched_nms is batched_nms of",
    ),
    "grid": (
        AnchorGenerator,
        "grid_anchors",
        lambda levels: [level + 3 for level in levels],
        "anchors",
        "model.anchor_generator.grid_anchors is AnchorGenerator.grid_anchors of",
    ),
    "forward": (RetinaNet, "forward", lambda result: result, "model", "model.forward is RetinaNet.forward of"),
    "forward of a head": (
        retinanet.RetinaNetRegressionHead,
        "forward",
        doubled,
        "model",
        "model.head.regression_head.forward is RetinaNetRegressionHead.forward of",
    ),
}


@pytest.mark.parametrize("case", MONKEYPATCHES)
def test_what_is_monkeypatched_is_left_alone(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name, change, part, reason = MONKEYPATCHES[case]
    monkeypatch.setattr(owner, name, wrapped(owner, name, change))
    model, stock = tiny_torchvision(), tiny_torchvision()
    left = patch_torchvision(model).left
    assert list(left) == ([part] if case != "decoding" else ["loss", "post-processing"])
    assert left[part].startswith(reason) and __name__ in left[part]
    assert_same(model, stock)


@pytest.mark.parametrize("case", [name for name in MONKEYPATCHES if name != "grid"])
def test_rejects_a_monkeypatch_after_patching(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name, change, _, reason = MONKEYPATCHES[case]
    model = patched()
    model(*tiny_batch())
    monkeypatch.setattr(owner, name, wrapped(owner, name, change))
    with pytest.raises(RuntimeError, match=f"the model was changed after it was patched: {reason}"):
        model(*tiny_batch())
    monkeypatch.undo()
    model(*tiny_batch())


def test_a_monkeypatch_of_the_grid_after_patching(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its anchors are taken from the generator, as long as the monkeypatch stands."""
    owner, name, change, *_ = MONKEYPATCHES["grid"]
    model, stock = patched(), tiny_torchvision()
    assert_same(model, stock)
    monkeypatch.setattr(owner, name, wrapped(owner, name, change))
    assert_same(model, stock)
    monkeypatch.undo()
    assert_same(model, stock)


@pytest.mark.parametrize("method", ["forward", "compute_loss", "postprocess_detections"])
def test_rejects_a_method_that_a_subclass_gets_after_patching(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = patched(WithMethods)
    model(*tiny_batch())
    monkeypatch.setattr(WithMethods, method, lambda *_: {}, raising=False)
    with pytest.raises(RuntimeError, match=rf"after it was patched: model\.{method} is .*<lambda> of {__name__}"):
        model(*tiny_batch())
