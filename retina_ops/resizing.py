"""The size to which a model resizes an image: one rule for the model, its anchors and the image cache."""

from __future__ import annotations

# Key of the target of an image that was resized before it reaches the model: (height, width, min_size, max_size), the
# size that the image has since and the limits that gave it. A side may be one pixel short of its limit. Without this
# entry, a model with the same limits would interpolate the image again.
RESIZED_BY = "resized_by"


def resized_size(height: int, width: int, min_size: int, max_size: int) -> tuple[int, int]:
    """(height, width) after resizing, as torchvision's ``GeneralizedRCNNTransform`` computes it.

    The shorter side becomes ``min_size``, unless the longer side would then exceed ``max_size``. Both are rounded down,
    so that a side may be one pixel less than asked for where the scale is not exact in binary.

    Args:
        height, width: of the image, in pixels.
        min_size: wanted shorter side.
        max_size: longest side that this may give; 0 for no limit.

    Returns:
        The size, at least 1 pixel each.
    """
    scale = min_size / min(height, width)
    if max_size:
        scale = min(scale, max_size / max(height, width))
    return max(1, int(height * scale)), max(1, int(width * scale))
