"""Detections in image files."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from .._defaults import standard_defaults
from ..errors import DataError, DataWarning, needs_extra
from ..images import list_images, read_image
from .loop import detect, evaluation_mode

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
        For each image that can be read a dict of ``path``; ``index``, its number among all files; ``boxes``
        ``[n, 4]`` (x1, y1, x2, y2) in its pixels; ``scores`` ``[n]``, descending; ``labels`` ``[n]``; ``names``, a list
        of n; and with ``with_images`` ``image``, uint8 ``[3, H, W]``. An image that cannot be read is left out with a
        `DataWarning`. So is one that the model cannot take, such as one too large for the memory, unless the model can
        take none.

    Raises:
        DataError: a path that does not exist, or a folder without images.
        ValueError: a class that the model does not know, or a threshold outside [0, 1].
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be in [0, 1], got {threshold}")
    categories: list[dict[str, Any]] = model.categories  # type: ignore[assignment]
    names = [category["name"] for category in categories]
    for name in classes or ():
        if name not in names:
            raise ValueError(f"unknown class {name!r}; the model knows {', '.join(names)}")
    wanted = torch.tensor([classes is None or name in classes for name in names], device="cpu")
    files = list_images(paths)
    failures: list[Exception] = []
    done = 0
    with evaluation_mode(model):
        for start in range(0, len(files), batch_size):
            with standard_defaults():
                batch = _read_images(files, range(start, min(start + batch_size, len(files))))
                results = list(_detected(model, files, batch, failures))
            for index, image, detections in results:
                # Scaled back to the image, a clipped corner may lie outside by a rounding error.
                detections["boxes"] = clip_boxes_to_image(detections["boxes"], image.shape[-2:])
                result = {"path": files[index], "index": index, **_select(detections, threshold, wanted, names)}
                done += 1
                yield {**result, "image": image} if with_images else result
    if failures and not done:
        raise failures[0]  # the model takes no image at all


def _read_images(files: Sequence[Path], indices: Iterable[int]) -> list[tuple[int, Tensor]]:
    """The images that can be read, with their indices."""
    images = []
    for index in indices:
        try:
            images.append((index, read_image(files[index])))
        except DataError as error:
            _warn(f"skipped {error}")
    return images


def _detected(
    model: nn.Module, files: Sequence[Path], batch: list[tuple[int, Tensor]], failures: list[Exception]
) -> Iterator[tuple[int, Tensor, dict[str, Tensor]]]:
    """The index, the image and the detections of each image that the model can take. Others go to ``failures``."""
    if not batch:
        return
    try:
        found = detect(model, [image for _, image in batch])
    except (RuntimeError, ValueError, MemoryError) as error:
        if len(batch) > 1:
            for single in batch:
                yield from _detected(model, files, [single], failures)
            return
        failures.append(error)
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        _warn(f"skipped {files[batch[0][0]]}: the model cannot take it ({reason})")
        return
    for (index, image), detections in zip(batch, found, strict=True):
        yield index, image, detections


def _warn(message: str) -> None:
    warnings.warn(message, DataWarning, stacklevel=4)  # where predict_files is iterated


def _select(detections: dict[str, Tensor], threshold: float, wanted: Tensor, names: list[str]) -> dict[str, Any]:
    detections = {key: value.cpu() for key, value in detections.items()}
    keep = (detections["scores"] >= threshold) & wanted[detections["labels"]]
    kept: dict[str, Any] = {key: value[keep] for key, value in detections.items()}
    kept["names"] = [names[label] for label in kept["labels"].tolist()]
    return kept
