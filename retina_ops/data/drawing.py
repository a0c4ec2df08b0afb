"""Drawing boxes with names and scores on an image."""

from __future__ import annotations

import colorsys
import os
from collections.abc import Sequence
from pathlib import Path

from ..errors import needs_extra

with needs_extra("train"):
    import numpy as np
    import torch
    from PIL import Image, ImageDraw, ImageFont
    from torch import Tensor

Colour = tuple[int, int, int]


def class_colour(label: int) -> Colour:
    """A class's colour, 0..255: neighbours in label order differ strongly (golden-angle steps around the hues)."""
    r, g, b = colorsys.hsv_to_rgb((label * 0.618034 + 0.02) % 1.0, 0.85 if label % 2 == 0 else 0.65, 1.0)
    return round(255 * r), round(255 * g), round(255 * b)


def draw_detections(
    image: Tensor,
    boxes: Tensor,
    labels: Tensor | None = None,
    names: Sequence[str] | None = None,
    scores: Tensor | None = None,
    *,
    dashed: Tensor | None = None,
) -> Tensor:
    """A copy of an image with boxes, class names and scores drawn on it.

    Args:
        image: ``[3, H, W]``, uint8, or floating in 0..1.
        boxes: ``[n, 4]`` (x1, y1, x2, y2) in pixels of the image.
        labels: int64 ``[n]``; decides the colours. None: one colour.
        names: the name of each label. None: no names.
        scores: ``[n]``; drawn behind the name with two digits. The best is drawn last.
        dashed: bool ``[n]``; these boxes are drawn thin, such as crowd regions.

    Returns:
        uint8 ``[3, H, W]`` on the CPU.

    Raises:
        ValueError: shapes that do not fit together.
    """
    if image.dim() != 3 or image.shape[0] != 3:
        raise ValueError(f"draw_detections: image must be [3, H, W], got {list(image.shape)}")
    if boxes.dim() != 2 or boxes.shape[1] != 4:
        raise ValueError(f"draw_detections: boxes must be [n, 4], got {list(boxes.shape)}")
    for name, column in (("labels", labels), ("scores", scores), ("dashed", dashed)):
        if column is not None and column.shape != boxes.shape[:1]:
            raise ValueError(f"draw_detections: {name} must be [{len(boxes)}], got {list(column.shape)}")
    if image.is_floating_point():
        image = (image.clamp(0, 1) * 255).round()
    picture = Image.fromarray(np.ascontiguousarray(image.to("cpu", torch.uint8).permute(1, 2, 0).numpy()))
    draw = ImageDraw.Draw(picture)
    shorter = min(picture.size)
    line, font = max(1, round(shorter / 250)), _font(max(10, round(shorter / 35)))
    order = range(len(boxes)) if scores is None else scores.argsort(stable=True).tolist()
    for index in order:
        label = 0 if labels is None else int(labels[index])
        colour = class_colour(label)
        x1, y1, x2, y2 = (float(v) for v in boxes[index])
        if not (x2 >= x1 and y2 >= y1):  # also where a coordinate is NaN
            continue
        thin = dashed is not None and bool(dashed[index])
        draw.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colour, width=1 if thin else line)
        text = "" if names is None else names[label] if 0 <= label < len(names) else str(label)
        if scores is not None:
            text = f"{text} {float(scores[index]):.2f}".strip()
        if text:
            _label(draw, text, (x1, y1), colour, font, picture.size)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def save_png(image: Tensor, path: str | Path) -> Path:
    """Write uint8 ``[3, H, W]`` as PNG, whole or not at all; folders are made where missing. Returns the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy())).save(partial, format="PNG")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _label(
    draw: ImageDraw.ImageDraw,
    text: str,
    corner: tuple[float, float],
    colour: Colour,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    size: tuple[int, int],
) -> None:
    """Text on a plate above the box's upper left corner, moved to stay inside the image."""
    try:
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    except UnicodeEncodeError:  # Pillow without FreeType knows Latin-1 only
        text = text.encode("ascii", "replace").decode()
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    width, height = right - left + 4, bottom - top + 4
    x = min(max(0.0, corner[0]), max(0.0, size[0] - width))
    y = corner[1] - height if corner[1] >= height else min(max(0.0, corner[1]), max(0.0, size[1] - height))
    draw.rectangle((x, y, x + width, y + height), fill=colour)
    bright = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 140
    draw.text((x + 2 - left, y + 2 - top), text, fill=(0, 0, 0) if bright else (255, 255, 255), font=font)
