"""The images of an evaluation report: the worst and the best, with what became of their objects and detections."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import needs_extra
from .outcomes import Detection, GroundTruthObject, Outcomes

with needs_extra("train"):
    from PIL import Image, ImageDraw, ImageFont
    from torch import Tensor

LARGEST = 900  # pixels of the longer side in the page
COLORS = {
    "hit": (0, 200, 80),
    "missed": (255, 220, 0),
    "duplicate": (170, 90, 255),
    "wrong class": (255, 120, 0),
    "poorly placed": (0, 190, 255),
    "background": (255, 40, 40),
}


@dataclass(frozen=True)
class ImageOutcome:
    """An image with the detections from the chosen thresholds on.

    Attributes:
        image_id: of the image.
        objects, detections: in this image.
        errors: misses and false alarms.
    """

    image_id: int
    objects: list[GroundTruthObject]
    detections: list[Detection]

    @property
    def missed(self) -> int:
        return sum(item.score is None for item in self.objects)

    @property
    def false_alarms(self) -> int:
        return sum(item.kind not in ("hit", "ignored") for item in self.detections)

    @property
    def errors(self) -> int:
        return self.missed + self.false_alarms


def outcomes_by_image(outcomes: Outcomes) -> list[ImageOutcome]:
    """Each image with objects or detections, most errors first; of equal ones those with fewer objects first."""
    objects: dict[int, list[GroundTruthObject]] = defaultdict(list)
    detections: dict[int, list[Detection]] = defaultdict(list)
    for item in outcomes.objects:
        objects[item.image_id].append(item)
    for detection in outcomes.detections:
        detections[detection.image_id].append(detection)
    images = [ImageOutcome(image, objects[image], detections[image]) for image in {*objects, *detections}]
    return sorted(images, key=lambda image: (-image.errors, len(image.objects), image.image_id))


def draw_outcome(image: Tensor, outcome: ImageOutcome, names: Mapping[int, str]) -> bytes:
    """The image with its boxes as JPEG: hits, misses, and false alarms by kind, each in its color of `COLORS`.

    Args:
        image: uint8 ``[3, H, W]``.
        outcome: what became of its objects and detections.
        names: of the categories.
    """
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    scale = min(1.0, LARGEST / max(picture.size))
    if scale < 1:
        picture = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(max(10, min(picture.size) // 32))
    for item in outcome.objects:
        if item.score is None:
            _draw(draw, font, item.box, scale, "missed", names.get(item.category_id, "?"))
    for detection in sorted(outcome.detections, key=lambda detection: detection.score):
        if detection.kind != "ignored":
            text = f"{names.get(detection.category_id, '?')} {detection.score:.2f}"
            _draw(draw, font, detection.box, scale, detection.kind, text)
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=85)
    return data.getvalue()


def _draw(
    draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    box: tuple[float, float, float, float], scale: float, kind: str, text: str,
) -> None:  # fmt: skip
    x1, y1, x2, y2 = (side * scale for side in box)
    if not (x2 >= x1 and y2 >= y1):
        return
    color = COLORS[kind]
    draw.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=color, width=2)
    text = "".join(c if c.isprintable() else "?" for c in text)
    left, top, right, bottom = draw.textbbox((x1, y1), text, font=font, anchor="lb")
    if top < 0:  # no room above the box
        left, top, right, bottom = draw.textbbox((x1, y1 + 1), text, font=font, anchor="lt")
    draw.rectangle((left, top, right, bottom), fill=color)
    draw.text((left, top), text, fill=(0, 0, 0), font=font, anchor="lt")
