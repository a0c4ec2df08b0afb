"""Puts the fused loss and post-processing into a torchvision RetinaNet. Imports torchvision only when it is called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["PatchReport", "patch_torchvision", "unpatch_torchvision"]


@dataclass(frozen=True)
class PatchReport:
    """What was replaced in a model, or restored, and what was left alone.

    Attributes:
        replaced: the parts that are fused now, of "head", "loss", "post-processing" and "anchors".
        restored: the parts that are torchvision's again.
        left: each part that was left alone, or "model" for all of them, and the reason.
    """

    replaced: tuple[str, ...] = ()
    restored: tuple[str, ...] = ()
    left: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        done = (("replaced", self.replaced), ("restored", self.restored))
        lines = [f"{name}: {', '.join(parts)}" for name, parts in done if parts]
        lines += [f"left alone: {part}: {reason}" for part, reason in self.left.items()]
        return "\n".join(lines) or "nothing to do"


def patch_torchvision(model: Any) -> PatchReport:
    """Makes a torchvision ``RetinaNet`` faster in place: fused loss and post-processing, and cached anchors.

    The model keeps its weights, settings and interface: the same state dict, losses and detections, except for what
    ``docs/differences.md`` lists. It can be trained, compiled, wrapped in ``DistributedDataParallel``, copied and
    pickled; reading the pickle needs retina_ops. Settings are read at each call: ``score_thresh``, ``nms_thresh``,
    ``detections_per_img``, ``topk_candidates``, the thresholds of ``proposal_matcher``, the weights of the box coders
    and ``head.regression_head._loss_type``.

    The model, its head and the two heads inside it get subclasses of their classes, whose ``forward`` passes the maps
    of all levels to :func:`retinanet_loss` and :func:`postprocess`. A part is left alone, and the report says why,
    where a subclass, a monkeypatch or the instance overrides a method that would be replaced, where a torchvision
    function that such a method calls was replaced, or where the matcher or box coder is not torchvision's. The whole
    model is left alone with another head, hooks on a head, more than 8 levels, in TorchScript, or if already patched.

    Each call checks the same again and raises RuntimeError with the reason: such a change needs
    :func:`unpatch_torchvision` before or after it, and patching again. The anchor generator may change at any time:
    its own anchors are used where its methods were changed or it has hooks. On CUDA, post-processing is torchvision's
    where ``topk_candidates`` and the scores of a level are both above 65,536. Not noticed are:

    - changes inside what those torchvision functions call in turn;
    - hooks registered for all modules: anchors from the cache come without a call of the anchor generator;
    - in a model compiled by ``torch.compile``, all changes but another head and hooks of the anchor generator.

    Args:
        model: a ``torchvision.models.detection.RetinaNet``, v1 or v2, or a subclass.

    Returns:
        What was replaced and what was left alone; ``print`` shows it.

    Raises:
        TypeError: the model is not a torchvision RetinaNet.
        ImportError: torchvision is not installed.

    Example:
        >>> from torchvision.models.detection import retinanet_resnet50_fpn
        >>> from retina_ops import patch_torchvision
        >>> model = retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=5)
        >>> print(patch_torchvision(model))
        replaced: head, loss, post-processing, anchors
    """
    from .classes import fused_class
    from .fused import PatchState, patched_modules
    from .recognition import check_retinanet, reasons_before_patching

    check_retinanet(model, "patch_torchvision")
    left = reasons_before_patching(model)
    replaced = tuple(part for part in ("head", "loss", "post-processing", "anchors") if part not in left)
    if "model" in left or not {"loss", "post-processing"} & set(replaced):
        return PatchReport(left=left)
    model._retina_ops = PatchState(replaced)
    for module, added in patched_modules(model):
        kind: Any = type(module)
        module.__class__ = fused_class(added, kind)
    return PatchReport(replaced=replaced, left=left)


def unpatch_torchvision(model: Any) -> PatchReport:
    """Undoes :func:`patch_torchvision`: the model is as it was, with the weights that it has now.

    Args:
        model: a ``torchvision.models.detection.RetinaNet``.

    Returns:
        What was restored; nothing where the model is not patched.

    Raises:
        TypeError: the model is not a torchvision RetinaNet.
        RuntimeError: the class of a patched module was changed since (by ``fully_shard``, for one): undo that first.

    Example:
        >>> from torchvision.models.detection import retinanet_resnet50_fpn
        >>> from retina_ops import patch_torchvision, unpatch_torchvision
        >>> model = retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=5)
        >>> report = patch_torchvision(model)
        >>> print(unpatch_torchvision(model))
        restored: head, loss, post-processing, anchors
    """
    from .classes import Fused, own_class
    from .fused import patched_modules
    from .recognition import check_retinanet

    check_retinanet(model, "unpatch_torchvision")
    if not isinstance(model, Fused):
        return PatchReport()
    modules = patched_modules(model)
    patched = [module for module, added in modules if isinstance(module, added)]
    for module in patched:
        if "_patched" not in vars(type(module)):
            raise RuntimeError(
                f"unpatch_torchvision: the class of a patched module was changed to {type(module).__qualname__}; "
                "undo that first"
            )
    for module in patched:
        module.__class__ = own_class(type(module))
    parts = vars(model).pop("_retina_ops").replaced
    head = modules[1][0]  # another one may have taken its place
    return PatchReport(restored=tuple(part for part in parts if part != "head" or head in patched))
