"""YOLO folders: ``data.yaml``, images, and for each image a text file of normalised boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError, needs_extra
from ..images import is_image_name, list_images
from .bad_annotations import BadAnnotations, OnBadAnnotation
from .dataset import Category
from .file_dataset import AnnotationColumns, FileDataset, ImageRecord, OnBadImage, size_in_file
from .frames import Exif

with needs_extra("train"):
    import yaml

SPLITS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


class YoloDetection(FileDataset):
    """A split of a data set in the format of YOLO; see `DetectionDataset` for what an item is.

    The labels of ``images/train/a.jpg`` are in ``labels/train/a.txt``: the last folder called ``images`` in the path is
    ``labels``. A line is ``class x y width height``, the centre and the sides as shares of the image's width and
    height; of a polygon (more numbers) its bounding box is taken. An image without a label file has no boxes. Image ids
    are 1, 2, ... in the order of the file names; ids of categories are those of the files.

    Args:
        file: ``data.yaml`` with ``names`` and the folders or lists of the splits.
        split: ``"train"``, ``"val"`` or ``"test"``.
        categories: ``{"id", "name"}`` in label order, such as those of a trained model. None: ``names``.
        on_bad_image: ``"error"`` or ``"skip"``, see `FileDataset`.
        on_bad_annotation: ``"error"``, or ``"skip"``: annotations that cannot be used are left out and counted.
        exif: the frame of the boxes, see `retina_ops.data.frames`.
        allow_empty: take a data set without a box.

    Raises:
        DataError: the file is not such a file, a folder is missing, or a label file is malformed.
    """

    def __init__(
        self,
        file: str | Path,
        split: str = "train",
        *,
        categories: Sequence[Category] | None = None,
        on_bad_image: OnBadImage = "error",
        on_bad_annotation: OnBadAnnotation = "error",
        exif: Exif = "auto",
        allow_empty: bool = False,
    ) -> None:
        file = Path(file)
        content = read_yaml(file)
        own = _categories(file, content)
        chosen = own if categories is None else [dict(category) for category in categories]
        labels = {category["name"]: label for label, category in enumerate(chosen)}
        images = _images(file, content, split)
        records, rows = [], []
        bad = BadAnnotations(f"{file} ({split})", on_bad_annotation)
        for index, image in enumerate(images):
            height, width = size_in_file(image, on_bad_image, exif)
            records.append(ImageRecord(index + 1, image.name, image, height, width, is_stated=False))
            for number, box in _boxes(_label_file(image), len(own), bad):
                name = own[number]["name"]
                with bad.reading(counts=False):
                    if name not in labels:
                        raise DataError(_label_file(image), f"has category {name!r}, expected {', '.join(labels)}")
                    x, y, w, h = (value * side for value, side in zip(box, (width, height) * 2, strict=True))
                    rows.append((index, (x - w / 2, y - h / 2, w, h), labels[name], w * h, 0))
        bad.warn()
        columns = AnnotationColumns.from_rows(rows)
        super().__init__(f"{file} ({split})", records, columns, chosen, on_bad_image, exif, allow_empty=allow_empty)
        self.file, self.split = file, split


def read_yaml(file: Path) -> dict[str, Any]:
    """The content of ``data.yaml``."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(file, f"cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(file, f"is not YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(content, dict) or "names" not in content:
        raise DataError(file, 'is not a YOLO data set: it has no "names"')
    return content


def yolo_splits(content: dict[str, Any]) -> list[str]:
    """The splits that ``data.yaml`` names: some of train, val and test."""
    return [split for split, keys in SPLITS.items() if any(content.get(key) for key in keys)]


def _categories(file: Path, content: dict[str, Any]) -> list[Category]:
    names = content["names"]
    if isinstance(names, dict):
        if sorted(names) != list(range(len(names))):
            raise DataError(file, "its names must be numbered 0, 1, 2, ...")
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names or len(set(map(str, names))) != len(names):
        raise DataError(file, "its names must be a list of different names")
    return [{"id": number, "name": str(name)} for number, name in enumerate(names)]


def _images(file: Path, content: dict[str, Any], split: str) -> list[Path]:
    keys = SPLITS.get(split, (split,))
    stated = next((content[key] for key in keys if content.get(key)), None)
    if stated is None:
        raise DataError(file, f"has no split {split}; there are: {', '.join(yolo_splits(content)) or 'none'}")
    images: list[Path] = []
    for entry in stated if isinstance(stated, list) else [stated]:
        place = _place(file, content, str(entry))
        if place.is_dir():
            nested = place / "images" if (place / "images").is_dir() else place
            images += list_images(nested)
        elif place.suffix == ".txt" and place.is_file():
            lines = place.read_text(encoding="utf-8-sig").splitlines()
            images += [_place(file, content, line.strip()) for line in lines if is_image_name(Path(line.strip()).name)]
        else:
            raise DataError(file, f"its split {split} is {entry}, where there is no folder of images")
    if not images:
        raise DataError(file, f"its split {split} has no images")
    return images


def _place(file: Path, content: dict[str, Any], entry: str) -> Path:
    """A path of ``data.yaml``: relative to ``path`` in it or to its own folder, also after the folder was moved.

    Roboflow writes ``../train/images`` for a folder beside the file.
    """
    base = Path(str(content.get("path") or ""))
    inside = entry.replace("\\", "/").removeprefix("./")
    while inside.startswith("../"):
        inside = inside.removeprefix("../")
    candidates = [base / entry, file.parent / base / entry, file.parent / entry, file.parent / inside]
    return next((path for path in candidates if path.exists()), candidates[-1])


def _label_file(image: Path) -> Path:
    parts = list(image.with_suffix(".txt").parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            return Path(*parts)
    return image.with_suffix(".txt")


def _boxes(file: Path, classes: int, bad: BadAnnotations) -> list[tuple[int, tuple[float, float, float, float]]]:
    """(class, (x, y, w, h) of the centre, normalised) of each line."""
    if not file.is_file():
        return []
    boxes = []
    for number, line in enumerate(file.read_text(encoding="utf-8-sig", errors="replace").splitlines(), start=1):
        if line.strip():
            with bad.reading():
                boxes.append(_box(file, number, line, classes))
    if boxes and sum(max(abs(value) for value in box) > 1.5 for _, box in boxes) > len(boxes) / 2:
        raise DataError(file, "has numbers above 1: YOLO's boxes are shares of the image's width and height")
    return boxes


def _box(file: Path, number: int, line: str, classes: int) -> tuple[int, tuple[float, float, float, float]]:
    try:
        label, *values = map(float, line.split())
    except ValueError:
        raise DataError(file, f"line {number} must be numbers: class x y width height, got {line[:60]!r}") from None
    if not label.is_integer() or not 0 <= label < classes:
        raise DataError(file, f"line {number} has class {label:g}, expected 0 to {classes - 1}")
    if len(values) >= 6 and len(values) % 2 == 0:  # a polygon
        xs, ys = values[0::2], values[1::2]
        values = [(min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2, max(xs) - min(xs), max(ys) - min(ys)]
    if len(values) != 4 or not all(map(math.isfinite, values)):
        raise DataError(file, f"line {number} must be class x y width height, got {line[:60]!r}")
    return int(label), (values[0], values[1], values[2], values[3])
