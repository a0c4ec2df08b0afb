"""COCO's annotation format: the one place that knows its rules, for data sets and for evaluation.

A file has the lists ``images``, ``annotations`` and ``categories``. Ids are integers. A box is
``[x, y, width, height]`` in pixels. Content that breaks these rules raises `DataError` with one line. A box that is not
finite, or that has a negative side, is left out everywhere, and counted (`is_possible_box`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from numbers import Real
from typing import Any

from .errors import DataError
from .files import as_integer, is_integer, is_number

Json = dict[str, Any]
_FLAGS = {"0": 0, "0.0": 0, "false": 0, "no": 0, "": 0, "1": 1, "1.0": 1, "true": 1, "yes": 1}


@dataclass(frozen=True, slots=True)
class Annotation:
    """One annotation. ``bbox`` is (x, y, width, height) as published, ``area`` that of the box where none is given."""

    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    area: float
    iscrowd: int


def sections(name: str, content: Any) -> tuple[list[Any], list[Any], list[Any]]:
    """The lists ``images``, ``annotations`` and ``categories`` of parsed JSON. A test set may have no annotations.

    Args:
        name: what errors call it, normally the file.
        content: the parsed JSON.
    """
    if not isinstance(content, dict):
        raise DataError(name, f"is not a COCO annotation file: expected an object, got {type(content).__name__}")
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key, [] if key == "annotations" else None), list):
            raise DataError(name, f'is not a COCO annotation file: it has no list "{key}"')
    if not content["images"]:
        raise DataError(name, "lists no images: the data set is empty")
    return content["images"], content.get("annotations", []), content["categories"]


def parse_categories(name: str, listed: Iterable[Any], *, unique_names: bool = True) -> list[Json]:
    """``{"id", "name"}`` of each category, by ascending id. A number as name, or no name, becomes text.

    Args:
        name: what errors call the file.
        listed: the list ``categories``.
        unique_names: refuse two categories of one name. A data set needs that, for it finds categories by name.
    """
    categories: list[Json] = []
    for entry in listed:
        called = entry.get("name", entry.get("id")) if isinstance(entry, dict) else None
        own_id = as_integer(entry.get("id")) if isinstance(entry, dict) else None
        if not (is_integer(called) or isinstance(called, str)) or own_id is None:
            raise DataError(name, f"a category must have an integer id and a name, got {short(entry)}")
        categories.append({"id": own_id, "name": str(called)})
    for key in ("id", "name") if unique_names else ("id",):
        repeated = first_repeated([category[key] for category in categories])
        if repeated is not None:
            raise DataError(name, f"lists two categories with the {key} {repeated!r}")
    if not categories:
        raise DataError(name, "lists no categories")
    return sorted(categories, key=lambda category: category["id"])


def parse_image_ids(name: str, listed: Iterable[Any]) -> list[int]:
    """The id of each image, in the order of the list."""
    ids = []
    for entry in listed:
        own_id = as_integer(entry.get("id")) if isinstance(entry, dict) else None
        if own_id is None:
            raise DataError(name, f"an image must have an integer id, got {short(entry)}")
        ids.append(own_id)
    repeated = first_repeated(ids)
    if repeated is not None:
        raise DataError(name, f"lists two images with the same id, {repeated}")
    return ids


def parse_annotation(
    name: str, entry: Any, position: int, image_ids: Collection[int], category_ids: Collection[int]
) -> Annotation:
    """One entry of the list ``annotations``.

    Args:
        name: what errors call the file.
        entry: the entry.
        position: its place in the list from 1, for errors about an entry without an integer id.
        image_ids, category_ids: the ids that the file lists.
    """
    if not isinstance(entry, dict):
        raise DataError(name, f"annotation {position} must be an object, got {short(entry)}")
    own_id = entry.get("id")
    who = f"annotation {own_id if is_integer(own_id) else position}"
    image_id, category_id, bbox = parse_box(name, entry, who, image_ids, category_ids)
    area = entry.get("area")
    area = _plain(area) if is_number(area) and math.isfinite(area) else bbox[2] * bbox[3]
    return Annotation(image_id, category_id, bbox, area, parse_flag(name, f"iscrowd of {who}", entry.get("iscrowd", 0)))


def parse_box(
    name: str, entry: Json, who: str, image_ids: Collection[int], category_ids: Collection[int]
) -> tuple[int, int, tuple[float, float, float, float]]:
    """Image id, category id and box of an annotation or a detection; ``who`` is what errors call it."""
    image_id, category_id = as_integer(entry.get("image_id")), as_integer(entry.get("category_id"))
    if image_id is None or image_id not in image_ids:
        raise DataError(name, f"{who} is of image {entry.get('image_id')!r}, which is not listed")
    if category_id is None or category_id not in category_ids:
        raise DataError(name, f"{who} has category id {entry.get('category_id')!r}, which its categories do not list")
    box: Any = entry.get("bbox")
    if hasattr(box, "tolist"):  # NumPy's arrays and tensors
        box = box.tolist()
    if not isinstance(box, (list, tuple)) or len(box) != 4 or not all(map(is_number, box)):
        raise DataError(name, f"{who} must have a bbox [x, y, width, height], got {short(box)}")
    x, y, w, h = map(_plain, box)
    return image_id, category_id, (x, y, w, h)


def _plain(value: Any) -> float:
    """A number of Python's own, as JSON has them; integers stay integers."""
    return int(value) if is_integer(value) else float(value)


def parse_flag(name: str, what: str, value: Any) -> int:
    """0 or 1 of a number, a boolean, or their names; an absent value is 0.

    Raises:
        DataError: anything else.
    """
    if value is None:
        return 0
    text = str(value).strip().lower()
    if isinstance(value, (bool, str, Real)) and text in _FLAGS:
        return _FLAGS[text]
    raise DataError(name, f"{what} must be 0 or 1, got {short(value)}")


def is_possible_box(bbox: tuple[float, float, float, float]) -> bool:
    """Whether the box is finite and has no negative side."""
    return all(map(math.isfinite, bbox)) and bbox[2] >= 0 and bbox[3] >= 0


def first_repeated(values: Iterable[Any]) -> Any:
    """The first value that was there before; None where all differ."""
    seen = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None


def short(value: Any) -> str:
    """The value as text of at most 80 characters, for errors."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
