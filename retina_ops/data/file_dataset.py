"""Data sets of image files with annotations: the common part of COCO and Pascal VOC."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import DataError, DataWarning, needs_extra
from ..images import Frame, read_image, read_image_size
from .box_checks import check_boxes
from .dataset import Category, DetectionDataset, Target
from .frames import Exif, undecided_frame

with needs_extra("train"):
    import numpy as np
    import torch
    from torch import Tensor

OnBadImage = Literal["error", "skip"]


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """An image of a data set: id, file and size in pixels.

    ``is_stated``: the annotations state the size; otherwise it was read from the file.
    """

    image_id: int
    file_name: str
    path: Path
    height: int
    width: int
    is_stated: bool = True


@dataclass(frozen=True, slots=True)
class AnnotationColumns:
    """All boxes of a data set, one array per column. Worker processes share the memory of arrays, but not of objects.

    Attributes:
        record: int64 [N], ascending: index of the image.
        boxes: float64 [N, 4]: (x, y, w, h) as annotated, in pixels.
        labels: int64 [N].
        areas: float64 [N], as annotated, in square pixels.
        iscrowd: int64 [N], 1 for regions of many objects.
    """

    record: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    areas: np.ndarray
    iscrowd: np.ndarray

    @classmethod
    def from_rows(cls, rows: Sequence[tuple[int, Sequence[float], int, float, int]]) -> AnnotationColumns:
        """The columns of rows (record, (x, y, w, h), label, area, iscrowd).

        The rows may be in any order. The order of the rows of an image is kept.
        """
        rows = sorted(rows, key=lambda row: row[0])
        record, boxes, labels, areas, iscrowd = zip(*rows, strict=True) if rows else ((), (), (), (), ())
        return cls(
            record=np.array(record, dtype=np.int64),
            boxes=np.array(boxes, dtype=np.float64).reshape(-1, 4),
            labels=np.array(labels, dtype=np.int64),
            areas=np.array(areas, dtype=np.float64),
            iscrowd=np.array(iscrowd, dtype=np.int64),
        )

    def take(self, rows: np.ndarray) -> AnnotationColumns:
        """The rows that an array of indices or a mask selects."""
        return AnnotationColumns(
            self.record[rows], self.boxes[rows], self.labels[rows], self.areas[rows], self.iscrowd[rows]
        )


def size_in_file(path: Path, on_bad_image: OnBadImage, exif: Exif) -> tuple[int, int]:
    """(height, width) of an image file in its frame. (0, 0) for an unreadable image that will be skipped later."""
    try:
        return read_image_size(path, frame="stored" if exif == "stored" else "upright")
    except DataError:
        if on_bad_image == "skip":
            return 0, 0
        raise


class FileDataset(DetectionDataset):
    """Image files with annotations: the common part of `CocoDetection` and `VocDetection`.

    Boxes are clipped to the image. Boxes without an area or outside the image are left out. One `DataWarning` counts
    them; ``box_counts`` holds the numbers, see `CheckedBoxes`. A data set most of whose boxes do not fit is refused.

    Args:
        name: name in messages, usually the annotation file.
        records: the images.
        annotations: the boxes.
        categories: ``{"id", "name"}`` in label order.
        exif: the frame of the boxes: ``"upright"``, ``"stored"``, or ``"auto"``, see `retina_ops.data.frames`.
        on_bad_image: with ``"error"``, a missing file raises immediately, and an unreadable one when it is loaded or
            by `check_images`. With ``"skip"``, all images are decoded immediately, and those that cannot be read are
            left out and counted in one warning.
        allow_empty: take a data set without a usable box.

    Raises:
        DataError: there are no images or no usable boxes; most boxes do not fit their images; or, with ``"error"``, a
            file is missing.
    """

    def __init__(
        self,
        name: str,
        records: list[ImageRecord],
        annotations: AnnotationColumns,
        categories: list[Category],
        on_bad_image: OnBadImage = "error",
        exif: Exif = "auto",
        *,
        allow_empty: bool = False,
    ) -> None:
        if exif not in ("auto", "upright", "stored"):
            raise ValueError(f'exif must be "auto", "upright" or "stored", got {exif!r}')
        if on_bad_image not in ("error", "skip"):
            raise ValueError(f'on_bad_image must be "error" or "skip", got {on_bad_image!r}')
        self.name, self.categories = name, categories
        if not records:
            raise DataError(name, "lists no images: the data set is empty")
        self.records, self.annotations = records, annotations
        self._exif: Exif = exif
        self._undecided: Frame = "upright"
        if on_bad_image == "skip":
            self._skip_bad_images()
        else:
            self._require_files()
        if exif == "auto":
            stated = [(r.path, (r.height, r.width) if r.is_stated else None) for r in self.records]
            self._undecided = undecided_frame(name, stated)
        self._offsets = np.searchsorted(self.annotations.record, np.arange(len(self.records) + 1))
        sizes = np.array([(record.width, record.height) for record in self.records], dtype=np.float64)
        checked = check_boxes(name, self.annotations.boxes, sizes[self.annotations.record])
        self._boxes, self._usable, self.box_counts = checked.corners, checked.is_usable, checked.counts
        if not (allow_empty or self._usable.any()):
            raise DataError(name, f"has no usable box on its {len(self.records)} images: there is nothing to detect")

    def __len__(self) -> int:
        return len(self.records)

    def load_image(self, index: int) -> Tensor:
        record = self.records[index]
        size = record.height, record.width
        if self._exif != "auto":
            return read_image(record.path, size, frame=self._exif)
        return read_image(record.path, size, undecided=self._undecided)

    def image_size(self, index: int) -> tuple[int, int]:
        return self.records[index].height, self.records[index].width

    def image_id(self, index: int) -> int:
        return self.records[index].image_id

    def file_name(self, index: int) -> str:
        return self.records[index].file_name

    def target(self, index: int) -> Target:
        rows = self._rows(index)
        rows = rows[self._usable[rows]]
        columns = self.annotations
        return {
            "boxes": torch.from_numpy(self._boxes[rows]),
            "labels": torch.from_numpy(columns.labels[rows]),
            "area": torch.from_numpy(columns.areas[rows].astype(np.float32)),
            "iscrowd": torch.from_numpy(columns.iscrowd[rows]),
            "image_id": self.image_id(index),
        }

    def published_annotations(self, index: int) -> list[dict[str, Any]]:
        rows, columns = self._rows(index), self.annotations
        rows = rows[np.isfinite(columns.boxes[rows]).all(axis=1) & (columns.boxes[rows, 2:] >= 0).all(axis=1)]
        return [
            {"bbox": box, "category_id": self.categories[label]["id"], "area": area, "iscrowd": crowd}
            for box, label, area, crowd in zip(
                columns.boxes[rows].tolist(),
                columns.labels[rows].tolist(),
                columns.areas[rows].tolist(),
                columns.iscrowd[rows].tolist(),
                strict=True,
            )
        ]

    def check_images(self) -> None:
        """Decodes every image, on several threads.

        Raises:
            DataError: some image cannot be read. The message names the first one and counts the others.
        """
        bad = self._bad_images()
        if bad:
            first = bad[min(bad)]
            more = f" (and {len(bad) - 1} more of {len(self)} images)" if len(bad) > 1 else ""
            raise DataError(first.source, first.reason + more)

    def _rows(self, index: int) -> np.ndarray:
        index = range(len(self.records))[index]  # negative indices, and IndexError past the end
        return np.arange(self._offsets[index], self._offsets[index + 1])

    def _require_files(self) -> None:
        missing = [record.path for record in self.records if not record.path.is_file()]
        if missing:
            reason = f"no such image file; {self.name} lists it"
            more = f" (and {len(missing) - 1} more of {len(self.records)} images are missing)" if missing[1:] else ""
            raise DataError(missing[0], reason + more)

    def _bad_images(self) -> Mapping[int, DataError]:
        def failure(index: int) -> DataError | None:
            try:
                self.load_image(index)
            except DataError as error:
                return error
            return None

        with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow releases the interpreter lock while decoding
            failures = pool.map(failure, range(len(self.records)))
            return {index: error for index, error in enumerate(failures) if error is not None}

    def _skip_bad_images(self) -> None:
        bad = self._bad_images()
        if not bad:
            return
        first = bad[min(bad)]
        if len(bad) == len(self.records):
            raise DataError(self.name, f"none of its {len(bad)} images can be read; the first: {first}")
        message = (
            f"{self.name}: skipped {len(bad)} of {len(self.records)} images that cannot be read; the first: {first}"
        )
        warnings.warn(message, DataWarning, stacklevel=4)
        kept = np.array([index not in bad for index in range(len(self.records))])
        columns = self.annotations.take(kept[self.annotations.record])
        new_index = np.cumsum(kept) - 1
        self.annotations = AnnotationColumns(
            new_index[columns.record], columns.boxes, columns.labels, columns.areas, columns.iscrowd
        )
        self.records = [record for index, record in enumerate(self.records) if index not in bad]
