"""`open_dataset` opens any kind of data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import DataError
from .coco import CocoDetection
from .dataset import Category, DetectionDataset
from .file_dataset import OnBadImage
from .frames import Exif
from .voc import VocDetection, is_voc_folder


def open_dataset(
    path: str | Path,
    images: str | Path | None = None,
    *,
    split: str = "train",
    categories: Sequence[Category] | None = None,
    on_bad_image: OnBadImage = "error",
    exif: Exif = "auto",
) -> DetectionDataset:
    """Opens a data set. The path decides its kind:

    - a ``.json`` file: `CocoDetection`, with the images in ``images`` or found near the file
    - a folder with ``Annotations`` and ``ImageSets``: `VocDetection` of ``split``
    - a list ``ImageSets/Main/<split>.txt`` of such a folder: `VocDetection` of that split
    - a folder with ``annotations/<split>.json``, ``annotations/instances_<split>*.json`` or
      ``<split>/_annotations.coco.json``: `CocoDetection`
    - ``"digits"``, if no such file exists: the built-in `DigitScenes` of ``split``

    Args:
        path: see above.
        images: folder of the images of a COCO file.
        split: the split of a folder or of the built-in data set.
        categories: ``{"id", "name"}`` in label order, such as those of a trained model. None: the data set's own.
        on_bad_image: ``"error"`` or ``"skip"``, see `FileDataset`.
        exif: the frame of the boxes: ``"upright"``, ``"stored"`` or ``"auto"``, see `retina_ops.data.frames`.

    Raises:
        DataError: ``path`` does not exist or is not a data set, or the data set cannot be used.

    Example:
        >>> dataset = open_dataset("digits", split="test")
        >>> image, target = dataset[0]
        >>> image.shape, sorted(target)
        (torch.Size([3, 256, 256]), ['area', 'boxes', 'image_id', 'iscrowd', 'labels'])
    """
    path = Path(path)
    if path.is_file():
        if path.parent.name == "Main" and path.parent.parent.name == "ImageSets":
            folder = path.parent.parent.parent
            return VocDetection(folder, path.stem, categories=categories, on_bad_image=on_bad_image, exif=exif)
        if path.suffix.lower() != ".json":
            raise DataError(path, "is not a data set: expected a COCO .json file or a Pascal VOC folder")
        return CocoDetection(path, images, categories=categories, on_bad_image=on_bad_image, exif=exif)
    if path.is_dir():
        if is_voc_folder(path):
            return VocDetection(path, split, categories=categories, on_bad_image=on_bad_image, exif=exif)
        found = _coco_file(path, split)
        if found is None:
            raise DataError(
                path, f"is not a data set: it has neither Annotations and ImageSets nor annotations/{split}.json"
            )
        return CocoDetection(found, images, categories=categories, on_bad_image=on_bad_image, exif=exif)
    if str(path) == "digits":
        from .digits import DigitScenes

        return DigitScenes(split)
    raise DataError(path, 'no such file or folder (and it is not "digits", the built-in data set)')


def _coco_file(folder: Path, split: str) -> Path | None:
    exact = [folder / "annotations" / f"{split}.json", folder / split / "_annotations.coco.json"]
    exact += sorted((folder / "annotations").glob(f"instances_{split}*.json"))
    return next((file for file in exact if file.is_file()), None)
