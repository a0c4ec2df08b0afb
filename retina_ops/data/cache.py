"""A data set whose images are kept in memory, so that they are decoded only once."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import needs_extra
from ..resizing import RESIZED_BY, resized_size
from .dataset import DetectionDataset, Target

with needs_extra("train"):
    import torch
    from torch import Tensor
    from torchvision.transforms.v2 import functional as F


class CachedDataset(DetectionDataset):
    """A data set with its images in memory, as uint8 at the scale that a model trains on.

    It avoids decoding and resizing each image in every epoch. It takes 3 bytes of memory per pixel, which forked loader
    processes share.

    Args:
        dataset: the data set, which is read once, in order.
        min_size: size in pixels of the shorter side after resizing, as in `RetinaNet`. 0: images are not resized.
        max_size: largest size in pixels of the longer side. If it would be exceeded, the shorter side gets smaller
            than ``min_size``. 0: no limit.
        progress: called with (images loaded, images in all).
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        min_size: int = 0,
        max_size: int = 0,
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.dataset = dataset
        self.name, self.categories = dataset.name, dataset.categories
        self._images: list[Tensor] = []
        self._targets: list[Target] = []
        for index in range(len(dataset)):
            image, target = dataset[index]
            if min_size:
                image, target = _scaled(image, target, min_size, max_size)
            self._images.append(image)
            self._targets.append(target)
            if progress is not None:
                progress(index + 1, len(dataset))

    def __len__(self) -> int:
        return len(self._images)

    def load_image(self, index: int) -> Tensor:
        return self._images[index]

    def image_size(self, index: int) -> tuple[int, int]:
        height, width = self._images[index].shape[-2:]
        return height, width

    def image_id(self, index: int) -> int:
        return self.dataset.image_id(index)

    def file_name(self, index: int) -> str:
        return self.dataset.file_name(index)

    def target(self, index: int) -> Target:
        return dict(self._targets[index])


def _scaled(image: Tensor, target: Target, min_size: int, max_size: int) -> tuple[Tensor, Target]:
    height, width = image.shape[-2:]
    size = resized_size(height, width, min_size, max_size)
    target = {**target, RESIZED_BY: (*size, min_size, max_size)}
    if size == (height, width):
        return image, target
    scale_x, scale_y = size[1] / width, size[0] / height
    scaled = {
        **target,
        "boxes": target["boxes"] * torch.tensor([scale_x, scale_y, scale_x, scale_y]),
        "area": target["area"] * (scale_x * scale_y),
    }
    return F.resize(image, list(size), antialias=False), scaled
