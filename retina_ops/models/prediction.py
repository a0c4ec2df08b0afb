"""Detections in image files."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError, DataWarning, needs_extra
from ..images import list_images, read_image

with needs_extra("models"):
    import torch
    from torch import Tensor
    from torchvision.ops import clip_boxes_to_image

if TYPE_CHECKING:
    from .retinanet import RetinaNet


def predict_files(
    model: RetinaNet,
    paths: str | Path | Sequence[str | Path],
    *,
    threshold: float = 0.5,
    classes: Sequence[str] | None = None,
    batch_size: int = 4,
) -> Iterator[dict[str, Any]]:
    """Detections of image files, one after another.

    Args:
        model: any RetinaNet of this package; its training mode is restored afterwards.
        paths: image files, or folders of them.
        threshold: detections with a lower score are left out.
        classes: names of the classes wanted; default all.
        batch_size: images that pass through the model together.

    Yields:
        For each image that can be read ``path``, ``boxes`` ``[n, 4]`` (x1, y1, x2, y2) in its pixels, ``scores``
        ``[n]`` descending, ``labels`` ``[n]`` and ``names``, a list. An image that cannot be read is warned about.

    Raises:
        DataError: a path that does not exist, a folder without images.
        ValueError: a class that the model does not know, or a threshold outside [0, 1].
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be in [0, 1], got {threshold}")
    names = [category["name"] for category in model.categories]
    for name in classes or ():
        if name not in names:
            raise ValueError(f"unknown class {name!r}; the model knows {', '.join(names)}")
    wanted = torch.tensor([classes is None or name in classes for name in names])
    files = list_images(paths)
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        for start in range(0, len(files), batch_size):
            read = [(path, image) for path in files[start : start + batch_size] if (image := _read(path)) is not None]
            if not read:
                continue
            with torch.inference_mode():
                found = model([image.to(device) for _, image in read])
            for (path, image), detections in zip(read, found, strict=True):
                # Scaled back to the image, a clipped corner may lie outside by a rounding.
                detections["boxes"] = clip_boxes_to_image(detections["boxes"], image.shape[-2:])
                yield {"path": path, **_select(detections, threshold, wanted, names)}
    finally:
        model.train(was_training)


def _read(path: Path) -> Tensor | None:
    try:
        return read_image(path)
    except DataError as error:
        warnings.warn(f"skipped {error}", DataWarning, stacklevel=4)
        return None


def _select(detections: dict[str, Tensor], threshold: float, wanted: Tensor, names: list[str]) -> dict[str, Any]:
    detections = {key: value.cpu() for key, value in detections.items()}
    keep = (detections["scores"] >= threshold) & wanted[detections["labels"]]
    kept: dict[str, Any] = {key: value[keep] for key, value in detections.items()}
    kept["names"] = [names[label] for label in kept["labels"].tolist()]
    return kept
