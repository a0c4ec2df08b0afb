"""How exporters lay out a folder, and what to open in it: one row of `LAYOUTS` each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..files import read_json
from ..images import is_image_name
from .coco import CocoDetection
from .dataset import DetectionDataset
from .voc import VocDetection, VocPairs, is_voc_folder, xml_files

SPLIT_NAMES = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


@dataclass(frozen=True)
class FoundLayout:
    """What a folder was taken for.

    Attributes:
        kind: for messages.
        splits: the splits that it has; empty: it has none, and is opened as a whole.
        open: opens a split, with the options of `open_dataset`.
    """

    kind: str
    splits: Sequence[str]
    open: Callable[..., DetectionDataset]


def find_layout(folder: Path, images: Path | None = None) -> FoundLayout:
    """The first layout that a folder has.

    Args:
        folder: the folder.
        images: folder of the images of COCO files, where it is not found beside them.

    Raises:
        DataError: none; the message names those that are known.
    """
    for look in LAYOUTS:
        found = look(folder, images)
        if found is not None:
            return found
    known = "Annotations and ImageSets (VOC), annotations/*.json or SPLIT/_annotations.coco.json or one .json (COCO), "
    known += ".xml files beside images or in annotations/ (labelImg, Kaggle), data.yaml (YOLO)"
    raise DataError(folder, f"is not a data set that is known: {known}")


def _voc(folder: Path, images: Path | None) -> FoundLayout | None:
    """VOC, also one level up: VOCdevkit/VOC2012."""
    places = [folder, *sorted(folder.glob("VOC*")), *sorted(folder.glob("VOCdevkit/VOC*"))]
    found = [place for place in places if is_voc_folder(place)]
    if not found:
        return None
    if len(found) > 1:
        raise DataError(folder, f"has {len(found)} VOC folders: name one, such as {found[0]}")
    lists = found[0] / "ImageSets" / "Main"
    splits = sorted(path.stem for path in lists.glob("*.txt") if not path.name.startswith("."))
    return FoundLayout("a Pascal VOC folder", splits, lambda split, **options: VocDetection(found[0], split, **options))


def _coco(folder: Path, images: Path | None) -> FoundLayout | None:
    """COCO: a file per split, in annotations/ or in a folder per split (Roboflow), or one file for all."""
    files: dict[str, Path] = {}
    for split, names in SPLIT_NAMES.items():
        for name in names:
            exact = [folder / "annotations" / f"{name}.json", folder / name / "_annotations.coco.json"]
            exact += sorted((folder / "annotations").glob(f"instances_{name}*.json"))
            file = next((file for file in exact if file.is_file()), None)
            if file is not None:
                files.setdefault(split, file)
    if files:
        return FoundLayout("COCO files", list(files), lambda split, **o: _open_coco(folder, files, split, images, **o))
    places = (folder, folder / "annotations", folder / "Annotations")
    single = [file for place in places for file in sorted(place.glob("*.json")) if _is_coco(file)]
    if len(single) > 1:
        listed = ", ".join(file.name for file in single[:5])
        raise DataError(folder, f"has {len(single)} COCO files ({listed}) and none is named as a split: name one")
    if not single:
        return None
    return FoundLayout("one COCO file", [], lambda split, **options: CocoDetection(single[0], images, **options))


def _open_coco(
    folder: Path, files: dict[str, Path], split: str, images: Path | None, **options: Any
) -> DetectionDataset:
    file = files.get(split)
    if file is None:
        named = [folder / "annotations" / f"{split}.json", *sorted((folder / "annotations").glob(f"*_{split}*.json"))]
        file = next((path for path in named if path.is_file()), None)
    if file is None:
        raise DataError(folder, f"has no split {split}; there are: {', '.join(files)}")
    return CocoDetection(file, images, **options)


def _is_coco(file: Path) -> bool:
    if file.name.startswith("."):
        return False
    try:
        content = read_json(file)
    except DataError:
        return False
    return isinstance(content, dict) and all(isinstance(content.get(key), list) for key in ("images", "annotations"))


def _yolo(folder: Path, images: Path | None) -> FoundLayout | None:
    """YOLO: data.yaml, or another .yaml file with names."""
    for file in [folder / "data.yaml", folder / "dataset.yaml", *sorted(folder.glob("*.y*ml"))]:
        if file.is_file() and not file.name.startswith("."):
            from .yolo import YoloDetection, read_yaml, yolo_splits

            try:
                splits = yolo_splits(read_yaml(file))
            except DataError:
                if file.name == "data.yaml":
                    raise
                continue

            def open_split(split: str, file: Path = file, **options: Any) -> DetectionDataset:
                return YoloDetection(file, split, **options)

            return FoundLayout("a YOLO folder", splits, open_split)
    return None


def _voc_pairs(folder: Path, images: Path | None) -> FoundLayout | None:
    """XML files and images: in one folder (labelImg), or in annotations/ and images/ (Kaggle), also per split."""
    whole = _first_xml_place(folder)
    if whole is not None:
        place, pictures = whole
        return FoundLayout(
            "annotation files of VOC's form", [], lambda split, **o: VocPairs(place, images or pictures, **o)
        )
    parts = {
        split: folder / name
        for split, names in SPLIT_NAMES.items()
        for name in names
        if _first_xml_place(folder / name) is not None
    }
    if not parts:
        return None

    def open_split(split: str, **options: Any) -> DetectionDataset:
        if split not in parts:
            raise DataError(folder, f"has no split {split}; there are: {', '.join(parts)}")
        place, pictures = _first_xml_place(parts[split]) or (parts[split], None)
        return VocPairs(place, pictures, **options)

    return FoundLayout("annotation files of VOC's form per split", list(parts), open_split)


def _first_xml_place(folder: Path) -> tuple[Path, Path | None] | None:
    return next((place for place in _xml_places(folder) if xml_files(place[0])), None)


def _xml_places(folder: Path) -> list[tuple[Path, Path | None]]:
    """Where XML files may be, and their images; None: beside them."""
    pictures = next((folder / name for name in ("images", "JPEGImages", "Images") if (folder / name).is_dir()), None)
    has_images = folder.is_dir() and any(is_image_name(path.name) for path in folder.iterdir())
    flat: list[tuple[Path, Path | None]] = [(folder, None if has_images else pictures)]
    return flat + [(folder / name, pictures or folder) for name in ("annotations", "Annotations", "xmls", "labels")]


LAYOUTS = (_voc, _coco, _yolo, _voc_pairs)
