"""The frame of a data set's boxes: the pixels as they are stored, or upright after the EXIF orientation.

A camera may store an image on its side and note in EXIF how to turn it. Most annotation tools show the image upright,
some tools and older data sets do not. The boxes of both belong to different pixels. The first rule that applies decides
an image:

1. the option ``exif`` of the data set: ``"upright"`` or ``"stored"``;
2. the size that its annotations state, if that is the size of one frame only (`ImageHeader.frame_of`);
3. the other images of the data set: if rule 2 decides at least three images of a sample and finds ``"stored"`` for all
   of them, then this one is stored, too;
4. upright, with one warning per data set.

Prediction has no annotations: images are upright.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ..errors import DataError, DataWarning
from ..images import Frame, read_header

Exif = Literal["auto", "upright", "stored"]
SAMPLE = 200  # images whose headers are read for rule 3
WITNESSES = 3  # images that must agree before the others follow them


def undecided_frame(name: str, images: Sequence[tuple[Path, tuple[int, int] | None]]) -> Frame:
    """The frame of images that rule 2 does not decide. It warns where it has to assume one.

    Args:
        name: of the data set, for the warning.
        images: the file of each image, and the (height, width) that its annotations state.
    """
    found: list[Frame] = []
    undecided: list[Path] = []
    step = max(1, len(images) // SAMPLE)
    for path, stated in images[::step]:
        try:
            header = read_header(path)
        except DataError:
            continue
        if header.orientation == 1:
            continue
        frame = header.frame_of(stated)
        if frame is None:
            undecided.append(path)
        else:
            found.append(frame)
    if len(found) >= WITNESSES and all(frame == "stored" for frame in found):
        return "stored"
    if undecided and (not found or all(frame == "stored" for frame in found)):
        message = (
            f"{name}: of {len(images[::step])} images looked at, {len(undecided)} have an EXIF orientation (the first: "
            f"{undecided[0].name}), and no annotation tells whether their boxes were drawn on the upright image. They "
            'are taken as upright; exif = "stored" says otherwise, and exif = "upright" ends this warning'
        )
        warnings.warn(message, DataWarning, stacklevel=5)
    return "upright"
