"""Digits scenes: the built-in data set, composed of scikit-learn's handwritten digits.

The 1,797 digits (8 x 8 pixels, 13 writers) are split into train, val and test before scenes are composed, so that no
digit of a test scene occurs in training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Literal

from ..errors import needs_extra
from .dataset import DetectionDataset, Target

with needs_extra("demo"):
    import numpy as np
    import torch
    from PIL import Image
    from sklearn.datasets import load_digits
    from torch import Tensor
    from torch.nn.functional import interpolate

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
DEFAULT_LENGTHS: dict[str, int] = {"train": 4000, "val": 200, "test": 500}

MIN_DIGIT, MAX_DIGIT = 14, 96  # limits of the longer side of a digit's box, pixels
MAX_DIGITS = 12  # per scene
MAX_IOU = 0.3  # largest IoU of the boxes of two digits
_SOURCE_FRACTION = {"train": 0.7, "val": 0.1, "test": 0.2}  # of each digit class
_INK = 80  # opacity, 0..255, from which a pixel belongs to the digit's box
_TRIES = 24  # random positions per digit; a digit that fits at none is left out


@dataclass(frozen=True)
class _Layout:
    """The digits of a scene.

    Attributes:
        boxes: int64 [n, 4] (x1, y1, x2, y2), pixels.
        sources: int64 [n], indices of scikit-learn's digits.
        labels: int64 [n].
    """

    boxes: np.ndarray
    sources: np.ndarray
    labels: np.ndarray


class DigitScenes(DetectionDataset):
    """Scenes of 1 to 12 digits of 14 to 96 pixels on textured, noisy backgrounds, generated on access.

    Each digit is lighter or darker than its background by a random contrast. The IoU of two boxes is at most 0.3; the
    smaller digit is on top. Scene i depends only on the seed, the split, i and the image size, and takes about 2 ms.

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``, which have no digits in common.
        length: number of scenes. None: 4,000, 200 and 500.
        image_size: (height, width) in pixels, or one number for both; at least 256.
        seed: a non-negative integer. Another seed gives other scenes of the same digits.

    Raises:
        ValueError: an unknown split, or a length, size or seed out of range.
    """

    def __init__(
        self,
        split: str = "train",
        length: int | None = None,
        *,
        image_size: int | tuple[int, int] = 256,
        seed: int = 0,
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"digits scenes: split must be one of {', '.join(SPLITS)}, got {split!r}")
        length = DEFAULT_LENGTHS[split] if length is None else length
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        if length < 1:
            raise ValueError(f"digits scenes: length must be at least 1, got {length}")
        if min(height, width) < 256:
            raise ValueError(f"digits scenes: image_size must be at least 256, got {height} x {width}")
        if seed < 0:
            raise ValueError(f"digits scenes: seed must not be negative, got {seed}")
        self.name = f"digits scenes ({split})"
        self.categories = [{"id": digit, "name": str(digit)} for digit in range(10)]
        self.split, self.length, self.seed = split, length, seed
        self.height, self.width = height, width

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        generator = self._generator(index)
        layout = _lay_out(generator, self.split, self.height, self.width)
        return self._paint(generator, layout), self._target(index, layout)

    def load_image(self, index: int) -> Tensor:
        return self[index][0]

    def image_size(self, index: int) -> tuple[int, int]:
        return self.height, self.width

    def image_id(self, index: int) -> int:
        return range(self.length)[index] + 1

    def file_name(self, index: int) -> str:
        return f"{self.split}_{range(self.length)[index]:06d}.png"

    def target(self, index: int) -> Target:
        return self._target(index, _lay_out(self._generator(index), self.split, self.height, self.width))

    def sources(self, index: int) -> list[int]:
        """The indices of scikit-learn's digits in a scene, in the order of the boxes."""
        return _lay_out(self._generator(index), self.split, self.height, self.width).sources.tolist()

    def _generator(self, index: int) -> np.random.Generator:
        key = [self.seed, SPLITS.index(self.split), range(self.length)[index]]  # type: ignore[arg-type]
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))

    def _target(self, index: int, layout: _Layout) -> Target:
        boxes = torch.from_numpy(layout.boxes.astype(np.float32))
        return {
            "boxes": boxes,
            "labels": torch.from_numpy(layout.labels),
            "area": (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]),
            "iscrowd": torch.zeros(len(boxes), dtype=torch.int64),
            "image_id": self.image_id(index),
        }

    def _paint(self, generator: np.random.Generator, layout: _Layout) -> Tensor:
        canvas = _background(generator, self.height, self.width)
        for source, box in zip(layout.sources.tolist(), layout.boxes.tolist(), strict=True):
            _draw_digit(generator, canvas, source, box)
        noise = generator.integers(-128, 128, canvas.shape, dtype=np.int8)
        canvas += noise * np.float32(generator.uniform(0.02, 0.16))  # at most 20 levels per pixel
        return torch.from_numpy(canvas.clip(0.0, 255.0, out=canvas).astype(np.uint8))


def source_digits(split: str) -> np.ndarray:
    """Indices of the digits of ``sklearn.datasets.load_digits()`` in the scenes of a split, int64, ascending.

    They are the same for all seeds: 70%, 10% and 20% of each class.
    """
    return _splits()[split]


@lru_cache(maxsize=1)
def _splits() -> dict[str, np.ndarray]:
    labels = _digits()[1]
    generator = np.random.Generator(np.random.PCG64(1797))
    parts: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
    for digit in range(10):
        members = generator.permutation(np.flatnonzero(labels == digit))
        first = round(len(members) * _SOURCE_FRACTION["train"])
        second = first + round(len(members) * _SOURCE_FRACTION["val"])
        for split, part in zip(SPLITS, np.split(members, [first, second]), strict=True):
            parts[split].append(part)
    return {split: np.sort(np.concatenate(part)) for split, part in parts.items()}


@lru_cache(maxsize=1)
def _digits() -> tuple[np.ndarray, np.ndarray]:
    """The digits, uint8 [1797, 8, 8] with ink from 0 to 255, and their labels, int64 [1797]."""
    digits = load_digits()
    return np.round(digits.images * (255 / 16)).astype(np.uint8), digits.target.astype(np.int64)


@cache
def _glyph(source: int) -> Image.Image:
    """A digit as opacity 0..255, cropped to its ink and enlarged until the longer side has MAX_DIGIT pixels."""
    small = Image.fromarray(np.pad(_digits()[0][source], 1))
    scale = 12
    large = np.asarray(small.resize((10 * scale, 10 * scale), Image.Resampling.BICUBIC), dtype=np.float32)
    opacity = ((large - 70.0) * 2.0).clip(0.0, 255.0).astype(np.uint8)  # sharper strokes
    rows, columns = np.flatnonzero((opacity >= _INK).any(1)), np.flatnonzero((opacity >= _INK).any(0))
    tight = Image.fromarray(opacity[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    ratio = MAX_DIGIT / max(tight.size)
    size = (max(1, round(tight.width * ratio)), max(1, round(tight.height * ratio)))
    return tight.resize(size, Image.Resampling.BILINEAR)


def _lay_out(generator: np.random.Generator, split: str, height: int, width: int) -> _Layout:
    """Places the digits, the largest first, each at the first random position with no IoU above MAX_IOU."""
    pool = source_digits(split)
    count = int(generator.integers(1, MAX_DIGITS + 1))
    sides = np.exp(generator.uniform(math.log(MIN_DIGIT), math.log(MAX_DIGIT + 0.5), count))
    sides = np.sort(np.clip(np.round(sides), MIN_DIGIT, MAX_DIGIT).astype(np.int64))[::-1]
    stretches = generator.uniform(0.85, 1.15, count)
    chosen = generator.choice(pool, count)
    places = generator.random((count, _TRIES, 2))
    boxes = np.empty((count, 4), dtype=np.int64)
    kept: list[int] = []
    for index in range(count):
        glyph_w, glyph_h = _glyph(int(chosen[index])).size
        wide = glyph_w * stretches[index]
        scale = sides[index] / max(wide, glyph_h)
        w, h = max(3, round(wide * scale)), max(3, round(glyph_h * scale))
        x = (places[index, :, 0] * (width - w + 1)).astype(np.int64)
        y = (places[index, :, 1] * (height - h + 1)).astype(np.int64)
        fits = _largest_iou(x, y, w, h, boxes[kept]) <= MAX_IOU
        if fits.any():
            first = int(fits.argmax())
            boxes[index] = x[first], y[first], x[first] + w, y[first] + h
            kept.append(index)
    sources = chosen[kept]
    return _Layout(boxes[kept], sources, _digits()[1][sources])


def _largest_iou(x: np.ndarray, y: np.ndarray, w: int, h: int, boxes: np.ndarray) -> np.ndarray:
    """Largest IoU with boxes [k, 4] of a box of w x h pixels at each of the positions x, y [t]; 0 without boxes."""
    overlap_w = np.minimum(x[:, None] + w, boxes[:, 2]) - np.maximum(x[:, None], boxes[:, 0])
    overlap_h = np.minimum(y[:, None] + h, boxes[:, 3]) - np.maximum(y[:, None], boxes[:, 1])
    intersection = overlap_w.clip(0) * overlap_h.clip(0)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return (intersection / (w * h + areas - intersection)).max(axis=1, initial=0.0)


def _background(generator: np.random.Generator, height: int, width: int) -> np.ndarray:
    """float32 [3, H, W], about 0..255: a base color, patches at three scales, and stripes in half of the scenes."""
    texture = torch.from_numpy(generator.uniform(55.0, 200.0, (3, 1, 1)).astype(np.float32)).expand(3, 4, 4)
    for cells, strength in ((4, 35.0), (16, 22.0), (64, 12.0)):
        texture = _stretch(texture, cells, cells)
        planes = 1 + 2 * int(generator.integers(2))  # gray or colored patches
        grain = generator.standard_normal((planes, cells, cells), dtype=np.float32)
        texture = texture + torch.from_numpy(grain) * generator.uniform(0.0, strength)
    canvas = _stretch(texture, height, width).numpy()
    if generator.random() < 0.5:
        frequency, angle = generator.uniform(0.05, 0.8), generator.uniform(0.0, math.pi)
        x = np.arange(width, dtype=np.float32) * np.float32(frequency * math.cos(angle))
        y = np.arange(height, dtype=np.float32) * np.float32(frequency * math.sin(angle))
        sine = np.outer(np.sin(y), np.cos(x)) + np.outer(np.cos(y), np.sin(x))  # sin(x + y), from H + W sines
        for plane, amplitude in zip(canvas, generator.uniform(3.0, 18.0, 3).astype(np.float32), strict=True):
            plane += sine * amplitude
    return canvas


def _stretch(texture: Tensor, height: int, width: int) -> Tensor:
    """Bicubic interpolation [3, h, w] -> [3, height, width]; two matrix products, faster than `interpolate`."""
    rows, columns = _stretch_matrix(texture.shape[1], height), _stretch_matrix(texture.shape[2], width)
    return rows @ (texture @ columns.T)


@lru_cache(maxsize=16)
def _stretch_matrix(cells: int, length: int) -> Tensor:
    """float32 [length, cells]: the matrix that interpolates ``cells`` samples at ``length`` positions, bicubic."""
    return interpolate(torch.eye(cells)[None, None], (length, cells), mode="bicubic")[0, 0]


def _draw_digit(generator: np.random.Generator, canvas: np.ndarray, source: int, box: list[int]) -> None:
    """Draws a digit on the canvas, lighter or darker than its background, within 0..255."""
    x1, y1, x2, y2 = box
    patch = canvas[:, y1:y2, x1:x2]
    opacity = np.asarray(_glyph(source).resize((x2 - x1, y2 - y1), Image.Resampling.BILINEAR), dtype=np.float32)
    background = patch.reshape(3, -1).mean(axis=1)
    level = float(background.mean().clip(0, 255))
    is_lighter = generator.random() < 1.5 - level / 127.5  # always on a dark background, never on a bright one
    most = 255.0 - level if is_lighter else level
    contrast = generator.uniform(min(50.0, most), min(170.0, most))
    tint = generator.uniform(-25.0, 25.0, 3)
    color = background + (contrast if is_lighter else -contrast) + (tint - tint.mean())
    patch += opacity * np.float32(1 / 255) * (color.clip(0, 255).astype(np.float32)[:, None, None] - patch)
