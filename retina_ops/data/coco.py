"""COCO JSON: an annotation file and a folder of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..coco_format import Json, parse_annotation, parse_categories, parse_image_ids, sections, short
from ..errors import DataError
from ..files import as_integer, read_json
from .bad_annotations import BadAnnotations, OnBadAnnotation
from .dataset import Category
from .file_dataset import AnnotationColumns, FileDataset, ImageRecord, OnBadImage, size_in_file
from .frames import Exif
from .image_names import ImageFinder


class CocoDetection(FileDataset):
    """A COCO annotation file with its images; see `DetectionDataset` for what an item is.

    Ids and sizes may be written as 480.0 or "480". Image names may have backslashes, and may be absolute or URLs
    (`ImageFinder`). A root category, as Roboflow writes one, is no class: it has no boxes, and is the supercategory of
    all others.

    Args:
        annotation_file: JSON with ``images``, ``annotations`` and ``categories``.
        image_dir: the folder of the images. None: searched beside the annotation file (``images``, or a folder named
            as the file, with or without ``instances_``).
        categories: ``{"id", "name"}`` in label order, such as those of a trained model; the file's categories are
            matched to them by name. None: the file's own, in the order of their ids.
        on_bad_image: ``"error"`` or ``"skip"``, see `FileDataset`.
        on_bad_annotation: ``"error"``, or ``"skip"``: annotations that cannot be used are left out and counted.
        exif: the frame of the boxes: ``"upright"``, ``"stored"`` or ``"auto"``, see `retina_ops.data.frames`.
        allow_empty: take a data set without a box, such as a test set whose annotations are kept secret.

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
        on_bad_annotation: OnBadAnnotation = "error",
        exif: Exif = "auto",
        allow_empty: bool = False,
    ) -> None:
        path = Path(annotation_file)
        content = read_json(path)
        images, annotations, listed = sections(str(path), content)
        own = parse_categories(str(path), without_root(listed, annotations))
        chosen = own if categories is None else [dict(category) for category in categories]
        label_of_name = {category["name"]: label for label, category in enumerate(chosen)}
        label_of_id = {category["id"]: label_of_name.get(category["name"]) for category in own}
        if categories is None:
            label_of_id = {category["id"]: label for label, category in enumerate(own)}
        ids = parse_image_ids(str(path), images)
        folder = find_image_dir(path, images) if image_dir is None else Path(image_dir)
        if not folder.is_dir():
            raise DataError(folder, "no such image folder")
        finder = ImageFinder(folder)
        index_of_id = {image_id: index for index, image_id in enumerate(ids)}
        records = [
            _image_record(path, entry, image_id, finder, on_bad_image, exif)
            for image_id, entry in zip(ids, images, strict=True)
        ]
        names = {category["id"]: category["name"] for category in own}
        rows = []
        bad = BadAnnotations(str(path), on_bad_annotation)
        for position, entry in enumerate(annotations, start=1):
            with bad.reading():
                annotation = parse_annotation(str(path), entry, position, index_of_id, label_of_id)
                label = label_of_id[annotation.category_id]
                if label is None:
                    reason = f"category {names[annotation.category_id]!r}, which is not one of the categories asked for"
                    raise DataError(path, f"annotation {entry.get('id', position)} has {reason}")
                record = index_of_id[annotation.image_id]
                rows.append((record, annotation.bbox, label, annotation.area, annotation.iscrowd))
        bad.warn()
        columns = AnnotationColumns.from_rows(rows)
        super().__init__(str(path), records, columns, chosen, on_bad_image, exif, allow_empty=allow_empty)
        self.annotation_file, self.image_dir = path, folder


def without_root(listed: Sequence[Any], annotations: Sequence[Any]) -> list[Any]:
    """The categories without a root: one without boxes and without a supercategory, which is that of all others."""
    entries = [entry for entry in listed if isinstance(entry, dict)]
    if len(entries) != len(listed) or len(entries) < 2:
        return list(listed)
    used = {as_integer(entry.get("category_id")) for entry in annotations if isinstance(entry, dict)}
    roots = [
        entry
        for entry in entries
        if entry.get("supercategory") in (None, "", "none")
        and as_integer(entry.get("id")) not in used
        and all(other.get("supercategory") == entry.get("name") for other in entries if other is not entry)
    ]
    return [entry for entry in listed if entry is not roots[0]] if len(roots) == 1 else list(listed)


def find_image_dir(annotation_file: Path, images: Sequence[Any]) -> Path:
    """The folder beside an annotation file that holds its images; raises DataError with the folders searched."""
    names = [_file_name(annotation_file, entry) for entry in images[:50]]
    here, above = annotation_file.parent, annotation_file.parent.parent
    stem = annotation_file.stem.removeprefix("instances_")
    candidates = [above / "images" / stem, above / stem, above / "images", here / "images" / stem, here / stem]
    candidates += [here / "images", here, above]
    folders = list(dict.fromkeys(folder for folder in candidates if folder.is_dir()))
    for exact in (True, False):  # where the names say first; by their last part in folders called "images" afterwards
        for folder in folders:
            finder = ImageFinder(folder)
            if exact and any((folder / name.replace("\\", "/")).is_file() for name in names):
                return folder
            if not exact and "images" in folder.parts[-2:] and any(finder.find(name) for name in names):
                return folder
    searched = ", ".join(map(str, folders))
    raise DataError(annotation_file, f"its image {names[0]} is in none of {searched}; name the image folder")


def _file_name(path: Path, entry: Any) -> str:
    name = entry.get("file_name") if isinstance(entry, dict) else None
    if not isinstance(name, str) or not name.strip():
        raise DataError(path, f"an image must have a file_name, got {short(entry)}")
    return name


def _image_record(
    path: Path, entry: Json, image_id: int, finder: ImageFinder, on_bad_image: OnBadImage, exif: Exif
) -> ImageRecord:
    stated = _file_name(path, entry)
    file = finder.find(stated)
    name = stated if file is None else file.relative_to(finder.folder).as_posix()
    file = finder.folder / stated if file is None else file
    if entry.get("height") is None or entry.get("width") is None:
        return ImageRecord(image_id, name, file, *size_in_file(file, on_bad_image, exif), is_stated=False)
    height, width = as_integer(entry["height"]), as_integer(entry["width"])
    if height is None or width is None or height <= 0 or width <= 0:
        sides = f"height {entry['height']!r} and width {entry['width']!r}"
        raise DataError(path, f"image {image_id} has {sides}, expected pixels")
    return ImageRecord(image_id, name, file, height, width)
