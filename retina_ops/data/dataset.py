"""The interface of all data sets of this package."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from ..errors import needs_extra

with needs_extra("train"):
    import torch
    from torch import Tensor
    from torch.utils.data import Dataset

Target = dict[str, Any]
Category = dict[str, Any]


class DetectionDataset(Dataset[tuple[Tensor, Target]]):
    """Images with boxes. A subclass provides `__len__`, `load_image`, `image_size`, `image_id`, `file_name`, `target`.

    Item ``i`` is ``(image, target)``. The image is uint8 ``[3, H, W]``, the target a dict of

    ========  =====================  ==============================================================
    boxes     float32 ``[n, 4]``     (x1, y1, x2, y2) in pixels, inside the image, positive sides
    labels    int64 ``[n]``          0..K-1, an index into ``categories``; there is no background
    area      float32 ``[n]``        square pixels as annotated (area of the mask if there is one)
    iscrowd   int64 ``[n]``          1: a region of many objects, to be ignored
    image_id  int                    the id of the image in the annotations
    ========  =====================  ==============================================================

    Attributes:
        name: name of the data set in messages.
        categories: ``{"id": original id, "name": str}`` for each label, in label order.
        layout: what a folder was taken for; empty if the data set was not opened from a folder.
    """

    name: str
    layout: str = ""
    categories: list[Category]

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        return self.load_image(index), self.target(index)

    def load_image(self, index: int) -> Tensor:
        """The image without its target, uint8 ``[3, H, W]``."""
        raise NotImplementedError

    def image_size(self, index: int) -> tuple[int, int]:
        """(height, width) in pixels, without reading the image."""
        raise NotImplementedError

    def image_id(self, index: int) -> int:
        """The id of the image in annotations and detections."""
        raise NotImplementedError

    def file_name(self, index: int) -> str:
        """The file name of the image, relative to the image folder."""
        raise NotImplementedError

    def target(self, index: int) -> Target:
        """The target, without reading the image."""
        raise NotImplementedError

    def published_annotations(self, index: int) -> list[dict[str, Any]]:
        """COCO annotations (``bbox`` as [x, y, w, h], original ``category_id``, ``area``, ``iscrowd``) for evaluation.

        Data sets read from files return the boxes as annotated, not clipped to the image, so that AP is the same as
        that of other tools on the same file.
        """
        target = self.target(index)
        boxes = target["boxes"].double()
        boxes = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1)
        columns = (boxes.tolist(), target["labels"].tolist(), target["area"].tolist(), target["iscrowd"].tolist())
        return [
            {"bbox": box, "category_id": self.categories[label]["id"], "area": area, "iscrowd": crowd}
            for box, label, area, crowd in zip(*columns, strict=True)
        ]

    @property
    def category_names(self) -> list[str]:
        """The names of the categories, in label order."""
        return [category["name"] for category in self.categories]

    def subset(self, indices: Sequence[int]) -> DetectionDataset:
        """Deprecated: the images at ``indices`` as another data set."""
        warnings.warn("DetectionDataset.subset will be removed", FutureWarning, stacklevel=2)
        return DeprecatedSubset(self, indices)


class DeprecatedSubset(DetectionDataset):
    """Deprecated: some images of another data set. It will be removed together with `DetectionDataset.subset`."""

    def __init__(self, dataset: DetectionDataset, indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, list(indices)
        self.name, self.categories = dataset.name, dataset.categories

    def __len__(self) -> int:
        return len(self.indices)

    def load_image(self, index: int) -> Tensor:
        return self.dataset.load_image(self.indices[index])

    def image_size(self, index: int) -> tuple[int, int]:
        return self.dataset.image_size(self.indices[index])

    def image_id(self, index: int) -> int:
        return self.dataset.image_id(self.indices[index])

    def file_name(self, index: int) -> str:
        return self.dataset.file_name(self.indices[index])

    def target(self, index: int) -> Target:
        return self.dataset.target(self.indices[index])

    def published_annotations(self, index: int) -> list[dict[str, Any]]:
        return self.dataset.published_annotations(self.indices[index])
