"""Pascal VOC: ``Annotations/*.xml``, ``ImageSets/Main/<split>.txt``, ``JPEGImages``."""

from __future__ import annotations

import math
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from ..coco_format import parse_flag
from ..errors import DataError, DataWarning
from ..images import IMAGE_SUFFIXES
from .bad_annotations import BadAnnotations, OnBadAnnotation
from .dataset import Category
from .file_dataset import AnnotationColumns, FileDataset, ImageRecord, OnBadImage, size_in_file
from .frames import Exif
from .image_names import ImageFinder

Difficult = Literal["ignore", "keep", "drop"]

# fmt: off
VOC_NAMES = [
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
]
# fmt: on


class VocFiles(FileDataset):
    """Annotation files of Pascal VOC's form with their images: the common part of `VocDetection` and `VocPairs`.

    Args:
        name: of the data set, for messages.
        files: the annotation files, in order.
        finder: of the images.
        others: annotation files whose categories count as well, so that all splits have the same labels.
        categories, difficult, one_based, on_bad_image, on_bad_annotation, exif, allow_empty: as for `VocDetection`.
    """

    def __init__(
        self,
        name: str,
        files: Sequence[Path],
        finder: ImageFinder,
        others: Iterable[Path],
        categories: Sequence[Category] | None,
        difficult: Difficult,
        one_based: bool,
        on_bad_image: OnBadImage,
        on_bad_annotation: OnBadAnnotation,
        exif: Exif,
        allow_empty: bool,
    ) -> None:
        if difficult not in ("ignore", "keep", "drop"):
            raise ValueError(f'difficult must be "ignore", "keep" or "drop", got {difficult!r}')
        trees = {file: _parse(file) for file in files}
        if categories is None:
            chosen = voc_categories([*trees.values(), *(_parse(file) for file in others if file not in trees)])
        else:
            chosen = [dict(category) for category in categories]
        labels = {category["name"]: label for label, category in enumerate(chosen)}
        records, rows, lowest = [], [], math.inf
        bad = BadAnnotations(name, on_bad_annotation)
        for index, (file, tree) in enumerate(trees.items()):
            records.append(_image_record(finder, file, tree, index + 1, on_bad_image, exif))
            for element in tree.iter("object"):
                with bad.reading():
                    is_difficult = parse_flag(str(file), "difficult", element.findtext("difficult"))
                    category = _object_name(file, element)
                    if category not in labels:
                        raise DataError(file, f"unknown category {category!r}, expected one of {', '.join(labels)}")
                    box = _box(file, category, element, 1.0 if one_based else 0.0)
                    lowest = min(lowest, box[0], box[1])
                    is_crowd = int(is_difficult and difficult == "ignore")
                    if not (is_difficult and difficult == "drop"):
                        rows.append((index, box, labels[category], box[2] * box[3], is_crowd))
        bad.warn()
        if one_based and lowest == -1.0:
            message = f"{name}: has boxes that begin at pixel 0, so its tool counts from 0: set one_based = false"
            warnings.warn(message, DataWarning, stacklevel=4)
        columns = AnnotationColumns.from_rows(rows)
        super().__init__(name, records, columns, chosen, on_bad_image, exif, allow_empty=allow_empty)


class VocPairs(VocFiles):
    """Annotation files of Pascal VOC's form and images in one folder or in two, without lists, as labelImg writes them.

    Args:
        annotations: the folder of the ``.xml`` files.
        images: the folder of the images. None: ``annotations`` itself.
        categories, difficult, one_based, on_bad_image, on_bad_annotation, exif, allow_empty: as for `VocDetection`.

    Raises:
        DataError: as for `VocDetection`.
    """

    def __init__(
        self,
        annotations: str | Path,
        images: str | Path | None = None,
        *,
        categories: Sequence[Category] | None = None,
        difficult: Difficult = "ignore",
        one_based: bool = True,
        on_bad_image: OnBadImage = "error",
        on_bad_annotation: OnBadAnnotation = "error",
        exif: Exif = "auto",
        allow_empty: bool = False,
    ) -> None:
        folder = Path(annotations)
        files = xml_files(folder)
        if not files:
            raise DataError(folder, "holds no .xml file: the data set is empty")
        finder = ImageFinder(folder if images is None else images)
        super().__init__(str(folder), files, finder, (), categories, difficult, one_based, on_bad_image,
            on_bad_annotation, exif, allow_empty,
        )  # fmt: skip


class VocDetection(VocFiles):
    """A split of a Pascal VOC folder. `DetectionDataset` describes the items.

    Image ids are 1, 2, ... in the order of the split's list; ``area`` is the area of the box. VOC counts pixels from 1
    and includes the last pixel: the box (xmin, ymin, xmax, ymax) becomes (xmin - 1, ymin - 1, xmax, ymax).

    Args:
        folder: the folder with ``Annotations``, ``ImageSets`` and ``JPEGImages``, such as ``VOC2012``.
        split: the name of a list in ``ImageSets/Main``.
        categories: ``{"id", "name"}`` in label order, such as those of a trained model. None: the twenty categories of
            VOC if the annotations have no others; otherwise all names in the annotations, sorted, with ids from 1.
        difficult: treatment of objects that are marked difficult: ``"ignore"`` (iscrowd 1), ``"keep"`` or ``"drop"``.
        one_based: False for files of tools that count pixels from 0.
        on_bad_image: ``"error"`` or ``"skip"``, see `FileDataset`.
        on_bad_annotation: ``"error"``, or ``"skip"``: annotations that cannot be used are left out and counted.
        exif: the frame of the boxes: ``"upright"``, ``"stored"`` or ``"auto"``, see `retina_ops.data.frames`.
        allow_empty: take a data set without a box.

    Raises:
        DataError: a folder, list, annotation or image is missing; the XML is malformed; a category is unknown; or the
            split is empty.
    """

    def __init__(
        self,
        folder: str | Path,
        split: str = "train",
        *,
        categories: Sequence[Category] | None = None,
        difficult: Difficult = "ignore",
        one_based: bool = True,
        on_bad_image: OnBadImage = "error",
        on_bad_annotation: OnBadAnnotation = "error",
        exif: Exif = "auto",
        allow_empty: bool = False,
    ) -> None:
        folder = Path(folder)
        files = [folder / "Annotations" / f"{stem}.xml" for stem in read_split(folder, split)]
        finder = ImageFinder(folder / "JPEGImages")
        others = xml_files(folder / "Annotations") if categories is None else []
        name = f"{folder} ({split})"
        super().__init__(name, files, finder, others, categories, difficult, one_based, on_bad_image,
            on_bad_annotation, exif, allow_empty,
        )  # fmt: skip
        self.folder, self.split = folder, split


def is_voc_folder(folder: str | Path) -> bool:
    """Whether a folder has the Pascal VOC layout."""
    return (Path(folder) / "Annotations").is_dir() and (Path(folder) / "ImageSets").is_dir()


def read_split(folder: Path, split: str) -> list[str]:
    """The image names in ``ImageSets/Main/<split>.txt``. Raises DataError if there are none."""
    file = folder / "ImageSets" / "Main" / f"{split}.txt"
    if not file.is_file():
        lists = sorted(entry.stem for entry in file.parent.glob("*.txt")) if file.parent.is_dir() else []
        raise DataError(file, f"no such list; there are: {', '.join(lists[:20]) or 'none'}")
    lines = [line.strip() for line in file.read_text(encoding="utf-8-sig", errors="replace").splitlines()]
    stems = [_stem(folder, line) for line in lines if line]
    if not stems:
        raise DataError(file, "lists no images: the data set is empty")
    return stems


def _stem(folder: Path, line: str) -> str:
    """The name of the image in a line of a list, for which there is an annotation.

    The name may have spaces; after it there may be -1, 0 or 1, as in VOC's lists of a class. It may be a path or end
    with a suffix. The first reading for which there is an annotation is taken.
    """
    name, _, flag = line.rpartition(" ")
    readings = [line, name.rstrip()] if flag in ("-1", "0", "1") and name.strip() else [line]
    for reading in readings:
        last = reading.replace("\\", "/").rpartition("/")[2]
        for stem in (
            reading,
            last,
            Path(last).stem if Path(last).suffix.lower() in (*IMAGE_SUFFIXES, ".xml") else last,
        ):
            if stem and (folder / "Annotations" / f"{stem}.xml").is_file():
                return stem
    return readings[-1]


def xml_files(folder: Path) -> list[Path]:
    """The ``.xml`` files of a folder in name order, without hidden ones."""
    return sorted(path for path in folder.glob("*") if path.suffix.lower() == ".xml" and not path.name.startswith("."))


def voc_categories(trees: Iterable[ElementTree.Element]) -> list[Category]:
    """The categories of all annotations: VOC's twenty if there are no others, else all names, sorted."""
    names: set[str] = set()
    for tree in trees:
        names.update((element.findtext("name") or "").strip() for element in tree.iter("object"))
    names.discard("")  # an error, where the object is read
    ordered = VOC_NAMES if names <= set(VOC_NAMES) else sorted(names)
    return [{"id": index + 1, "name": name} for index, name in enumerate(ordered)]


def _parse(file: Path) -> ElementTree.Element:
    try:
        root = ElementTree.parse(file).getroot()
    except FileNotFoundError:
        raise DataError(file, "no such annotation file") from None
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DataError(file, f"not valid XML: {error}") from None
    except OSError as error:
        raise DataError(file, f"cannot be read ({error.strerror})") from None
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]  # without its namespace
    return root


def _image_record(
    finder: ImageFinder, file: Path, tree: ElementTree.Element, image_id: int, on_bad_image: OnBadImage, exif: Exif
) -> ImageRecord:
    """The image with the name of the annotation file, else the one that the file states."""
    stated = (tree.findtext("filename") or "").strip()
    path = next((path for suffix in IMAGE_SUFFIXES for path in _with_suffix(finder.folder, file.stem, suffix)), None)
    path = path or (finder.find(stated) if stated else None) or finder.folder / f"{file.stem}.jpg"
    try:
        height, width = (int(float(tree.findtext(f"size/{side}") or 0)) for side in ("height", "width"))
    except (ValueError, OverflowError):
        raise DataError(file, "its size is not a number of pixels") from None
    is_stated = height > 0 and width > 0
    if not is_stated:
        height, width = size_in_file(path, on_bad_image, exif)
    return ImageRecord(image_id, path.relative_to(finder.folder).as_posix(), path, height, width, is_stated)


def _with_suffix(folder: Path, stem: str, suffix: str) -> Iterator[Path]:
    """The file with this suffix, or with the suffix in upper case."""
    for name in (stem + suffix, stem + suffix.upper()):
        if (folder / name).is_file():
            yield folder / name


def _object_name(file: Path, element: ElementTree.Element) -> str:
    name = (element.findtext("name") or "").strip()
    if not name:
        raise DataError(file, "an object has no name")
    return name


def _box(file: Path, name: str, element: ElementTree.Element, origin: float) -> tuple[float, float, float, float]:
    """(x, y, w, h), counted from 0; ``origin`` is the number that the file gives to the first pixel."""
    try:
        x1, y1, x2, y2 = (float(element.findtext(f"bndbox/{key}") or "") for key in ("xmin", "ymin", "xmax", "ymax"))
    except ValueError:
        raise DataError(file, f"the object {name!r} has no bndbox with xmin, ymin, xmax and ymax") from None
    return x1 - origin, y1 - origin, x2 - x1 + origin, y2 - y1 + origin
