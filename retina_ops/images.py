"""Image files: finding them, reading them, checking that they can be read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .errors import DataError, needs_extra

with needs_extra("train"):
    import numpy as np
    import torch
    from PIL import Image, ImageOps
    from torch import Tensor

Frame = Literal["upright", "stored"]
_ORIENTATION = 0x0112  # EXIF tag
_SIXTEEN_BITS = ("PNG", "PPM")  # formats whose pixels Pillow gives as 32-bit integers in 0..65535

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".jfif", ".jpe", ".avif", ".jp2",
    ".dib", ".tga",
)  # fmt: skip


def is_image_name(name: str) -> bool:
    """Whether a file name has the suffix of an image, in lower or upper case, and is not hidden."""
    return Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")


@dataclass(frozen=True)
class ImageHeader:
    """What the header of an image file says.

    Attributes:
        stored: (height, width) of the pixels as they are stored.
        orientation: EXIF orientation, 1 to 8; 1: the pixels are stored upright.
    """

    stored: tuple[int, int]
    orientation: int

    @property
    def upright(self) -> tuple[int, int]:
        """(height, width) after the orientation has been applied. Orientations 5 to 8 swap the sides."""
        return (self.stored[1], self.stored[0]) if self.orientation >= 5 else self.stored

    def frame_of(self, stated: tuple[int, int] | None) -> Frame | None:
        """The frame that boxes were made in, as far as the image tells.

        Without an orientation both frames are the same: ``"upright"``. Otherwise the size that the annotations state
        decides, if it is that of one of the frames only. It decides nothing where no size is stated, for square images
        and for orientations 2 to 4, which keep the size: None.

        Args:
            stated: (height, width) that the annotations state.
        """
        if self.orientation == 1:
            return "upright"
        if self.stored == self.upright or stated not in (self.stored, self.upright):
            return None
        return "stored" if stated == self.stored else "upright"


def read_image(
    path: str | Path,
    size: tuple[int, int] | None = None,
    *,
    frame: Frame | Literal["auto"] = "auto",
    undecided: Frame = "upright",
) -> Tensor:
    """An image file as uint8 RGB ``[3, H, W]``.

    Grey, palette and transparent images are converted. Pixels of 16 bits are divided by 257, whatever their values;
    floating pixels are in 0..1.

    Args:
        path: the image file.
        size: (height, width) that the annotations state, in pixels.
        frame: ``"upright"`` applies the EXIF orientation, ``"stored"`` does not. ``"auto"``: what
            `ImageHeader.frame_of` finds from ``size``, and ``undecided`` where it finds nothing.
        undecided: see ``frame``.

    Raises:
        DataError: missing, empty, truncated or not an image; of another size than ``size``; pixels of 32-bit integers,
            or floating ones outside 0..1.
    """
    path = Path(path)
    try:
        with Image.open(path) as stored:
            stored.load()
            if frame == "auto":
                frame = _header(stored).frame_of(size) or undecided
            pixels = _rgb(stored if frame == "stored" else ImageOps.exif_transpose(stored), stored.format)
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, ValueError, ...
        raise DataError(path, _reason_unreadable(path, error)) from None
    if size is not None and pixels.shape[:2] != tuple(size):
        found, stated = f"{pixels.shape[1]}x{pixels.shape[0]}", f"{size[1]}x{size[0]}"
        raise DataError(path, f"is {found} pixels, but its annotation says {stated}")
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def read_header(path: str | Path) -> ImageHeader:
    """The size and the EXIF orientation of an image file, without decoding it; raises DataError as `read_image`."""
    path = Path(path)
    try:
        with Image.open(path) as stored:
            return _header(stored)
    except Exception as error:
        raise DataError(path, _reason_unreadable(path, error)) from None


def read_image_size(path: str | Path, *, frame: Frame = "upright") -> tuple[int, int]:
    """(height, width) in pixels in a frame, from the header alone; raises DataError as `read_image`."""
    header = read_header(path)
    return header.upright if frame == "upright" else header.stored


def list_images(paths: str | Path | Iterable[str | Path]) -> list[Path]:
    """Files as given, folders replaced by the images directly in them in name order.

    Raises:
        DataError: a path does not exist, or a folder holds no image.
    """
    paths = [paths] if isinstance(paths, (str, Path)) else list(paths)
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(entry for entry in path.iterdir() if is_image_name(entry.name) and not entry.is_dir())
            if not inside:
                raise DataError(path, f"holds no image ({', '.join(IMAGE_SUFFIXES)})")
            found.extend(inside)
        elif path.exists():
            found.append(path)
        else:
            raise DataError(path, "no such file or folder")
    return found


def _header(image: Image.Image) -> ImageHeader:
    # PNG files may have the block at their end: Pillow would decode them to find it.
    has_exif = image.format != "PNG" or "exif" in image.info or "Raw profile type exif" in image.info
    orientation = image.getexif().get(_ORIENTATION, 1) if has_exif else 1
    known = isinstance(orientation, int) and 1 <= orientation <= 8
    return ImageHeader((image.height, image.width), orientation if known else 1)


def _rgb(image: Image.Image, file_format: str | None) -> np.ndarray:
    """uint8 [H, W, 3]. The range of the values is decided by the type of the pixels, never by their content."""
    if image.mode.startswith("I;16") or (image.mode == "I" and file_format in _SIXTEEN_BITS):
        return _grey(np.asarray(image, dtype=np.float32) / 257)
    if image.mode == "I":
        raise ValueError("its pixels are 32-bit integers, whose range is unknown: convert it to 8 or 16 bits")
    if image.mode == "F":
        grey = np.asarray(image, dtype=np.float32)
        if not (grey.min(initial=0) >= 0 and grey.max(initial=0) <= 1):
            raise ValueError("its floating pixels are not in 0..1: convert it to 8 or 16 bits")
        return _grey(grey * 255)
    return np.array(image.convert("RGB"))


def _grey(values: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] of floating [H, W] in 0..255."""
    return np.repeat((values + 0.5).clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def _reason_unreadable(path: Path, error: Exception) -> str:
    if not path.exists():
        return "no such image file"
    if path.is_dir():
        return "is a folder, expected an image"
    if path.stat().st_size == 0:
        return "is an empty file, expected an image"
    if type(error).__name__ == "UnidentifiedImageError":
        return "is not an image that Pillow can read"
    return f"cannot be read as an image ({error or type(error).__name__})"
