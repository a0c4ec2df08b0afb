"""Which parts of a torchvision RetinaNet compute what the fused operators compute."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torchvision.models.detection import retinanet
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator

from ..anchor_cache import has_torchvision_grid
from .fused import Fused, FusedRetinaNet

BOX_LOSSES = ("l1", "smooth_l1", "giou", "diou", "ciou")
_CLIP = math.log(1000.0 / 16)  # largest log of a decoded side over its anchor's: torchvision's default, and ours


def reasons(model: nn.Module) -> dict[str, str]:
    """Why parts of the model must be left alone: empty where all can be replaced, "model" where none can."""
    whole = _of_model(model) or _of_heads(model.head)
    if whole:
        return {"model": whole}
    found = {"loss": _of_loss(model), "post-processing": _of_postprocess(model), "anchors": _of_anchors(model)}
    return {part: reason for part, reason in found.items() if reason}


def _of_model(model: Any) -> str | None:
    if isinstance(model, FusedRetinaNet):
        return "it is patched already"
    if not isinstance(model.head, retinanet.RetinaNetHead):
        return f"the head is {_name(model.head)}, not torchvision's RetinaNetHead"
    if not isinstance(model.anchor_generator, AnchorGenerator):
        return f"the anchor generator is {_name(model.anchor_generator)}, not torchvision's AnchorGenerator"
    generator = _overridden(model.anchor_generator, AnchorGenerator, ("forward",))
    return generator or _overridden(model, retinanet.RetinaNet, ("forward",))


def _of_heads(head: Any) -> str | None:
    subnets = (
        ("classification head", head.classification_head, retinanet.RetinaNetClassificationHead),
        ("regression head", head.regression_head, retinanet.RetinaNetRegressionHead),
    )
    for name, subnet, kind in subnets:
        if not isinstance(subnet, kind):
            return f"the {name} is {_name(subnet)}, not torchvision's {kind.__name__}"
    for module, kind in ((head, retinanet.RetinaNetHead), *((subnet, kind) for _, subnet, kind in subnets)):
        if isinstance(module, Fused):
            return "its head is that of another model, which is patched"
        if reason := _overridden(module, kind, ("forward",)) or _hooked(module):
            return reason
    return None


def _of_loss(model: Any) -> str | None:
    head = model.head
    for module, kind in (
        (model, retinanet.RetinaNet),
        (head, retinanet.RetinaNetHead),
        (head.classification_head, retinanet.RetinaNetClassificationHead),
        (head.regression_head, retinanet.RetinaNetRegressionHead),
    ):
        if reason := _overridden(module, kind, ("compute_loss",)):
            return reason
    if type(model.proposal_matcher) is not Matcher:
        return f"the matcher is {_name(model.proposal_matcher)}, not torchvision's Matcher"
    if reason := _overridden(model.proposal_matcher, Matcher, ("__call__", "set_low_quality_matches_")):
        return reason
    if head.classification_head.BETWEEN_THRESHOLDS != Matcher.BETWEEN_THRESHOLDS:
        return f"BETWEEN_THRESHOLDS of the classification head is {head.classification_head.BETWEEN_THRESHOLDS}"
    if head.regression_head._loss_type not in BOX_LOSSES:
        return f"the box loss {head.regression_head._loss_type!r} is none of {', '.join(BOX_LOSSES)}"
    return _of_coder("of the regression head", head.regression_head.box_coder)


def _of_postprocess(model: Any) -> str | None:
    reason = _overridden(model, retinanet.RetinaNet, ("postprocess_detections",))
    return reason or _of_coder("of the model", model.box_coder)


def _of_anchors(model: Any) -> str | None:
    generator = model.anchor_generator
    if not has_torchvision_grid(generator):
        return f"{_name(generator)} overrides the grid of torchvision's AnchorGenerator"
    if any(name in vars(generator) for name in ("grid_anchors", "set_cell_anchors")):
        return "a method of the anchor generator is replaced on the instance"
    return _hooked(generator)


def _of_coder(where: str, coder: Any) -> str | None:
    if type(coder) is not BoxCoder:
        return f"the box coder {where} is {_name(coder)}, not torchvision's BoxCoder"
    if not math.isclose(coder.bbox_xform_clip, _CLIP):
        return f"the box coder {where} clips at {coder.bbox_xform_clip}, not log(1000 / 16)"
    return _overridden(coder, BoxCoder, ("encode_single", "decode_single"))


def _overridden(thing: Any, kind: type, methods: tuple[str, ...]) -> str | None:
    for method in methods:
        if getattr(type(thing), method) is not getattr(kind, method):
            return f"{_name(thing)} overrides {method}"
        if method in vars(thing):
            return f"{method} of {_name(thing)} is replaced on the instance"
    return None


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def _hooked(module: nn.Module) -> str | None:
    return f"{_name(module)} has hooks" if any(getattr(module, hooks) for hooks in _HOOKS) else None


def _name(thing: Any) -> str:
    return type(thing).__qualname__


def is_retinanet(model: Any) -> bool:
    """Is it torchvision's RetinaNet or a subclass of it?"""
    return isinstance(model, retinanet.RetinaNet)


def is_scripted_retinanet(model: Any) -> bool:
    """Was it made by ``torch.jit.script`` from one?"""
    return isinstance(model, torch.jit.ScriptModule) and getattr(model, "original_name", "") == "RetinaNet"
