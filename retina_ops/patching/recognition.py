"""Which parts of a torchvision RetinaNet compute what the fused operators compute."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torchvision.models.detection import _utils, retinanet
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import boxes

from ..ops.retinanet_loss import BOX_LOSSES
from .classes import Fused, own_class

MOST_LEVELS = 8  # kMaxLevels of csrc/common/head_levels.h
_CLIP = math.log(1000.0 / 16)  # largest log of a decoded side over its anchor's: torchvision's default, and ours
# Where the code of torchvision's functions is; those that trace into TorchScript are wrapped in torch's.
_HOMES = ("torchvision.", "torch.jit.")
_IOU_LOSSES = tuple(f"{kind}_box_iou_loss" for kind in ("generalized", "distance", "complete"))
# What the methods that are replaced call, where they look it up.
_LOSS_CALLS = (
    (retinanet, ("sigmoid_focal_loss", "_box_loss", "_sum")),
    (_utils, ("encode_boxes", *_IOU_LOSSES)),
    (boxes, ("box_iou",)),
)
_POSTPROCESS_CALLS = ((_utils, ("_topk_min",)), (boxes, ("clip_boxes_to_image", "batched_nms", "nms")))


def reasons(model: nn.Module) -> dict[str, str]:
    """Why parts of the model must be left alone: empty where all can be replaced, "model" where none can."""
    if isinstance(model, Fused):
        return {"model": "it is patched already"}
    whole = _of_model(model) or _of_heads(model.head) or _hooks_of_heads(model.head)
    if whole:
        return {"model": whole}
    found = {"loss": _of_loss(model), "post-processing": _of_postprocess(model), "anchors": of_anchors(model)}
    return {part: reason for part, reason in found.items() if reason}


def change(model: Any, replaced: tuple[str, ...]) -> str | None:
    """Why a patched model can no longer stand for torchvision's: what was changed in it; None where nothing was.

    Its heads are patched. Anchors are no matter: those of a changed generator are not taken from the cache.
    """
    reason = _of_model(model) or _of_heads(model.head)
    if not reason and "loss" in replaced:
        reason = _of_loss(model)
    if not reason and "post-processing" in replaced:
        reason = _of_postprocess(model)
    return reason


def _of_model(model: Any) -> str | None:
    if not isinstance(model.head, retinanet.RetinaNetHead):
        return f"the head is {_name(model.head)}, not torchvision's RetinaNetHead"
    generator = model.anchor_generator
    if not isinstance(generator, AnchorGenerator):
        return f"the anchor generator is {_name(generator)}, not torchvision's AnchorGenerator"
    if reason := _overridden(generator, AnchorGenerator, ("forward",)):
        return reason
    levels = len(getattr(generator, "cell_anchors", ()))  # a grid of one's own may need none
    if levels > MOST_LEVELS:
        return f"it has {levels} levels, the fused operators take {MOST_LEVELS}"
    return _overridden(model, retinanet.RetinaNet, ("forward",))


def _with_kinds(head: Any) -> tuple[tuple[Any, type], ...]:
    return (
        (head, retinanet.RetinaNetHead),
        (head.classification_head, retinanet.RetinaNetClassificationHead),
        (head.regression_head, retinanet.RetinaNetRegressionHead),
    )


def _of_heads(head: Any) -> str | None:
    _, *subnets = _with_kinds(head)
    for name, (subnet, kind) in zip(("classification head", "regression head"), subnets, strict=True):
        if not isinstance(subnet, kind):
            return f"the {name} is {_name(subnet)}, not torchvision's {kind.__name__}"
    return _first(_overridden(module, kind, ("forward",)) for module, kind in _with_kinds(head))


def _hooks_of_heads(head: Any) -> str | None:
    modules = [module for module, _ in _with_kinds(head)]
    if any(isinstance(module, Fused) for module in modules):
        return "its head is that of another model, which is patched"
    return _first(hooked(module) for module in modules)


def _of_loss(model: Any) -> str | None:
    head, matcher = model.head, model.proposal_matcher
    for module, kind in ((model, retinanet.RetinaNet), *_with_kinds(head)):
        if reason := _overridden(module, kind, ("compute_loss",)):
            return reason
    if type(matcher) is not Matcher:
        return f"the matcher is {_name(matcher)}, not torchvision's Matcher"
    if reason := _overridden(matcher, Matcher, ("__call__", "set_low_quality_matches_")):
        return reason
    for where, thing, name, value in (
        ("classification head", head.classification_head, "BETWEEN_THRESHOLDS", -2),
        ("matcher", matcher, "BETWEEN_THRESHOLDS", -2),
        ("matcher", matcher, "BELOW_LOW_THRESHOLD", -1),
    ):
        if getattr(thing, name) != value:
            return f"{name} of the {where} is {getattr(thing, name)}"
    if head.regression_head._loss_type not in BOX_LOSSES:
        return f"the box loss {head.regression_head._loss_type!r} is none of {', '.join(BOX_LOSSES)}"
    return _of_coder("of the regression head", head.regression_head.box_coder) or _of_calls(_LOSS_CALLS)


def _of_postprocess(model: Any) -> str | None:
    reason = _overridden(model, retinanet.RetinaNet, ("postprocess_detections",))
    return reason or _of_coder("of the model", model.box_coder) or _of_calls(_POSTPROCESS_CALLS)


def of_anchors(model: Any) -> str | None:
    """Why the model's anchors must come from its generator."""
    generator = model.anchor_generator
    return _overridden(generator, AnchorGenerator, ("grid_anchors", "set_cell_anchors")) or hooked(generator)


def _of_coder(where: str, coder: Any) -> str | None:
    if type(coder) is not BoxCoder:
        return f"the box coder {where} is {_name(coder)}, not torchvision's BoxCoder"
    if not math.isclose(coder.bbox_xform_clip, _CLIP):
        return f"the box coder {where} clips at {coder.bbox_xform_clip}, not log(1000 / 16)"
    return _overridden(coder, BoxCoder, ("encode_single", "decode_single"))


def _of_calls(calls: Iterable[tuple[Any, tuple[str, ...]]]) -> str | None:
    for module, names in calls:
        for name in names:
            if hasattr(module, name) and not _is_torchvisions(getattr(module, name)):
                return f"{module.__name__}.{name} is not torchvision's"
    return None


def _overridden(thing: Any, kind: type, methods: tuple[str, ...]) -> str | None:
    for method in methods:
        # `forward` of a patched module is ours; one on the instance calls it, or fails for the arguments we add.
        is_ours = method == "forward" and isinstance(thing, Fused)
        function = getattr(own_class(thing) if is_ours else type(thing), method)
        if function is not getattr(kind, method):
            return f"{_name(thing)} overrides {method}"
        if not _is_torchvisions(function):
            return f"{method} of {kind.__name__} is not torchvision's"
        if method in vars(thing) and not is_ours:
            return f"{method} of {_name(thing)} is replaced on the instance"
    return None


def _is_torchvisions(function: Any) -> bool:
    """Is its code torchvision's? Its name and ``__module__`` would be, too, after ``functools.wraps``."""
    return str(getattr(function, "__globals__", {}).get("__name__", "")).startswith(_HOMES)


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def hooked(module: nn.Module) -> str | None:
    """Says so where the module has hooks."""
    return f"{_name(module)} has hooks" if any(getattr(module, hooks) for hooks in _HOOKS) else None


def _first(found: Iterable[str | None]) -> str | None:
    return next((reason for reason in found if reason), None)


def _name(thing: Any) -> str:
    return own_class(thing).__qualname__


def is_retinanet(model: Any) -> bool:
    """Is it torchvision's RetinaNet or a subclass of it?"""
    return isinstance(model, retinanet.RetinaNet)


def is_scripted_retinanet(model: Any) -> bool:
    """Was it made by ``torch.jit.script`` from one?"""
    return isinstance(model, torch.jit.ScriptModule) and getattr(model, "original_name", "") == "RetinaNet"
