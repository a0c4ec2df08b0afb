"""Detections in image files."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError, DataWarning, needs_extra
from ..images import list_images, read_image
from .loop import detect_batches

with needs_extra("models"):
    import torch
    from torch import Tensor, nn
    from torchvision.ops import clip_boxes_to_image


def predict_files(
    model: nn.Module,
    paths: str | Path | Sequence[str | Path],
    *,
    threshold: float = 0.5,
    classes: Sequence[str] | None = None,
    batch_size: int = 4,
    with_images: bool = False,
) -> Iterator[dict[str, Any]]:
    """Detections of image files, one file after another. Each file is read and decoded once.

    Args:
        model: a RetinaNet of this package, or another detector with ``categories``, a list of ``{"id", "name"}`` in the
            order of the labels. Its training mode is restored afterwards.
        paths: image files, or folders of them.
        threshold: detections with a lower score are left out.
        classes: names of the classes wanted; default all.
        batch_size: images that pass through the model together.
        with_images: also yield the decoded image, for drawing.

    Yields:
        For each image that can be read a dict of ``path``; ``boxes`` ``[n, 4]`` (x1, y1, x2, y2) in its pixels;
        ``scores`` ``[n]``, descending; ``labels`` ``[n]``; ``names``, a list of n; and with ``with_images`` ``image``,
        uint8 ``[3, H, W]``. An image that cannot be read is left out with a `DataWarning`.

    Raises:
        DataError: a path that does not exist, or a folder without images.
        ValueError: a class that the model does not know, or a threshold outside [0, 1].
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be in [0, 1], got {threshold}")
    categories: list[dict[str, Any]] = model.categories  # type: ignore[assignment]
    names = [category["name"] for category in categories]
    for name in classes or ():
        if name not in names:
            raise ValueError(f"unknown class {name!r}; the model knows {', '.join(names)}")
    wanted = torch.tensor([classes is None or name in classes for name in names])
    for images, files, found in detect_batches(model, _batches(list_images(paths), batch_size)):
        for path, image, detections in zip(files, images, found, strict=True):
            # Scaled back to the image, a clipped corner may lie outside by a rounding error.
            detections["boxes"] = clip_boxes_to_image(detections["boxes"], image.shape[-2:])
            result = {"path": path, **_select(detections, threshold, wanted, names)}
            yield {**result, "image": image} if with_images else result


def _batches(files: Sequence[Path], batch_size: int) -> Iterator[tuple[list[Tensor], list[Path]]]:
    """Images that can be read, with their paths."""
    for start in range(0, len(files), batch_size):
        images, paths = [], []
        for path in files[start : start + batch_size]:
            image = _read(path)
            if image is not None:
                images.append(image)
                paths.append(path)
        if images:
            yield images, paths


def _read(path: Path) -> Tensor | None:
    try:
        return read_image(path)
    except DataError as error:
        warnings.warn(f"skipped {error}", DataWarning, stacklevel=5)  # where predict_files is iterated
        return None


def _select(detections: dict[str, Tensor], threshold: float, wanted: Tensor, names: list[str]) -> dict[str, Any]:
    detections = {key: value.cpu() for key, value in detections.items()}
    keep = (detections["scores"] >= threshold) & wanted[detections["labels"]]
    kept: dict[str, Any] = {key: value[keep] for key, value in detections.items()}
    kept["names"] = [names[label] for label in kept["labels"].tolist()]
    return kept
