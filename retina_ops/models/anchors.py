"""Anchors: torchvision's generator, computed once for each image size."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

from ..data.errors import needs_extra

with needs_extra("models"):
    import torch
    from torch import Tensor
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.image_list import ImageList


def default_anchor_generator(
    base_sizes: Sequence[float] = (32, 64, 128, 256, 512),
    scales: Sequence[float] = (1.0, 2 ** (1 / 3), 2 ** (2 / 3)),
    aspect_ratios: Sequence[float] = (0.5, 1.0, 2.0),
) -> AnchorGenerator:
    """Anchors of Lin et al. 2017, section 4: three scales by three shapes at every cell of each level.

    Args:
        base_sizes: side of the smallest anchor of each level, pixels of the resized image.
        scales: factors of it; sides are cut to whole pixels, as torchvision's.
        aspect_ratios: height over width.
    """
    sizes = tuple(tuple(int(base * scale) for scale in scales) for base in base_sizes)
    return AnchorGenerator(sizes, (tuple(aspect_ratios),) * len(sizes))


class AnchorCache:
    """Anchors of the last image sizes seen, on their device: at most `capacity` of them.

    Training at a few sizes computes each once; safe to use from several threads.
    """

    def __init__(self, capacity: int = 16) -> None:
        self.capacity = capacity
        self._anchors: OrderedDict[tuple[object, ...], Tensor] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._anchors)

    def __deepcopy__(self, memo: dict[int, object]) -> AnchorCache:
        return AnchorCache(self.capacity)

    def __getstate__(self) -> dict[str, object]:
        return {"capacity": self.capacity}

    def __setstate__(self, state: dict[str, int]) -> None:
        self.__init__(state["capacity"])  # type: ignore[misc]

    def get(self, generator: AnchorGenerator, image_size: tuple[int, int], features: list[Tensor]) -> Tensor:
        """All levels' anchors ``[A, 4]``, float32 pixels, for padded images of ``image_size`` (height, width)."""
        grids = tuple(tuple(level.shape[-2:]) for level in features)
        device = features[0].device
        key = (grids, image_size, device, generator.sizes, generator.aspect_ratios)
        with self._lock:
            if key in self._anchors:
                self._anchors.move_to_end(key)
                return self._anchors[key]
        with torch.autocast(device.type, enabled=False):
            # Only the sizes of images and maps matter to the generator.
            image = ImageList(torch.empty(1, 1, *image_size, device=device), [image_size])
            maps = [torch.empty(1, 1, *grid, device=device) for grid in grids]
            anchors = generator(image, maps)[0]
        with self._lock:
            self._anchors[key] = anchors
            while len(self._anchors) > self.capacity:
                self._anchors.popitem(last=False)
        return anchors


def anchors_of_image(
    generator: AnchorGenerator, image_size: tuple[int, int], min_size: int, max_size: int, *, divisor: int = 32
) -> Tensor:
    """The anchors that a model sees on an image, in pixels of that image, without building the model.

    Args:
        generator: of the levels P3 to P7.
        image_size: (height, width) as stored.
        min_size, max_size: the model scales the shorter side to the first, unless the longer would exceed the second.
        divisor: the model pads both sides to a multiple of it.

    Returns:
        ``[A, 4]`` (x1, y1, x2, y2), float32.
    """
    height, width = image_size
    scale = min(min_size / min(height, width), max_size / max(height, width))
    resized = (max(1, int(height * scale)), max(1, int(width * scale)))
    padded = tuple(-(-side // divisor) * divisor for side in resized)
    strides = [8 * 2**level for level in range(len(generator.sizes))]
    maps = [torch.empty(1, 1, *(-(-side // stride) for side in padded)) for stride in strides]
    anchors = AnchorCache(1).get(generator, (padded[0], padded[1]), maps)
    back = torch.tensor([width / resized[1], height / resized[0]] * 2)
    return anchors * back
