"""COCO's two exchange formats, checked with one-line errors: ground truth and detections."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError, needs_extra
from ..files import is_integer, is_number, read_json

with needs_extra("train"):
    from torch import Tensor

Json = dict[str, Any]


def coco_detections(
    image_ids: Iterable[int], predictions: Iterable[Mapping[str, Tensor]], category_ids: Sequence[int]
) -> list[Json]:
    """Model output as COCO detections: ``image_id``, original ``category_id``, ``bbox`` [x, y, w, h], ``score``.

    Args:
        image_ids: the id of each image.
        predictions: for each image ``boxes`` [n, 4] (x1, y1, x2, y2) in its pixels, ``scores`` [n], ``labels`` [n].
        category_ids: the original id of each label.
    """
    found = []
    for image_id, prediction in zip(image_ids, predictions, strict=True):
        boxes = prediction["boxes"].detach().to("cpu").double()
        scores = prediction["scores"].detach().to("cpu").double().tolist()
        for (x1, y1, x2, y2), score, label in zip(boxes.tolist(), scores, prediction["labels"].tolist(), strict=True):
            box = [x1, y1, x2 - x1, y2 - y1]
            found.append({"image_id": image_id, "category_id": category_ids[label], "bbox": box, "score": score})
    return found


def load_ground_truth(source: str | Path | Json) -> Json:
    """COCO ground truth from a file or a dict, reduced to what evaluation of boxes reads; the source is not changed.

    Annotation ids are renumbered from 1, because COCO's evaluators take the id 0 for "unmatched". ``area`` and
    ``iscrowd`` are kept as published; where absent they are the box's area and 0.

    Raises:
        DataError: not COCO ground truth, no images, or an annotation with an unknown image or category.
    """
    name, content = _content(source, "ground truth")
    if not isinstance(content, dict):
        raise DataError(name, f"is not COCO ground truth: expected an object, got {type(content).__name__}")
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise DataError(name, f'is not COCO ground truth: it has no list "{key}"')
    images: list[Json] = [{"id": _integer(name, entry, "id", "an image")} for entry in content["images"]]
    categories: list[Json] = [
        {"id": _integer(name, entry, "id", "a category"), "name": str(entry.get("name", entry["id"]))}
        for entry in content["categories"]
    ]
    if not images:
        raise DataError(name, "lists no images: there is nothing to evaluate")
    image_ids: set[int] = {entry["id"] for entry in images}
    category_ids: set[int] = {entry["id"] for entry in categories}
    if len(image_ids) != len(images) or len(category_ids) != len(categories):
        raise DataError(name, "lists two images or two categories with the same id")
    annotations = []
    for number, entry in enumerate(content["annotations"], start=1):
        row = _row(name, entry, f"annotation {number}", image_ids, category_ids)
        area = entry.get("area")
        row["area"] = area if is_number(area) and math.isfinite(area) else row["bbox"][2] * row["bbox"][3]
        row["iscrowd"] = int(bool(entry.get("iscrowd", 0)))
        row["id"] = number
        annotations.append(row)
    return {"images": images, "annotations": annotations, "categories": categories}


def load_detections(source: str | Path | Sequence[Json], ground_truth: Json) -> list[Json]:
    """COCO detections from a file or a list, checked against ground truth; the source is not changed.

    Raises:
        DataError: not a list of detections, an unknown image or category, a score or box that is not finite.
    """
    name, content = _content(source, "detections")
    if not isinstance(content, (list, tuple)):
        raise DataError(name, f"is not COCO detections: expected a list, got {type(content).__name__}")
    image_ids = {entry["id"] for entry in ground_truth["images"]}
    category_ids = {entry["id"] for entry in ground_truth["categories"]}
    found = []
    for number, entry in enumerate(content, start=1):
        row = _row(name, entry, f"detection {number}", image_ids, category_ids)
        score = entry.get("score")
        if not is_number(score) or not math.isfinite(score):
            raise DataError(name, f"detection {number} must have a finite score, got {score!r}")
        found.append({**row, "score": score})
    return found


def _content(source: Any, kind: str) -> tuple[str, Any]:
    if isinstance(source, (str, Path)):
        return str(source), read_json(source)
    return kind, source


def _row(name: str, entry: Any, who: str, image_ids: set[int], category_ids: set[int]) -> Json:
    image_id = _integer(name, entry, "image_id", who)
    category_id = _integer(name, entry, "category_id", who)
    if image_id not in image_ids:
        raise DataError(name, f"{who} is of image {image_id}, which the ground truth does not list")
    if category_id not in category_ids:
        raise DataError(name, f"{who} has the unknown category id {category_id}")
    box = entry.get("bbox")
    if not isinstance(box, (list, tuple)) or len(box) != 4:
        raise DataError(name, f"{who} must have a bbox [x, y, width, height], got {box!r}")
    if not all(is_number(value) and math.isfinite(value) for value in box):
        raise DataError(name, f"{who} has a bbox that is not finite numbers: {box!r}")
    return {"image_id": image_id, "category_id": category_id, "bbox": list(box)}


def _integer(name: str, entry: Any, key: str, who: str) -> int:
    value = entry.get(key) if isinstance(entry, dict) else None
    if not is_integer(value):
        raise DataError(name, f"{who} must have an integer {key}, got {value!r}")
    return value
