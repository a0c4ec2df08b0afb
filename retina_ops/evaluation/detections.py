"""COCO's two exchange formats, checked with one-line errors: ground truth and detections."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import coco_format
from ..coco_format import Json
from ..errors import DataError, DataWarning, needs_extra
from ..files import is_number, read_json

with needs_extra("train"):
    from torch import Tensor


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
            found.append({"image_id": image_id, "category_id": category_ids[label], "bbox": box, "score": float(score)})
    return found


def load_ground_truth(source: str | Path | Json) -> Json:
    """COCO ground truth from a file or a dict, reduced to what evaluation of boxes reads; the source is not changed.

    Annotation ids are renumbered from 1, because COCO's evaluators take the id 0 for "unmatched". ``area`` and
    ``iscrowd`` are kept as published; where absent they are the box's area and 0. Boxes that are not finite or have a
    negative side are left out, with one `DataWarning` that counts them, as by the data sets of this package.

    Raises:
        DataError: not COCO ground truth, no images, or an annotation with an unknown image or category.
    """
    name, content = _content(source, "ground truth")
    listed_images, listed_annotations, listed_categories = coco_format.sections(name, content)
    image_ids = coco_format.parse_image_ids(name, listed_images)
    categories = coco_format.parse_categories(name, listed_categories, unique_names=False)
    known_images, known_categories = set(image_ids), {entry["id"] for entry in categories}
    annotations: list[Json] = []
    for position, entry in enumerate(listed_annotations, start=1):
        row = coco_format.parse_annotation(name, entry, position, known_images, known_categories)
        if coco_format.is_possible_box(row.bbox):
            annotations.append(
                {
                    "id": position,
                    "image_id": row.image_id,
                    "category_id": row.category_id,
                    "bbox": list(row.bbox),
                    "area": row.area,
                    "iscrowd": row.iscrowd,
                }
            )
    left_out = len(listed_annotations) - len(annotations)
    if left_out:
        message = f"{name}: left out {left_out} of {len(listed_annotations)} boxes: not finite, or a negative side"
        warnings.warn(message, DataWarning, stacklevel=3)
    return {
        "images": [{"id": image_id} for image_id in image_ids],
        "annotations": annotations,
        "categories": categories,
    }


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
        if not isinstance(entry, dict):
            raise DataError(name, f"detection {number} must be an object, got {coco_format.short(entry)}")
        who = f"detection {number}"
        image_id, category_id, bbox = coco_format.parse_box(name, entry, who, image_ids, category_ids)
        if not all(map(math.isfinite, bbox)):
            raise DataError(name, f"{who} has a bbox that is not finite numbers: {list(bbox)}")
        score = entry.get("score")
        if not is_number(score) or not math.isfinite(score):
            raise DataError(name, f"{who} must have a finite score, got {score!r}")
        found.append({"image_id": image_id, "category_id": category_id, "bbox": list(bbox), "score": float(score)})
    return found


def _content(source: Any, kind: str) -> tuple[str, Any]:
    if isinstance(source, (str, Path)):
        return str(source), read_json(source)
    return kind, source
