"""Drawing boxes with class names and scores on an image."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from .._deprecated import renamed_arguments
from ..errors import needs_extra
from ..files import atomic_write

with needs_extra("train"):
    import numpy as np
    import torch
    from PIL import Image, ImageDraw, ImageFont
    from torch import Tensor

Color = tuple[int, int, int]


def class_color(label: int) -> Color:
    """The RGB color of a class, 0..255. The hues of consecutive labels are a golden angle apart, so they differ."""
    r, g, b = colorsys.hsv_to_rgb((label * 0.618034 + 0.02) % 1.0, 0.85 if label % 2 == 0 else 0.65, 1.0)
    return round(255 * r), round(255 * g), round(255 * b)


@renamed_arguments(dashed="thin")
def draw_detections(
    image: Tensor,
    boxes: Tensor,
    labels: Tensor | None = None,
    names: Sequence[str] | None = None,
    scores: Tensor | None = None,
    *,
    thin: Tensor | None = None,
) -> Tensor:
    """A copy of an image with boxes, class names and scores drawn on it.

    torchvision's ``draw_bounding_boxes`` writes a name inside its box, where it hides small objects, and cuts it off at
    the border of the image. This function writes it above the box and keeps it inside the image.

    Args:
        image: ``[3, H, W]``, uint8, or floating point in 0..1.
        boxes: ``[n, 4]`` (x1, y1, x2, y2) in pixels of the image. Boxes with NaN or negative sides are not drawn.
        labels: int64 ``[n]``, which decide the colors. None: one color for all boxes.
        names: the name of each label. None: no names.
        scores: ``[n]``, written after the name with two decimals. The box with the highest score is drawn last.
        thin: bool ``[n]``: boxes to draw with a thin line, such as crowd regions.

    Returns:
        uint8 ``[3, H, W]`` on the CPU.

    Raises:
        ValueError: shapes that do not fit together.
    """
    if image.dim() != 3 or image.shape[0] != 3:
        raise ValueError(f"draw_detections: image must be [3, H, W], got {list(image.shape)}")
    if boxes.dim() != 2 or boxes.shape[1] != 4:
        raise ValueError(f"draw_detections: boxes must be [n, 4], got {list(boxes.shape)}")
    for name, column in (("labels", labels), ("scores", scores), ("thin", thin)):
        if column is not None and column.shape != boxes.shape[:1]:
            raise ValueError(f"draw_detections: {name} must be [{len(boxes)}], got {list(column.shape)}")
    if image.is_floating_point():
        image = (image.clamp(0, 1) * 255).round()
    picture = to_picture(image.to("cpu", torch.uint8))
    draw = ImageDraw.Draw(picture)
    shorter_side = min(picture.size)
    line_width, font = max(1, round(shorter_side / 250)), _font(max(10, round(shorter_side / 35)))
    order = range(len(boxes)) if scores is None else scores.argsort(stable=True).tolist()
    for index in order:
        label = 0 if labels is None else int(labels[index])
        color = class_color(label)
        x1, y1, x2, y2 = boxes[index].tolist()
        if not (x2 >= x1 and y2 >= y1):  # also true for NaN
            continue
        is_thin = thin is not None and bool(thin[index])
        draw.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=color, width=1 if is_thin else line_width)
        text = "" if names is None else names[label] if 0 <= label < len(names) else str(label)
        if scores is not None:
            text = f"{text} {float(scores[index]):.2f}".strip()
        if text:
            _draw_text(draw, text, (x1, y1), color, font, picture.size)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def save_png(image: Tensor, path: str | Path) -> Path:
    """Writes uint8 ``[3, H, W]`` as a PNG file, as `retina_ops.files.atomic_write` does. Returns the path."""
    with atomic_write(path) as temporary:
        to_picture(image).save(temporary, format="PNG")
    return Path(path)


def to_picture(image: Tensor) -> Image.Image:
    """uint8 ``[3, H, W]`` as Pillow's image."""
    # Merging the planes is over ten times as fast as copying the transposed array.
    return Image.merge("RGB", [Image.fromarray(plane) for plane in image.contiguous().numpy()])


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """DejaVu Sans, which comes with matplotlib. Pillow's own font has no accented letters."""
    with needs_extra("train"):
        import matplotlib
    try:
        return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)
    except (ImportError, OSError):  # Pillow was built without FreeType, or matplotlib was packaged without its fonts
        return ImageFont.load_default(size)


def _draw_text(
    draw: ImageDraw.ImageDraw,
    text: str,
    corner: tuple[float, float],
    color: Color,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    size: tuple[int, int],
) -> None:
    """Writes text on a colored background above the box's upper left ``corner``, moved to stay inside the image."""
    try:
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    except UnicodeEncodeError:  # Pillow without FreeType can only write Latin-1
        text = text.encode("ascii", "replace").decode()
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    width, height = right - left + 4, bottom - top + 4
    x = min(max(0.0, corner[0]), max(0.0, size[0] - width))
    y = corner[1] - height if corner[1] >= height else min(max(0.0, corner[1]), max(0.0, size[1] - height))
    draw.rectangle((x, y, x + width, y + height), fill=color)
    is_bright = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] > 140
    draw.text((x + 2 - left, y + 2 - top), text, fill=(0, 0, 0) if is_bright else (255, 255, 255), font=font)
