"""A model over a data set: detections for the evaluator, shared among processes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from ..data.dataset import DetectionDataset
from ..data.loading import detection_loader, shard_indices
from ..errors import needs_extra
from .evaluator import CocoEvaluator

with needs_extra("train"):
    import torch
    from torch import nn


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
        rank, world_size: this process and the number of processes: each takes a share of the images.
        context: entered around each forward pass, such as an autocast.
        progress: called with (images done, images in all) of this process.
    """
    evaluator = CocoEvaluator(dataset)
    mine = shard_indices(len(dataset), rank, world_size)
    batches = [mine[start : start + batch_size] for start in range(0, len(mine), batch_size)]
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    done = 0
    try:
        for images, targets in detection_loader(dataset, batches, workers=workers):
            with torch.inference_mode(), context():
                evaluator.update(targets, model([image.to(device, non_blocking=True) for image in images]))
            done += len(images)
            if progress is not None:
                progress(done, len(mine))
    finally:
        model.train(was_training)
    return evaluator
