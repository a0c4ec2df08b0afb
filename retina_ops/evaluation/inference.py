"""Detections of a model on a data set, on one process or several."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from .._defaults import standard_defaults
from ..data.dataset import DetectionDataset
from ..data.loading import detection_loader, shard_indices
from ..errors import needs_extra
from ..inference import detect_batches
from .evaluator import CocoEvaluator

with needs_extra("train"):
    from torch import nn


@standard_defaults()
def detect_dataset(
    model: nn.Module,
    dataset: DetectionDataset,
    *,
    batch_size: int = 8,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    context: Callable[[], AbstractContextManager[object]] = nullcontext,
    progress: Callable[[int, int], None] | None = None,
) -> CocoEvaluator:
    """The detections of a model on a data set, ready to `compute`.

    Args:
        model: takes a list of images and returns detections; its training mode is restored afterwards.
        dataset: with the model's categories.
        batch_size: images that pass through the model together.
        workers: processes that load images.
        rank, world_size: this process and the number of processes; each evaluates its share of the images.
        context: entered around each forward pass, such as an autocast.
        progress: called with (images done, images in all) of this process.
    """
    evaluator = CocoEvaluator(dataset)
    share = shard_indices(len(dataset), rank, world_size)
    batches = [share[start : start + batch_size] for start in range(0, len(share), batch_size)]
    done = 0
    loader = detection_loader(dataset, batches, workers=workers)
    for images, targets, found in detect_batches(model, loader, context=context):
        evaluator.update(targets, found)
        done += len(images)
        if progress is not None:
            progress(done, len(share))
    return evaluator
