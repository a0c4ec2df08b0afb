"""The loop that runs a detector over batches of images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
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
    with evaluation_mode(model):
        for images, belonging in batches:
            yield images, belonging, detect(model, images, context=context)


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode. Its training mode is restored afterwards."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def detect(
    model: nn.Module,
    images: Sequence[Tensor],
    *,
    context: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> list[dict[str, Tensor]]:
    """Detections of one batch of images ``[3, H, W]``, without gradients. The model is in evaluation mode."""
    device = next(model.parameters()).device
    with torch.inference_mode(), context():
        found: list[dict[str, Tensor]] = model([image.to(device, non_blocking=True) for image in images])
    return found
