"""The error for a label that is out of range: of torchvision's type, naming the target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from ..errors import TargetIndexError


def explain_labels(error: RuntimeError, targets: Sequence[Mapping[str, Any]], num_classes: int) -> NoReturn:
    """Raises the error of an operator again, naming the target if a label is out of range.

    Args:
        error: what the loss raised; on CPU it checks labels.
        targets: of the batch.
        num_classes: K; labels are 0..K-1.

    Raises:
        TargetIndexError: a label is out of range; also an IndexError, as in torchvision, and a RuntimeError.
    """
    if any(target["labels"].device.type != "cpu" for target in targets):
        raise error  # such a label raises nothing there
    for index, target in enumerate(targets):
        labels = target["labels"]
        wrong = labels[(labels < 0) | (labels >= num_classes)]
        if wrong.numel():
            message = f"labels of target {index} must be in [0, {num_classes}), got {int(wrong[0])} ({error})"
            raise TargetIndexError(message) from error
    raise error
