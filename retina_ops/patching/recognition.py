"""Which parts of a torchvision RetinaNet compute what the fused operators compute: asked by patching and each call."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import nn
from torchvision.models.detection import _utils, retinanet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import boxes

from .classes import Fused, own_class
from .detectors import DETECTORS
from .hooks import has_hooks
from .stock import is_torchvisions

MOST_LEVELS = 8  # kMaxLevels of csrc/common/head_levels.h
_BOX_LOSSES = ("l1", "smooth_l1", "giou", "diou", "ciou")
_CLIP = (math.log(1000.0 / 16),)  # torchvision's default; the fused operators clip at no other

# The methods that the fused operators stand for, and the part of the patch that replaces each.
_MODEL = {"forward": "model", "compute_loss": "loss", "postprocess_detections": "post-processing"}
_HEAD = {"forward": "model", "compute_loss": "loss"}
_GENERATOR = {"forward": "model", "grid_anchors": "anchors", "set_cell_anchors": "anchors"}
_MATCHER = {"__call__": "loss", "set_low_quality_matches_": "loss"}
_LOSS_CODER = {"encode_single": "loss", "decode_single": "loss"}
_CODER = {"decode_single": "post-processing"}
# The objects of a model: class, methods, and attributes with the values that the part of the last method knows.
_OBJECTS: dict[str, tuple[type, dict[str, str], dict[str, tuple[Any, ...]]]] = {
    "model.head": (retinanet.RetinaNetHead, _HEAD, {}),
    "model.head.classification_head": (retinanet.RetinaNetClassificationHead, _HEAD, {"BETWEEN_THRESHOLDS": (-2,)}),
    "model.head.regression_head": (retinanet.RetinaNetRegressionHead, _HEAD, {"_loss_type": _BOX_LOSSES}),
    "model.anchor_generator": (AnchorGenerator, _GENERATOR, {}),
    "model": (retinanet.RetinaNet, _MODEL, {}),
    "model.proposal_matcher": (_utils.Matcher, _MATCHER, {"BETWEEN_THRESHOLDS": (-2,), "BELOW_LOW_THRESHOLD": (-1,)}),
    "model.head.regression_head.box_coder": (_utils.BoxCoder, _LOSS_CODER, {"bbox_xform_clip": _CLIP}),
    "model.box_coder": (_utils.BoxCoder, _CODER, {"bbox_xform_clip": _CLIP}),
}
# The functions that these methods call: the module in which they look a function up, its name, the part of the patch.
_FUNCTIONS = [
    (module, name, part)
    for module, part, names in (
        (retinanet, "loss", "sigmoid_focal_loss _box_loss _sum"),
        (_utils, "loss", "encode_boxes generalized_box_iou_loss distance_box_iou_loss complete_box_iou_loss"),
        (boxes, "loss", "box_iou"),
        (_utils, "post-processing", "_topk_min"),
        (boxes, "post-processing", "clip_boxes_to_image batched_nms nms"),
    )
    for name in names.split()
    if hasattr(module, name)  # not every torchvision has all of them
]


def fingerprint(model: Any) -> list[Any]:
    """All that must be torchvision's, read in one pass in the order of `_ROWS`."""
    found = [getattr(module, name) for module, name, _ in _FUNCTIONS]
    modules = model._modules  # ten times faster than attributes of a module
    head, generator = modules.get("head"), modules.get("anchor_generator")
    heads = getattr(head, "_modules", {})
    classification, regression = heads.get("classification_head"), heads.get("regression_head")
    coder = getattr(regression, "box_coder", None)
    objects = (head, classification, regression, generator, model, model.proposal_matcher, coder, model.box_coder)
    for thing, (_, methods, values) in zip(objects, _OBJECTS.values(), strict=True):
        found.append(type(thing))
        kind = own_class(type(thing))
        attributes = getattr(thing, "__dict__", {})
        if isinstance(thing, Fused):
            attributes = {**attributes, "forward": kind.forward}  # one that is set on the instance later is called
        for name in methods:
            found.append(attributes.get(name, getattr(kind, name, None)))
        for name in values:
            found.append(getattr(thing, name, None))
    return found


def reasons(found: list[Any]) -> dict[str, str]:
    """Why parts must be left alone, from a fingerprint: empty where all can be replaced, "model" where none can."""
    left: dict[str, str] = {}
    for (part, label, expected, is_expected), value in zip(_ROWS, found, strict=True):
        if part not in left and not is_expected(value):
            left[part] = f"{label} is {_describe(value)}, not torchvision's {expected}"
    return {"model": left["model"]} if "model" in left else left


def _is_class(kind: type, value: Any) -> bool:
    """Modules may be of a subclass."""
    own = own_class(value)
    return own is kind or (issubclass(own, kind) and issubclass(own, nn.Module))


def _is_method(kind: type, name: str, value: Any) -> bool:
    return value is getattr(kind, name) and is_torchvisions(value)


def _describe(value: Any) -> str:
    if isinstance(value, FunctionType):
        return f"{value.__qualname__} of {value.__globals__['__name__']}"
    return str(own_class(value).__qualname__) if isinstance(value, type) else repr(value)


# What `fingerprint` reads, in order: the part of the patch, how a reason calls it, what is expected, the test for it.
_ROWS: list[tuple[str, str, str, Callable[[Any], bool]]] = [
    (part, f"{module.__name__}.{name}", name, is_torchvisions) for module, name, part in _FUNCTIONS
]
for _label, (_kind, _methods, _values) in _OBJECTS.items():
    _parts = list(_methods.values())
    _ROWS.append((_parts[0], _label, _kind.__name__, partial(_is_class, _kind)))
    for _name, _part in _methods.items():
        _ROWS.append((_part, f"{_label}.{_name}", f"{_kind.__name__}.{_name}", partial(_is_method, _kind, _name)))
    for _name, _known in _values.items():
        _ROWS.append((_parts[-1], f"{_label}.{_name}", " or ".join(map(str, _known)), _known.__contains__))


def whole_model_reason(model: Any) -> str | None:
    """Why no part of a model of any kind can be patched: None where it is neither patched nor in TorchScript."""
    if isinstance(model, torch.jit.ScriptModule):
        return "it is in TorchScript: patch the model that it was made of"
    return "it is patched already" if isinstance(model, Fused) else None


def reasons_before_patching(model: Any) -> dict[str, str]:
    """`reasons`, and those that count only while the model is not patched."""
    left = reasons(fingerprint(model))
    if "model" in left:
        return left
    levels = len(getattr(model.anchor_generator, "cell_anchors", ()))  # a subclass with its own grid may have none
    if levels > MOST_LEVELS:
        return {"model": f"it has {levels} levels, the fused operators take {MOST_LEVELS}"}
    for name in ("head", "head.classification_head", "head.regression_head"):
        head = model.get_submodule(name)
        if isinstance(head, Fused):
            return {"model": "its head belongs to another model, which is patched"}
        if has_hooks(head):
            return {"model": f"model.{name} has hooks"}
    if has_hooks(model.anchor_generator):
        left.setdefault("anchors", "model.anchor_generator has hooks")
    return left


def check_model(model: Any, function: str) -> None:
    """Raises TypeError unless the model is one of torchvision's detection models, maybe in TorchScript."""
    if is_torchvision_model(model):
        return
    inside = [name for name in ("module", "_orig_mod") if is_torchvision_model(getattr(model, name, None))]
    hint = f"; patch the model inside it: model.{inside[0]}" if inside else ""
    if getattr(model, "has_fused_operators", False):
        hint = "; it has the fused operators already"
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    raise TypeError(
        f"{function}: expected a torchvision {' or '.join((', '.join(_NAMES[:-1]), _NAMES[-1]))}, got {kind}{hint}"
    )


_NAMES = ("RetinaNet", "FCOS", "SSD", "FasterRCNN", "MaskRCNN", "KeypointRCNN")


def is_torchvision_model(model: Any) -> bool:
    """Whether a model is a detection model of torchvision, or one made from it in TorchScript."""
    is_ours = getattr(model, "has_fused_operators", False)
    is_scripted = isinstance(model, torch.jit.ScriptModule) and getattr(model, "original_name", "") in _NAMES
    return (isinstance(model, (retinanet.RetinaNet, *DETECTORS)) and not is_ours) or is_scripted
