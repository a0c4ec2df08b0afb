"""Puts the operators of this package into torchvision's detection models. Imports torchvision only when called."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "PatchReport",
    "patch_torchvision",
    "patch_torchvision_ops",
    "unpatch_torchvision",
    "unpatch_torchvision_ops",
]


@dataclass(frozen=True)
class PatchReport:
    """What was replaced in a model, or restored, and what was left alone.

    Attributes:
        replaced: the parts that are fused now: of a RetinaNet "head", "loss", "post-processing" and "anchors", of other
            models "matching", "box coding", "suppression" and "loss".
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
    """Makes a torchvision detection model faster in place: RetinaNet, FCOS, SSD, Faster, Mask and Keypoint R-CNN.

    The model keeps its weights, settings and interface: the same state dict, losses and detections, except for what
    ``docs/differences.md`` lists. It can be trained, compiled, wrapped in ``DistributedDataParallel``, copied and
    pickled; reading the pickle needs retina_ops. Settings are read at each call.

    A **RetinaNet** gets the fused loss and post-processing, and cached anchors. The model, its head and the two heads
    inside it get subclasses of their classes, whose ``forward`` passes the maps of all levels to :func:`retinanet_loss`
    and :func:`postprocess`. A part is left alone, and the report says why, where a subclass, a monkeypatch or the
    instance overrides a method that would be replaced, where a torchvision function that such a method calls was
    replaced, or where the matcher or box coder is not torchvision's. The whole model is left alone with another head,
    hooks on a head, more than 8 levels, in TorchScript, or if already patched.

    Each call checks the same again and raises RuntimeError with the reason: such a change needs
    :func:`unpatch_torchvision` before or after it, and patching again. The anchor generator may change at any time:
    its own anchors are used where its methods were changed or it has hooks. On CUDA, post-processing is torchvision's
    where ``topk_candidates`` and the scores of a level are both above 65,536; so is the whole forward pass while hooks
    are registered for all modules. Not noticed are:

    - changes inside what those torchvision functions call in turn;
    - in a model compiled by ``torch.compile``, all changes but another head and hooks of the anchor generator.

    In the **other models** torchvision's own code runs, with :func:`match_anchors` for the matcher and its matrix of
    IoUs, :func:`encode_boxes` and :func:`decode_boxes` for the box coder, :func:`batched_nms`, and in FCOS
    :func:`sigmoid_focal_loss` and :func:`generalized_box_iou_loss`. Methods that are overridden or monkeypatched, and
    functions of torchvision that are, before or after patching, are called as they are.

    Args:
        model: one of these models of ``torchvision.models.detection``, or of a subclass.

    Returns:
        What was replaced and what was left alone; ``print`` shows it.

    Raises:
        TypeError: the model is none of these.
        ImportError: torchvision is not installed.

    Example:
        >>> from torchvision.models.detection import fasterrcnn_resnet50_fpn, retinanet_resnet50_fpn
        >>> from retina_ops import patch_torchvision
        >>> model = retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=5)
        >>> print(patch_torchvision(model))
        replaced: head, loss, post-processing, anchors
        >>> print(patch_torchvision(fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=5)))
        replaced: matching, box coding, suppression
    """
    from .classes import fused_class
    from .detectors import DETECTORS, patch_detector
    from .fused import PatchState, patched_modules
    from .recognition import check_model, reasons_before_patching, whole_model_reason

    check_model(model, "patch_torchvision")
    reason = whole_model_reason(model)
    if reason is not None:
        return PatchReport(left={"model": reason})
    if isinstance(model, DETECTORS):
        parts, left = patch_detector(model)
        return PatchReport(replaced=parts, left=left)
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
        model: a model that :func:`patch_torchvision` takes.

    Returns:
        What was restored; nothing where the model is not patched.

    Raises:
        TypeError: the model is not one of torchvision's.
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
    from .detectors import DETECTORS, unpatch_detector
    from .fused import patched_modules
    from .recognition import check_model

    check_model(model, "unpatch_torchvision")
    if not isinstance(model, Fused):
        return PatchReport()
    if isinstance(model, DETECTORS):
        return PatchReport(restored=unpatch_detector(model))
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


def patch_torchvision_ops(names: Collection[str] | None = None) -> PatchReport:
    """Replaces functions of ``torchvision.ops`` by those of this package, for all code of the process.

    It is for code that is not one's own: ``nms``, ``batched_nms``, ``box_iou`` and its kin, the IoU losses and
    ``sigmoid_focal_loss`` are replaced in every module that has imported them already, and in those that will. Results
    are those of the functions of the same names in this package: ``docs/differences.md``. Arguments that these do not
    support go to torchvision's functions: devices without kernels, quantized and sparse tensors, tensor subclasses,
    targets that require grad or are integers. So does TorchScript. Not replaced are ``torch.ops.torchvision.nms``,
    functions that were stored elsewhere than in a module, and what C++ calls.

    ``python -m retina_ops.patch script.py`` runs a script this way, without a change to it.

    Args:
        names: of the functions to replace; default all.

    Returns:
        The names of the functions that were replaced, and those left alone because something else replaced them.

    Raises:
        ValueError: a name that is none of these functions.
        ImportError: torchvision is not installed.

    Example:
        >>> import retina_ops
        >>> print(retina_ops.patch_torchvision_ops())  # doctest: +ELLIPSIS
        replaced: nms, batched_nms, box_iou, ...
        >>> restored = retina_ops.unpatch_torchvision_ops()
    """
    from .operators import replace_operators

    replaced, left = replace_operators(names)
    return PatchReport(replaced=replaced, left=left)


def unpatch_torchvision_ops(names: Collection[str] | None = None) -> PatchReport:
    """Undoes :func:`patch_torchvision_ops`, in every module that has the functions.

    Args:
        names: of the functions to restore; default all.

    Returns:
        The names of the functions that were restored; nothing where they were not replaced.

    Raises:
        ValueError: a name that is none of these functions.
        ImportError: torchvision is not installed.

    Example:
        >>> import retina_ops
        >>> report = retina_ops.patch_torchvision_ops()
        >>> print(retina_ops.unpatch_torchvision_ops())  # doctest: +ELLIPSIS
        restored: nms, batched_nms, box_iou, ...
    """
    from .operators import restore_operators

    return PatchReport(restored=restore_operators(names))
