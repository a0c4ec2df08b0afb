"""The loop that runs a detector over batches of images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

from ..errors import needs_extra

with needs_extra("models"):
    import torch
    from torch import Tensor, nn

T = TypeVar("T")


def detect_batches(
    model: nn.Module,
    batches: Iterable[tuple[Sequence[Tensor], T]],
    *,
    context: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Iterator[tuple[Sequence[Tensor], T, list[dict[str, Tensor]]]]:
    """Detections of each batch, in evaluation mode and without gradients.

    Args:
        model: takes a list of images ``[3, H, W]`` and returns a dict of detections for each. Its training mode is
            restored when the loop ends, also when it ends early.
        batches: images, and anything that belongs to them, such as their targets or paths.
        context: entered around each forward pass, such as an autocast.

    Yields:
        The images, what belongs to them, and for each image ``boxes`` ``[n, 4]``, ``scores`` ``[n]`` and ``labels``
        ``[n]`` on the model's device.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        for images, belonging in batches:
            with torch.inference_mode(), context():
                found = model([image.to(device, non_blocking=True) for image in images])
            yield images, belonging, found
    finally:
        model.train(was_training)
