"""Patching and its undoing."""

from __future__ import annotations

from typing import Any

from .classes import Fused, fused_class, own_class
from .fused import (
    STATE,
    FusedClassificationHead,
    FusedHead,
    FusedRegressionHead,
    FusedRetinaNet,
    PatchState,
)
from .recognition import is_retinanet, is_scripted_retinanet, reasons
from .report import PARTS, PatchReport


def patch(model: Any) -> PatchReport:
    """See `retina_ops.patch_torchvision`."""
    if is_scripted_retinanet(model):
        return PatchReport(left={"model": "it is in TorchScript: patch the model that it was made of"})
    _check(model, "patch_torchvision")
    left = reasons(model)
    replaced = tuple(part for part in PARTS if part not in left)
    if "model" in left or not {"loss", "post-processing"} & set(replaced):
        return PatchReport(left=left)
    setattr(model, STATE, PatchState(replaced))
    for module, added in _modules(model):
        kind: Any = type(module)
        module.__class__ = fused_class(added, kind)
    return PatchReport(replaced=replaced, left=left)


def unpatch(model: Any) -> PatchReport:
    """See `retina_ops.unpatch_torchvision`."""
    if is_scripted_retinanet(model):
        return PatchReport()
    _check(model, "unpatch_torchvision")
    if not isinstance(model, FusedRetinaNet):
        return PatchReport()
    modules = [module for module, _ in _modules(model)]
    head = modules[1]
    for module in modules:
        if isinstance(module, Fused) and "_patched" not in vars(type(module)):
            raise RuntimeError(
                f"unpatch_torchvision: the class of a patched module was changed to {type(module).__qualname__}; "
                "undo that first"
            )
    patched = [module for module in modules if isinstance(module, Fused)]  # others may have taken a head's place
    for module in patched:
        module.__class__ = own_class(module)
    parts = vars(model).pop(STATE).replaced
    return PatchReport(restored=tuple(part for part in parts if part != "head" or head in patched))


def _modules(model: Any) -> tuple[tuple[Any, Any], ...]:
    head = model.head
    return (
        (model, FusedRetinaNet),
        (head, FusedHead),
        (getattr(head, "classification_head", None), FusedClassificationHead),
        (getattr(head, "regression_head", None), FusedRegressionHead),
    )


def _check(model: Any, function: str) -> None:
    if is_retinanet(model):
        return
    inside = next((name for name in ("module", "_orig_mod") if is_retinanet(getattr(model, name, None))), None)
    hint = f"; patch the model inside it: model.{inside}" if inside else ""
    raise TypeError(
        f"{function}: expected a torchvision RetinaNet, got {type(model).__module__}.{type(model).__qualname__}{hint}"
    )
