"""What every data set of this package offers."""

from __future__ import annotations

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

    Item ``i`` is ``(image, target)``: image uint8 ``[3, H, W]``; target a dict of

    ========  =====================  ==============================================================
    boxes     float32 ``[n, 4]``     (x1, y1, x2, y2) in pixels, inside the image, positive sides
    labels    int64 ``[n]``          0..K-1, an index into ``categories``; there is no background
    area      float32 ``[n]``        pixels squared as published (of the mask, where there is one)
    iscrowd   int64 ``[n]``          1: a region of many objects, to be ignored
    image_id  int                    the id of the published annotations
    ========  =====================  ==============================================================

    Attributes:
        name: what messages call this data set.
        categories: ``{"id": original id, "name": str}`` for each label, in label order.
    """

    name: str
    categories: list[Category]

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        return self.load_image(index), self.target(index)

    def load_image(self, index: int) -> Tensor:
        """The image alone, uint8 ``[3, H, W]``."""
        raise NotImplementedError

    def image_size(self, index: int) -> tuple[int, int]:
        """(height, width) in pixels, without reading the image."""
        raise NotImplementedError

    def image_id(self, index: int) -> int:
        """The id that annotations and detections of this image carry."""
        raise NotImplementedError

    def file_name(self, index: int) -> str:
        """The image's file name, relative to its folder."""
        raise NotImplementedError

    def target(self, index: int) -> Target:
        """The target alone, without reading the image."""
        raise NotImplementedError

    def published_annotations(self, index: int) -> list[dict[str, Any]]:
        """COCO annotations (``bbox`` as [x, y, w, h], original ``category_id``, ``area``, ``iscrowd``) for evaluation.

        File data sets return them as published, unclipped, so that AP equals what others compute from the same file.
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
        """Names in label order."""
        return [category["name"] for category in self.categories]

    def subset(self, indices: Sequence[int]) -> SubsetDataset:
        """The images at ``indices`` as a data set of its own."""
        return SubsetDataset(self, indices)


class SubsetDataset(DetectionDataset):
    """Some images of another data set, in the order of ``indices``."""

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
