"""torchvision's RetinaNet with the fused loss and post-processing, in place. torchvision is imported when used."""

from __future__ import annotations

from typing import Any

from .report import PatchReport

__all__ = ["PatchReport", "patch_torchvision", "unpatch_torchvision"]


def patch_torchvision(model: Any) -> PatchReport:
    """Makes a torchvision ``RetinaNet`` faster in place: fused loss and post-processing, anchors that are kept.

    Its weights, settings and interface stay: the same state dict, losses and detections but for
    ``docs/differences.md``. Settings such as ``score_thresh``, ``head.regression_head._loss_type`` or the thresholds
    of ``proposal_matcher`` are read at each call and may be changed later. The patched model can be trained, compiled,
    wrapped in ``DistributedDataParallel``, copied and pickled; pickles need retina_ops where they are read.

    What is replaced: the classes of the model, its head and both subnets become subclasses of their own, whose
    ``forward`` hands the maps of the levels to :func:`retinanet_loss` and :func:`postprocess`. What is not
    recognised is left alone and named with the reason: a method that a subclass or a monkeypatch overrides, a
    function of torchvision that such a method calls and that is no longer torchvision's, another head, matcher or
    box coder, forward hooks on a part that is replaced, more than 8 levels, a model in TorchScript, one that is
    patched already.

    The same is looked at in each call, and what was changed after patching raises RuntimeError: a head or such a
    change comes before patching, or between :func:`unpatch_torchvision` and patching again. Anchors of a generator
    that was changed, or has hooks, are the generator's own; post-processing is torchvision's where ``topk_candidates``
    asks CUDA to sort more than 65,536 scores of a level. Not noticed are: changes further down, in what those
    functions of torchvision call in turn; ``forward`` replaced on the instance of a patched head; hooks for all
    modules, which see no call of the anchor generator; and all but another head and hooks of the anchor generator
    in a model that ``torch.compile`` compiled.

    Args:
        model: a ``torchvision.models.detection.RetinaNet``, v1 or v2, or a subclass.

    Returns:
        What was replaced and what was left alone; ``print`` shows it.

    Raises:
        TypeError: a model that is no torchvision RetinaNet.
        ImportError: there is no torchvision.

    Example:
        >>> from torchvision.models.detection import retinanet_resnet50_fpn
        >>> from retina_ops import patch_torchvision
        >>> model = retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=5)
        >>> print(patch_torchvision(model))
        replaced: head, loss, post-processing, anchors
    """
    from .patch import patch

    return patch(model)


def unpatch_torchvision(model: Any) -> PatchReport:
    """Takes :func:`patch_torchvision` back; the model is as it was, with the weights that it has now.

    Args:
        model: a ``torchvision.models.detection.RetinaNet``.

    Returns:
        What was taken back; nothing where the model is not patched.

    Raises:
        TypeError: a model that is no torchvision RetinaNet.
        RuntimeError: its class was changed since (by ``fully_shard``, for one): undo that first.

    Example:
        >>> from torchvision.models.detection import retinanet_resnet50_fpn
        >>> from retina_ops import patch_torchvision, unpatch_torchvision
        >>> model = retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=5)
        >>> report = patch_torchvision(model)
        >>> print(unpatch_torchvision(model))
        restored: head, loss, post-processing, anchors
    """
    from .patch import unpatch

    return unpatch(model)
