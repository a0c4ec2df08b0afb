"""Images kept in memory, decoded once."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import needs_extra
from ..resizing import RESIZED_TO, resized_size
from .dataset import DetectionDataset, Target

with needs_extra("train"):
    import torch
    from torch import Tensor
    from torchvision.transforms.v2 import functional as F


class CachedDataset(DetectionDataset):
    """Another data set with its images in memory, as uint8 at the scale that a model trains on.

    Training from it saves the decoding and the resizing of each epoch. Memory: 3 bytes a pixel, which loader processes
    share where they are forked.

    Args:
        dataset: is read once, in order.
        min_size, max_size: images are scaled to this shorter side, unless the longer one would exceed ``max_size``, as
            `RetinaNet` does; 0: kept as they are. Boxes and areas are scaled along.
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
    target = {**target, RESIZED_TO: size}
    if size == (height, width):
        return image, target
    across, down = size[1] / width, size[0] / height
    scaled = {
        **target,
        "boxes": target["boxes"] * torch.tensor([across, down, across, down]),
        "area": target["area"] * (across * down),
    }
    return F.resize(image, list(size), antialias=False), scaled
