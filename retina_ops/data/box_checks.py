"""What is done with annotated boxes that do not fit their images, counted by kind."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

from ..errors import DataError, DataWarning, needs_extra

with needs_extra("train"):
    import numpy as np

MOST = 0.5  # share of the boxes under one rule from which the data set is refused
_KEPT = 0.8  # share of its area that a box keeps when it is clipped a little


@dataclass(frozen=True)
class CheckedBoxes:
    """Boxes clipped to their images.

    Attributes:
        corners: float32 [N, 4] (x1, y1, x2, y2), inside the image.
        is_usable: bool [N]: finite, with an area inside the image.
        counts: how many boxes were ``clipped`` by more than one pixel; left out as ``degenerate`` (not finite, or
            without an area) or ``outside`` the image; and kept although a side is under one pixel (``tiny``).
    """

    corners: np.ndarray
    is_usable: np.ndarray
    counts: dict[str, int]


def check_boxes(name: str, boxes: np.ndarray, sizes: np.ndarray) -> CheckedBoxes:
    """Clips the boxes of a data set. It warns with one line that counts what was changed or left out.

    Args:
        name: of the data set.
        boxes: float64 [N, 4] (x, y, w, h) as annotated, in pixels.
        sizes: float64 [N, 2]: (width, height) of the image of each box.

    Raises:
        DataError: more than half of the boxes are of one kind, which means another format or other images.
    """
    limits = np.tile(sizes, 2)
    is_finite = np.isfinite(boxes).all(axis=1)
    finite = np.where(is_finite[:, None], boxes, 0.0)
    has_area = is_finite & (finite[:, 2:] > 0).all(axis=1)
    corners = np.concatenate([finite[:, :2], finite[:, :2] + finite[:, 2:]], axis=1)
    clipped = corners.clip(0.0, limits).astype(np.float32)
    is_inside = (clipped[:, 2:] > clipped[:, :2]).all(axis=1)
    is_usable = has_area & is_inside
    is_clipped = is_usable & (np.abs(clipped - corners) > 1.0).any(axis=1)
    is_tiny = is_usable & (finite[:, 2:] < 1.0).any(axis=1)
    counts = {
        "clipped": int(is_clipped.sum()),
        "degenerate": int((~has_area).sum()),
        "outside": int((has_area & ~is_inside).sum()),
        "tiny": int(is_tiny.sum()),
    }
    with np.errstate(invalid="ignore", divide="ignore"):
        kept = (clipped[:, 2:] - clipped[:, :2]).clip(0).prod(axis=1) / finite[:, 2:].prod(axis=1)
    is_cut = has_area & ~(kept >= _KEPT)
    _refuse_another_format(name, finite, sizes, {"cut": is_cut, "tiny": is_tiny, "degenerate": ~has_area})
    if any(counts.values()):
        parts = [
            f"{counts['clipped']} extend beyond the image and were clipped",
            f"skipped were {counts['outside']} outside the image and {counts['degenerate']} without an area",
        ]
        if counts["tiny"]:
            parts.append(f"{counts['tiny']} have a side under one pixel")
        warnings.warn(f"{name}: of {len(boxes)} boxes, {'; '.join(parts)}", DataWarning, stacklevel=5)
    return CheckedBoxes(clipped, is_usable, counts)


def _refuse_another_format(name: str, boxes: np.ndarray, sizes: np.ndarray, kinds: dict[str, np.ndarray]) -> None:
    """Raises DataError where more than half of the boxes are of one kind, with a guess at the cause."""
    count = len(boxes)
    if count == 0:
        return

    def is_most(mask: np.ndarray) -> bool:
        return bool(mask.sum() > MOST * count)

    in_unit = ((boxes >= 0) & (boxes <= 1)).all(axis=1)
    if is_most(kinds["tiny"] & np.asarray(in_unit)):
        cause = "their numbers are in 0..1: are they normalised? Boxes are in pixels"
        raise DataError(name, f"{int(kinds['tiny'].sum())} of {count} boxes are smaller than a pixel; {cause}")
    if is_most(kinds["cut"]):
        fits = (boxes[:, 2:] > boxes[:, :2]).all(axis=1) & (boxes[:, 2:] <= sizes + 1).all(axis=1)
        cause = "were they made on images of another size?"
        if is_most(fits & kinds["cut"]):
            cause = "are they corners (x1, y1, x2, y2)? A COCO box is (x, y, width, height)"
        raise DataError(name, f"{int(kinds['cut'].sum())} of {count} boxes extend far beyond their image; {cause}")
    if is_most(kinds["degenerate"]):
        cause = "a side is not positive or not finite; a COCO box is (x, y, width, height)"
        raise DataError(name, f"{int(kinds['degenerate'].sum())} of {count} boxes have no area: {cause}")
