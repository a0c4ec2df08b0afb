"""Anchors: torchvision's generator, with the paper's sizes."""

from __future__ import annotations

from collections.abc import Sequence

from ..anchor_cache import AnchorCache
from ..errors import needs_extra
from ..resizing import resized_size

with needs_extra("models"):
    import torch
    from torch import Tensor
    from torchvision.models.detection.anchor_utils import AnchorGenerator

__all__ = ["AnchorCache", "anchors_of_image", "default_anchor_generator"]


DEFAULT_SCALES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))


def default_anchor_generator(
    base_sizes: Sequence[float] = (32, 64, 128, 256, 512),
    scales: Sequence[float] = DEFAULT_SCALES,
    aspect_ratios: Sequence[float] = (0.5, 1.0, 2.0),
) -> AnchorGenerator:
    """Anchors of Lin et al. 2017, section 4: three scales and three aspect ratios per cell of each level.

    Args:
        base_sizes: side of the smallest anchor of each level, in pixels of the resized image.
        scales: factors of the base size; the products are rounded down to whole pixels, as in torchvision.
        aspect_ratios: height over width.
    """
    sizes = tuple(tuple(int(base * scale) for scale in scales) for base in base_sizes)
    return AnchorGenerator(sizes, (tuple(aspect_ratios),) * len(sizes))


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
    resized = resized_size(height, width, min_size, max_size)
    padded = tuple(-(-side // divisor) * divisor for side in resized)
    strides = [8 * 2**level for level in range(len(generator.sizes))]
    maps = [torch.empty(1, 1, *(-(-side // stride) for side in padded)) for stride in strides]
    anchors = AnchorCache(1).get(generator, (padded[0], padded[1]), maps)
    back = torch.tensor([width / resized[1], height / resized[0]] * 2)
    return anchors * back
