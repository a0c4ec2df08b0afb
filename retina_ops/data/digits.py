"""Digits scenes: the built-in data set, composed from the real handwritten digits that ship inside scikit-learn.

The 1,797 digits (8 x 8 pixels, 13 writers) are split into train, val and test before anything is composed, so that no
digit of a test scene was ever seen in training.
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

MIN_DIGIT, MAX_DIGIT = 14, 96  # the longer side of a digit's box, pixels
MAX_DIGITS = 12  # a scene
MAX_IOU = 0.3  # of two digits' boxes
_SOURCE_SHARE = {"train": 0.7, "val": 0.1, "test": 0.2}
_INK = 80  # the level of 0..255 from which a pixel belongs to the digit's box
_TRIES = 24  # positions tried for a digit before it is left out


@dataclass(frozen=True)
class _Layout:
    """Where the digits of a scene lie: boxes int64 [n, 4] (x1, y1, x2, y2), sources int64 [n], labels int64 [n]."""

    boxes: np.ndarray
    sources: np.ndarray
    labels: np.ndarray


class DigitScenes(DetectionDataset):
    """Scenes of 1 to 12 digits of 14 to 96 pixels on textured, noisy backgrounds, generated when asked for.

    Digits are lighter or darker than what is under them by a random contrast; two boxes overlap by an IoU of 0.3 at
    most, the smaller digit on top. Scene i depends on (seed, split, i) and the size alone, and takes about 2 ms.

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``: their digits are disjoint.
        length: number of scenes; None: 4,000, 200 and 500.
        image_size: (height, width) in pixels, or one number for both; at least 256.
        seed: non-negative. Scenes with another seed are other scenes of the same split's digits.
        new_each_epoch: `set_epoch` moves on to scenes that no earlier epoch had.

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
        new_each_epoch: bool = False,
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
        self.new_each_epoch = new_each_epoch
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """With ``new_each_epoch``, epoch e shows the scenes e * length to (e + 1) * length - 1."""
        self._epoch.fill_(epoch if self.new_each_epoch else 0)

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
        return self._scene(index) + 1

    def file_name(self, index: int) -> str:
        return f"{self.split}_{self._scene(index):06d}.png"

    def target(self, index: int) -> Target:
        return self._target(index, _lay_out(self._generator(index), self.split, self.height, self.width))

    def sources(self, index: int) -> list[int]:
        """Which of scikit-learn's digits a scene holds, in the order of its boxes."""
        return _lay_out(self._generator(index), self.split, self.height, self.width).sources.tolist()

    def _scene(self, index: int) -> int:
        return int(self._epoch) * self.length + range(self.length)[index]

    def _generator(self, index: int) -> np.random.Generator:
        key = [self.seed, SPLITS.index(self.split), self._scene(index)]  # type: ignore[arg-type]
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
        canvas += noise * np.float32(generator.uniform(0.02, 0.16))  # up to +-20 levels a pixel
        return torch.from_numpy(canvas.clip(0.0, 255.0, out=canvas).astype(np.uint8))


def source_digits(split: str) -> np.ndarray:
    """Indices into ``sklearn.datasets.load_digits()`` that scenes of a split are composed from, int64, ascending.

    Drawn once for all seeds, 70, 10 and 20 in 100 of each class.
    """
    return _splits()[split]


@lru_cache(maxsize=1)
def _splits() -> dict[str, np.ndarray]:
    labels = _digits()[1]
    generator = np.random.Generator(np.random.PCG64(1797))
    parts: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
    for digit in range(10):
        members = generator.permutation(np.flatnonzero(labels == digit))
        first = round(len(members) * _SOURCE_SHARE["train"])
        second = first + round(len(members) * _SOURCE_SHARE["val"])
        for split, part in zip(SPLITS, np.split(members, [first, second]), strict=True):
            parts[split].append(part)
    return {split: np.sort(np.concatenate(part)) for split, part in parts.items()}


@lru_cache(maxsize=1)
def _digits() -> tuple[np.ndarray, np.ndarray]:
    """uint8 [1797, 8, 8] with ink from 0 to 255, int64 [1797]."""
    digits = load_digits()
    return np.round(digits.images * (255 / 16)).astype(np.uint8), digits.target.astype(np.int64)


@cache
def _glyph(source: int) -> Image.Image:
    """A digit as opacity 0..255, smoothed up, its ink reaching all four edges and the longer side MAX_DIGIT pixels."""
    small = Image.fromarray(np.pad(_digits()[0][source], 1))
    scale = 12
    large = np.asarray(small.resize((10 * scale, 10 * scale), Image.Resampling.BICUBIC), dtype=np.float32)
    opacity = ((large - 70.0) * 2.0).clip(0.0, 255.0).astype(np.uint8)  # a stroke with a soft edge, not a blur
    rows, columns = np.flatnonzero((opacity >= _INK).any(1)), np.flatnonzero((opacity >= _INK).any(0))
    tight = Image.fromarray(opacity[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    ratio = MAX_DIGIT / max(tight.size)
    size = (max(1, round(tight.width * ratio)), max(1, round(tight.height * ratio)))
    return tight.resize(size, Image.Resampling.BILINEAR)


def _lay_out(generator: np.random.Generator, split: str, height: int, width: int) -> _Layout:
    """Largest digit first, each at the first of some random places where it overlaps no other too much."""
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
        fits = _worst_iou(x, y, w, h, boxes[kept]) <= MAX_IOU
        if fits.any():
            first = int(fits.argmax())
            boxes[index] = x[first], y[first], x[first] + w, y[first] + h
            kept.append(index)
    sources = chosen[kept]
    return _Layout(boxes[kept], sources, _digits()[1][sources])


def _worst_iou(x: np.ndarray, y: np.ndarray, w: int, h: int, boxes: np.ndarray) -> np.ndarray:
    """Largest IoU of a w x h box at each of the places [t] with boxes [k, 4]; 0 where there is none."""
    across = np.minimum(x[:, None] + w, boxes[:, 2]) - np.maximum(x[:, None], boxes[:, 0])
    down = np.minimum(y[:, None] + h, boxes[:, 3]) - np.maximum(y[:, None], boxes[:, 1])
    shared = across.clip(0) * down.clip(0)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return (shared / (w * h + areas - shared)).max(axis=1, initial=0.0)


def _background(generator: np.random.Generator, height: int, width: int) -> np.ndarray:
    """float32 [3, H, W] around 0..255: a base colour, blotches at three scales, and in half of the scenes stripes."""
    texture = torch.from_numpy(generator.uniform(55.0, 200.0, (3, 1, 1)).astype(np.float32)).expand(3, 4, 4)
    for cells, strength in ((4, 35.0), (16, 22.0), (64, 12.0)):
        texture = _stretch(texture, cells, cells)
        planes = 1 + 2 * int(generator.integers(2))  # grey or coloured blotches
        grain = generator.standard_normal((planes, cells, cells), dtype=np.float32)
        texture = texture + torch.from_numpy(grain) * generator.uniform(0.0, strength)
    canvas = _stretch(texture, height, width).numpy()
    if generator.random() < 0.5:
        frequency, angle = generator.uniform(0.05, 0.8), generator.uniform(0.0, math.pi)
        x = np.arange(width, dtype=np.float32) * np.float32(frequency * math.cos(angle))
        y = np.arange(height, dtype=np.float32) * np.float32(frequency * math.sin(angle))
        sine = np.outer(np.sin(y), np.cos(x)) + np.outer(np.cos(y), np.sin(x))  # sin(x + y), without H x W sines
        for plane, amplitude in zip(canvas, generator.uniform(3.0, 18.0, 3).astype(np.float32), strict=True):
            plane += sine * amplitude
    return canvas


def _stretch(texture: Tensor, height: int, width: int) -> Tensor:
    """Bicubic [3, h, w] -> [3, height, width] as two matrix products, on one thread faster than `interpolate`."""
    rows, columns = _stretch_matrix(texture.shape[1], height), _stretch_matrix(texture.shape[2], width)
    return rows @ (texture @ columns.T)


@lru_cache(maxsize=16)
def _stretch_matrix(cells: int, length: int) -> Tensor:
    """float32 [length, cells]: the bicubic interpolation of ``cells`` samples at ``length`` places."""
    return interpolate(torch.eye(cells)[None, None], (length, cells), mode="bicubic")[0, 0]


def _draw_digit(generator: np.random.Generator, canvas: np.ndarray, source: int, box: list[int]) -> None:
    """Blend a digit into the canvas, lighter or darker than what lies under it, as far as there is room."""
    x1, y1, x2, y2 = box
    patch = canvas[:, y1:y2, x1:x2]
    opacity = np.asarray(_glyph(source).resize((x2 - x1, y2 - y1), Image.Resampling.BILINEAR), dtype=np.float32)
    under = patch.reshape(3, -1).mean(axis=1)
    level = float(under.mean().clip(0, 255))
    lighter = generator.random() < 1.5 - level / 127.5  # always on a dark ground, never on a bright one
    room = 255.0 - level if lighter else level
    contrast = generator.uniform(min(50.0, room), min(170.0, room))
    tint = generator.uniform(-25.0, 25.0, 3)
    colour = under + (contrast if lighter else -contrast) + (tint - tint.mean())
    patch += opacity * np.float32(1 / 255) * (colour.clip(0, 255).astype(np.float32)[:, None, None] - patch)
