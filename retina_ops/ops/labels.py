"""The error for a label that is out of range: of torchvision's type, naming the target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from ..errors import TargetIndexError


def explain_labels(error: RuntimeError, targets: Sequence[Mapping[str, Any]], num_classes: int) -> NoReturn:
    """Raises the error of an operator again, naming the target if its labels do not fit.

    Args:
        error: what the loss raised; on CPU it checks labels.
        targets: of the batch: ``boxes`` ``[n, 4]`` and ``labels``.
        num_classes: K; labels are 0..K-1.

    Raises:
        TargetIndexError: labels that are no integers, one for each box, or out of range on the CPU; also an IndexError,
            as in torchvision, and a RuntimeError.
    """
    for index, target in enumerate(targets):
        labels, boxes = target["labels"], target["boxes"]
        if labels.is_floating_point() or labels.is_complex() or labels.shape != boxes.shape[:1]:
            got = f"{labels.dtype} {list(labels.shape)}"
            raise TargetIndexError(
                f"labels of target {index} must be integers [{boxes.shape[0]}], got {got} ({error})"
            ) from error
        if labels.device.type != "cpu":
            continue  # a label that is out of range raises nothing there
        wrong = labels[(labels < 0) | (labels >= num_classes)]
        if wrong.numel():
            message = f"labels of target {index} must be in [0, {num_classes}), got {int(wrong[0])} ({error})"
            raise TargetIndexError(message) from error
    raise error
