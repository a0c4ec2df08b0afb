"""What patching adds to the classes of torchvision's FCOS, SSD, and Faster, Mask and Keypoint R-CNN.

The added methods run torchvision's own code with other helpers, see `helpers`. A method that a subclass overrides, or
that was monkeypatched, before or after patching, is called as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import nn
from torchvision.models.detection import _utils, fcos, generalized_rcnn, roi_heads, rpn, ssd
from torchvision.ops import boxes as torchvision_boxes

from ..ops.focal_loss import sigmoid_focal_loss
from ..ops.iou_losses import generalized_box_iou_loss
from .classes import Fused, fused_class, own_class
from .helpers import BoxFunctions, FusedBoxCoder, FusedMatcher, Overlaps, has_stock_boxes
from .stock import is_torchvisions, rebound, unwrapped

_BOXES, _LAZY_BOXES = BoxFunctions(), BoxFunctions(lazy=True)
DETECTORS = (fcos.FCOS, ssd.SSD, generalized_rcnn.GeneralizedRCNN)


def _fast(kind: type, name: str, helpers: Callable[[Any], dict[str, Any]], *choices: dict[str, Any]) -> Any:
    """A method for an added class: torchvision's code of the method with the helpers that `helpers` gives at a call.

    Args:
        kind: torchvision's class.
        name: of the method.
        helpers: the helpers of a call, one of `choices`, from the module.
        choices: all that it may give.
    """
    stock = getattr(kind, name)
    copies = {id(choice): rebound(stock, choice) for choice in choices} if is_torchvisions(stock) else {}

    def method(self: Any, *arguments: Any, **options: Any) -> Any:
        current = getattr(type(self)._patched, name)
        box_ops = stock.__globals__.get("box_ops", torchvision_boxes)
        if current is not stock or box_ops is not torchvision_boxes or not copies:
            return current(self, *arguments, **options)
        return copies[id(helpers(self))](self, *arguments, **options)

    method.__name__, method.__doc__ = name, stock.__doc__
    return method


_SUPPRESSION = {"box_ops": _BOXES}
_MATCHING = {"box_ops": _LAZY_BOXES}


def _matching(module: Any) -> dict[str, Any]:
    return _MATCHING if isinstance(module.proposal_matcher, FusedMatcher) else _SUPPRESSION


def _suppression(module: Any) -> dict[str, Any]:
    return _SUPPRESSION


class FusedFCOS(Fused):
    postprocess_detections = _fast(fcos.FCOS, "postprocess_detections", _suppression, _SUPPRESSION)


_FOCAL, _GIOU = unwrapped(fcos.sigmoid_focal_loss), unwrapped(fcos.generalized_box_iou_loss)


def _focal_loss(inputs: Any, targets: Any, *arguments: Any, **options: Any) -> Any:
    current = unwrapped(fcos.sigmoid_focal_loss)
    is_stock = current is _FOCAL and is_torchvisions(current)
    return (sigmoid_focal_loss if is_stock else current)(inputs, targets, *arguments, **options)


def _giou_loss(boxes1: Any, boxes2: Any, *arguments: Any, **options: Any) -> Any:
    current = unwrapped(fcos.generalized_box_iou_loss)
    is_stock = current is _GIOU and is_torchvisions(current)
    return (generalized_box_iou_loss if is_stock else current)(boxes1, boxes2, *arguments, **options)


_LOSSES = {"sigmoid_focal_loss": _focal_loss, "generalized_box_iou_loss": _giou_loss}


class FusedFCOSHead(Fused):
    compute_loss = _fast(fcos.FCOSHead, "compute_loss", lambda head: _LOSSES, _LOSSES)


class FusedSSD(Fused):
    forward = _fast(ssd.SSD, "forward", _suppression, _SUPPRESSION)
    postprocess_detections = _fast(ssd.SSD, "postprocess_detections", _suppression, _SUPPRESSION)


class FusedRPN(Fused):
    filter_proposals = _fast(rpn.RegionProposalNetwork, "filter_proposals", _suppression, _SUPPRESSION)

    def assign_targets_to_anchors(self: Any, anchors: Any, targets: Any) -> Any:
        current = type(self)._patched.assign_targets_to_anchors
        is_lazy = (
            current is _ASSIGN
            and isinstance(self.proposal_matcher, FusedMatcher)
            and unwrapped(self.box_similarity) is unwrapped(torchvision_boxes.box_iou)
            and has_stock_boxes("box_iou")
        )
        return current(_WithOverlaps(self) if is_lazy else self, anchors, targets)


class _WithOverlaps:
    """A region proposal network whose ``box_similarity`` gives `Overlaps`, for the code of one method."""

    box_similarity = Overlaps

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


_ASSIGN = rpn.RegionProposalNetwork.assign_targets_to_anchors


class FusedRoIHeads(Fused):
    assign_targets_to_proposals = _fast(
        roi_heads.RoIHeads, "assign_targets_to_proposals", _matching, _MATCHING, _SUPPRESSION
    )
    postprocess_detections = _fast(roi_heads.RoIHeads, "postprocess_detections", _suppression, _SUPPRESSION)


class FusedRCNN(Fused):
    """Marks a model; its parts are patched."""


# torchvision's class, what its class gets, the part of the patch that each method belongs to.
_ADDED: tuple[tuple[type, type, dict[str, str]], ...] = (
    (fcos.FCOS, FusedFCOS, {"postprocess_detections": "suppression"}),
    (fcos.FCOSHead, FusedFCOSHead, {"compute_loss": "loss"}),
    (ssd.SSD, FusedSSD, {"forward": "matching", "postprocess_detections": "suppression"}),
    (
        rpn.RegionProposalNetwork,
        FusedRPN,
        {"filter_proposals": "suppression", "assign_targets_to_anchors": "matching"},
    ),
    (
        roi_heads.RoIHeads,
        FusedRoIHeads,
        {"postprocess_detections": "suppression", "assign_targets_to_proposals": "matching"},
    ),
    (generalized_rcnn.GeneralizedRCNN, FusedRCNN, {}),
)
# Plain objects that a module holds, their class, what it gets, the part of the patch.
_HELPERS: tuple[tuple[str, type, type, str], ...] = (
    ("proposal_matcher", _utils.Matcher, FusedMatcher, "matching"),
    ("box_coder", _utils.BoxCoder, FusedBoxCoder, "box coding"),
)


def patch_detector(model: nn.Module) -> tuple[tuple[str, ...], dict[str, str]]:
    """Patches the modules of a model in place, and the matchers and box coders that they hold.

    Returns:
        The parts that were replaced; and for each method, matcher or box coder that was left alone the reason.
    """
    replaced: set[str] = set()
    left: dict[str, str] = {}
    for path, module in _modules(model):
        for kind, added, methods in _ADDED:
            if not isinstance(module, kind) or isinstance(module, Fused):
                continue
            for name, part in methods.items():
                reason = _why_left(module, kind, name)
                if reason is None:
                    replaced.add(part)
                else:
                    left[f"{path}.{name}"] = reason
            for name, helper_kind, helper_added, part in _HELPERS:
                helper: Any = module.__dict__.get(name)
                own: Any = type(helper)
                if own is helper_kind:
                    helper.__class__ = fused_class(helper_added, own)
                    replaced.add(part)
                elif helper is not None and not isinstance(helper, (Fused, _utils.SSDMatcher, _utils.BoxLinearCoder)):
                    left[f"{path}.{name}"] = (
                        f"it is {type(helper).__qualname__}, not torchvision's {helper_kind.__name__}"
                    )
            whole: Any = type(module)
            module.__class__ = fused_class(added, whole)
    parts = tuple(part for part in ("matching", "box coding", "suppression", "loss") if part in replaced)
    vars(model)["_retina_ops"] = parts
    return parts, left


def unpatch_detector(model: nn.Module) -> tuple[str, ...]:
    """Gives every module, matcher and box coder the class that it had. Returns the parts that were restored.

    Raises:
        RuntimeError: the class of a patched module was changed since.
    """
    for path, module in _modules(model):
        if isinstance(module, Fused) and "_patched" not in vars(type(module)):
            raise RuntimeError(
                f"unpatch_torchvision: the class of {path} was changed to {type(module).__qualname__}; undo that first"
            )
    restored = vars(model).pop("_retina_ops")
    for _, module in _modules(model):
        for name, *_ in _HELPERS:
            helper = module.__dict__.get(name)
            if isinstance(helper, Fused):
                helper.__class__ = own_class(type(helper))
        if isinstance(module, Fused):
            module.__class__ = own_class(type(module))
    return tuple(restored)


def _modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, module in list(model.named_modules()):
        yield (f"model.{name}" if name else "model"), module


def _why_left(module: nn.Module, kind: type, name: str) -> str | None:
    """Why a method is not replaced: None where it is torchvision's."""
    method = module.__dict__.get(name, getattr(type(module), name))
    if method is getattr(kind, name) and is_torchvisions(method):
        return None
    where = getattr(method, "__globals__", {}).get("__name__", type(method).__module__)
    return f"it is {getattr(method, '__qualname__', repr(method))} of {where}, not torchvision's"
