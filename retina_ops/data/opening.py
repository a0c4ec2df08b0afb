"""`open_dataset` opens any kind of data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError
from .bad_annotations import OnBadAnnotation
from .coco import CocoDetection
from .dataset import Category, DetectionDataset
from .file_dataset import OnBadImage
from .frames import Exif
from .layouts import find_layout
from .voc import VocDetection

YAML = (".yaml", ".yml")


def open_dataset(
    path: str | Path,
    images: str | Path | None = None,
    *,
    split: str = "train",
    categories: Sequence[Category] | None = None,
    on_bad_image: OnBadImage = "error",
    on_bad_annotation: OnBadAnnotation = "error",
    exif: Exif = "auto",
    allow_empty: bool = False,
) -> DetectionDataset:
    """Opens a data set. The path decides its kind:

    - a ``.json`` file: `CocoDetection`, with the images in ``images`` or found near the file
    - a ``.yaml`` file: `YoloDetection` of ``split``
    - a list ``ImageSets/Main/<split>.txt`` of a VOC folder: `VocDetection` of that split
    - a folder: what the first layout of `retina_ops.data.layouts.LAYOUTS` finds in it: Pascal VOC (also in VOCdevkit/),
      COCO files (also Roboflow's, CVAT's, Label Studio's), YOLO, XML files beside their images (labelImg, Kaggle). A
      folder without splits is opened as a whole. ``dataset.layout`` says what it was taken for
    - ``"digits"``, if no such file exists: the built-in `DigitScenes` of ``split``

    Args:
        path: see above.
        images: folder of the images of a COCO file.
        split: the split of a folder or of the built-in data set.
        categories: ``{"id", "name"}`` in label order, such as those of a trained model. None: the data set's own.
        on_bad_image: ``"error"`` or ``"skip"``, see `FileDataset`.
        on_bad_annotation: ``"error"``, or ``"skip"``: annotations that cannot be used are left out and counted.
        exif: the frame of the boxes: ``"upright"``, ``"stored"`` or ``"auto"``, see `retina_ops.data.frames`.
        allow_empty: take a data set without a box, such as a test set whose annotations are kept secret.

    Raises:
        DataError: ``path`` does not exist or is not a data set, or the data set cannot be used.

    Example:
        >>> dataset = open_dataset("digits", split="test")
        >>> image, target = dataset[0]
        >>> image.shape, sorted(target)
        (torch.Size([3, 256, 256]), ['area', 'boxes', 'image_id', 'iscrowd', 'labels'])
    """
    path, images = Path(path), None if images is None else Path(images)
    options = {
        "categories": categories,
        "on_bad_image": on_bad_image,
        "on_bad_annotation": on_bad_annotation,
        "exif": exif,
        "allow_empty": allow_empty,
    }
    if path.is_dir():
        found = find_layout(path, images)
        dataset = found.open(split, **options)
        dataset.layout = found.kind
        return dataset
    if path.is_file():
        return _open_file(path, images, split, options)
    if str(path) == "digits":
        from .digits import DigitScenes

        digits = DigitScenes(split)
        wanted = digits.categories if categories is None else categories
        if [category["name"] for category in wanted] != digits.category_names:
            names = [str(category["name"]) for category in wanted]
            reason = f"has the classes 0 to 9, but asked for are {', '.join(names[:10])}"
            raise DataError(path, reason + (f" and {len(names) - 10} more" if names[10:] else ""))
        return digits
    raise DataError(path, 'no such file or folder (and it is not "digits", the built-in data set)')


def has_split(path: str | Path, split: str) -> bool:
    """Whether a path that `open_dataset` takes has several splits, among them this one. A single file has none."""
    path = Path(path)
    if path.is_dir():
        return split in find_layout(path).splits
    if path.is_file():
        if path.suffix.lower() not in YAML:
            return False
        from .yolo import read_yaml, yolo_splits

        return split in yolo_splits(read_yaml(path))
    return str(path) == "digits"


def _open_file(path: Path, images: Path | None, split: str, options: dict[str, Any]) -> DetectionDataset:
    if path.parent.name == "Main" and path.parent.parent.name == "ImageSets":
        return VocDetection(path.parent.parent.parent, path.stem, **options)
    if path.suffix.lower() in YAML:
        from .yolo import YoloDetection

        return YoloDetection(path, split, **options)
    if path.suffix.lower() != ".json":
        raise DataError(path, "is not a data set: expected a COCO .json file, a YOLO .yaml file or a folder")
    return CocoDetection(path, images, **options)
