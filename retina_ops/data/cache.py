"""A data set whose images are kept in memory, so that they are decoded only once."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import accumulate

from ..errors import needs_extra
from ..resizing import RESIZED_BY, resized_size
from .dataset import DetectionDataset, Target

with needs_extra("train"):
    import torch
    from torch import Tensor
    from torchvision.transforms.v2 import functional as F

_BLOCK = 64 * 2**20  # bytes of a tensor of images


class CachedDataset(DetectionDataset):
    """A data set with its images in memory, as uint8 at the scale that a model trains on.

    It avoids decoding and resizing each image in every epoch. It takes 3 bytes of memory per pixel. The images are in a
    few large tensors, so that worker processes share them, forked or spawned, without an open file for each.

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
        self._pixels = _Pixels()
        targets: list[Target] = []
        for index in range(len(dataset)):
            image, target = dataset[index]
            if min_size:
                image, target = _scaled(image, target, min_size, max_size)
            self._pixels.add(image)
            targets.append(target)
            if progress is not None:
                progress(index + 1, len(dataset))
        self._pixels.trim()
        self._columns, self._others = _columns(targets)

    def __len__(self) -> int:
        return len(self._others)

    def load_image(self, index: int) -> Tensor:
        return self._pixels.image(index)

    def image_size(self, index: int) -> tuple[int, int]:
        height, width = self._pixels.image(index).shape[-2:]
        return height, width

    def image_id(self, index: int) -> int:
        return self.dataset.image_id(index)

    def file_name(self, index: int) -> str:
        return self.dataset.file_name(index)

    def target(self, index: int) -> Target:
        index = range(len(self))[index]
        rows = {name: column[starts[index] : starts[index + 1]] for name, (column, starts) in self._columns.items()}
        return {**self._others[index], **rows}


def _columns(targets: list[Target]) -> tuple[dict[str, tuple[Tensor, list[int]]], list[Target]]:
    """The rows of all targets in one tensor per name, with the start of each target's rows; and the other values."""
    names = {name for target in targets for name, value in target.items() if isinstance(value, Tensor) and value.dim()}
    shared = [name for name in names if all(isinstance(target.get(name), Tensor) for target in targets)]
    columns = {
        name: (torch.cat([target[name] for target in targets]), [0, *accumulate(len(t[name]) for t in targets)])
        for name in shared
    }
    return columns, [{name: value for name, value in target.items() if name not in shared} for target in targets]


class _Pixels:
    """Images in a few large tensors: worker processes that are spawned need an open file for each tensor."""

    def __init__(self) -> None:
        self._blocks: list[Tensor] = []
        self._used = 0  # bytes of the last block
        self._places: list[tuple[int, int, tuple[int, ...]]] = []  # of each image: block, first byte, shape

    def add(self, image: Tensor) -> None:
        """Appends a copy of an image, uint8."""
        size = image.numel()
        if not self._blocks or self._used + size > len(self._blocks[-1]):
            self.trim()
            self._blocks.append(torch.empty(max(size, _BLOCK), dtype=torch.uint8))
            self._used = 0
        self._places.append((len(self._blocks) - 1, self._used, tuple(image.shape)))
        self._blocks[-1][self._used : self._used + size] = image.reshape(-1)
        self._used += size

    def trim(self) -> None:
        """Gives back the unused memory of the last block."""
        if self._blocks:
            self._blocks[-1] = self._blocks[-1][: self._used].clone()

    def image(self, index: int) -> Tensor:
        """The image that was added at this index; it shares the memory."""
        block, start, shape = self._places[index]
        return self._blocks[block][start : start + math.prod(shape)].view(shape)


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
