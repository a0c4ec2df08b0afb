"""`open_dataset` opens any kind of data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import DataError
from .coco import CocoDetection
from .dataset import Category, DetectionDataset
from .file_dataset import OnBadImage
from .voc import VocDetection, is_voc_folder


def open_dataset(
    path: str | Path,
    images: str | Path | None = None,
    *,
    split: str = "train",
    categories: Sequence[Category] | None = None,
    on_bad_image: OnBadImage = "error",
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
            return VocDetection(folder, path.stem, categories=categories, on_bad_image=on_bad_image)
        if path.suffix.lower() != ".json":
            raise DataError(path, "is not a data set: expected a COCO .json file or a Pascal VOC folder")
        return CocoDetection(path, images, categories=categories, on_bad_image=on_bad_image)
    if path.is_dir():
        if is_voc_folder(path):
            return VocDetection(path, split, categories=categories, on_bad_image=on_bad_image)
        found = _coco_file(path, split)
        if found is None:
            raise DataError(
                path, f"is not a data set: it has neither Annotations and ImageSets nor annotations/{split}.json"
            )
        return CocoDetection(found, images, categories=categories, on_bad_image=on_bad_image)
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


def _coco_file(folder: Path, split: str) -> Path | None:
    exact = [folder / "annotations" / f"{split}.json", folder / split / "_annotations.coco.json"]
    exact += sorted((folder / "annotations").glob(f"instances_{split}*.json"))
    return next((file for file in exact if file.is_file()), None)
