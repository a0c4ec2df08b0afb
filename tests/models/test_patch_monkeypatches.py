"""Functions of torchvision that were replaced: what calls them is left alone, and named."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
from models.pairs import tiny_batch, tiny_torchvision
from models.test_patch_changes import assert_same, patched
from torchvision.models.detection import RetinaNet, _utils, retinanet
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import boxes as box_ops

from retina_ops import patch_torchvision


def wrapped(owner: Any, name: str, change: Callable[[Any], Any]) -> Callable[..., Any]:
    """As a monkeypatch would be that takes the names of what it replaces."""
    function = getattr(owner, name)

    @functools.wraps(function)
    def changed(*arguments: Any, **options: Any) -> Any:
        return change(function(*arguments, **options))

    return changed


def doubled(result: Any) -> Any:
    return {name: 2 * value for name, value in result.items()} if isinstance(result, dict) else 2 * result


# Each: whose attribute is replaced, what is done to its result, the part that is left alone, the reason.
MONKEYPATCHES: dict[str, tuple[Any, str, Callable[[Any], Any], str, str]] = {
    "loss": (RetinaNet, "compute_loss", doubled, "loss", "compute_loss of RetinaNet is not torchvision's"),
    "loss of a subnet": (
        retinanet.RetinaNetClassificationHead,
        "compute_loss",
        doubled,
        "loss",
        "compute_loss of RetinaNetClassificationHead is not torchvision's",
    ),
    "post-processing": (
        RetinaNet,
        "postprocess_detections",
        lambda found: [{name: rows[1:] for name, rows in image.items()} for image in found],
        "post-processing",
        "postprocess_detections of RetinaNet is not torchvision's",
    ),
    "focal loss": (
        retinanet,
        "sigmoid_focal_loss",
        doubled,
        "loss",
        "torchvision.models.detection.retinanet.sigmoid_focal_loss is not torchvision's",
    ),
    "encoding": (
        _utils,
        "encode_boxes",
        doubled,
        "loss",
        "torchvision.models.detection._utils.encode_boxes is not torchvision's",
    ),
    "matcher": (Matcher, "__call__", lambda found: found.clamp(max=0), "loss", "__call__ of Matcher is not torch"),
    "suppression": (
        box_ops,
        "batched_nms",
        lambda kept: kept[1:],
        "post-processing",
        "torchvision.ops.boxes.batched_nms is not torchvision's",
    ),
    "grid": (
        AnchorGenerator,
        "grid_anchors",
        lambda levels: [level + 3 for level in levels],
        "anchors",
        "grid_anchors of AnchorGenerator is not torchvision's",
    ),
    "forward": (RetinaNet, "forward", lambda result: result, "model", "forward of RetinaNet is not torchvision's"),
    "forward of a subnet": (
        retinanet.RetinaNetRegressionHead,
        "forward",
        doubled,
        "model",
        "forward of RetinaNetRegressionHead is not torchvision's",
    ),
}


@pytest.mark.parametrize("case", MONKEYPATCHES)
def test_what_is_monkeypatched_is_left_alone(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name, change, part, reason = MONKEYPATCHES[case]
    monkeypatch.setattr(owner, name, wrapped(owner, name, change))
    model, stock = tiny_torchvision(), tiny_torchvision()
    report = patch_torchvision(model)
    assert list(report.left) == [part] and report.left[part].startswith(reason)
    assert_same(model, stock)


@pytest.mark.parametrize("case", [name for name in MONKEYPATCHES if name not in ("grid", "forward")])
def test_rejects_a_monkeypatch_after_patching(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name, change, _, reason = MONKEYPATCHES[case]
    model = patched()
    monkeypatch.setattr(owner, name, wrapped(owner, name, change))
    with pytest.raises(RuntimeError, match=f"the model was changed after it was patched: {reason}"):
        model(*tiny_batch())
