"""COCO JSON: an annotation file and a folder of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..coco_format import parse_annotation, parse_categories, parse_image_ids, sections, short
from ..errors import DataError
from ..files import is_integer, read_json
from .dataset import Category
from .file_dataset import AnnotationColumns, FileDataset, ImageRecord, OnBadImage, size_in_file
from .frames import Exif


class CocoDetection(FileDataset):
    """A COCO annotation file with its images; see `DetectionDataset` for what an item is.

    Args:
        annotation_file: JSON with ``images``, ``annotations`` and ``categories``.
        image_dir: the folder of the images. None: searched beside the annotation file (``images``, or a folder named
            as the file, with or without ``instances_``).
        categories: ``{"id", "name"}`` in label order, such as those of a trained model; the file's categories are
            matched to them by name. None: the file's own, in the order of their ids.
        on_bad_image: ``"error"`` or ``"skip"``, see `FileDataset`.
        exif: the frame of the boxes: ``"upright"``, ``"stored"`` or ``"auto"``, see `retina_ops.data.frames`.

    Raises:
        DataError: the file is missing, malformed or empty, an annotation has an unknown image or category, or an
            image is missing.
    """

    def __init__(
        self,
        annotation_file: str | Path,
        image_dir: str | Path | None = None,
        *,
        categories: Sequence[Category] | None = None,
        on_bad_image: OnBadImage = "error",
        exif: Exif = "auto",
    ) -> None:
        path = Path(annotation_file)
        content = read_json(path)
        images, annotations, listed = sections(str(path), content)
        own = parse_categories(str(path), listed)
        chosen = own if categories is None else [dict(category) for category in categories]
        label_of_name = {category["name"]: label for label, category in enumerate(chosen)}
        label_of_id = {category["id"]: label_of_name.get(category["name"]) for category in own}
        if categories is None:
            label_of_id = {category["id"]: label for label, category in enumerate(own)}
        folder = find_image_dir(path, images) if image_dir is None else Path(image_dir)
        if not folder.is_dir():
            raise DataError(folder, "no such image folder")
        index_of_id = {image_id: index for index, image_id in enumerate(parse_image_ids(str(path), images))}
        records = [_image_record(path, entry, folder, on_bad_image, exif) for entry in images]
        names = {category["id"]: category["name"] for category in own}
        rows = []
        for position, entry in enumerate(annotations, start=1):
            annotation = parse_annotation(str(path), entry, position, index_of_id, label_of_id)
            label = label_of_id[annotation.category_id]
            if label is None:
                reason = f"category {names[annotation.category_id]!r}, which is not one of the categories asked for"
                raise DataError(path, f"annotation {entry.get('id', position)} has {reason}")
            record = index_of_id[annotation.image_id]
            rows.append((record, annotation.bbox, label, annotation.area, annotation.iscrowd))
        super().__init__(str(path), records, AnnotationColumns.from_rows(rows), chosen, on_bad_image, exif)
        self.annotation_file, self.image_dir = path, folder


def find_image_dir(annotation_file: Path, images: Sequence[Any]) -> Path:
    """The folder beside an annotation file that holds its images; raises DataError with the folders searched."""
    names = [entry.get("file_name") if isinstance(entry, dict) else None for entry in images[:50]]
    for name, entry in zip(names, images, strict=False):
        if not isinstance(name, str):
            raise DataError(annotation_file, f"an image must have a file_name, got {short(entry)}")
    here, above = annotation_file.parent, annotation_file.parent.parent
    stem = annotation_file.stem.removeprefix("instances_")
    candidates = [above / "images" / stem, above / stem, above / "images", here / "images" / stem, here / stem]
    candidates += [here / "images", here, above]
    for folder in candidates:
        if folder.is_dir() and any((folder / str(name)).is_file() for name in names):
            return folder
    searched = ", ".join(dict.fromkeys(str(folder) for folder in candidates if folder.is_dir()))
    raise DataError(annotation_file, f"its image {names[0]} is in none of {searched}; name the image folder")


def _image_record(path: Path, entry: Any, folder: Path, on_bad_image: OnBadImage, exif: Exif) -> ImageRecord:
    if not isinstance(entry.get("file_name"), str):
        raise DataError(path, f"an image must have a file_name, got {short(entry)}")
    file = folder / entry["file_name"]
    height, width = entry.get("height"), entry.get("width")
    if height is None or width is None:
        size = size_in_file(file, on_bad_image, exif)
        return ImageRecord(entry["id"], entry["file_name"], file, *size, is_stated=False)
    if not (is_integer(height) and is_integer(width) and height > 0 and width > 0):
        raise DataError(path, f"image {entry['id']} has height {height!r} and width {width!r}, expected pixels")
    return ImageRecord(entry["id"], entry["file_name"], file, height, width)
