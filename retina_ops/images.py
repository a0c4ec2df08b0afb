"""Image files: finding them, reading them, checking that they can be read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .errors import DataError, needs_extra

with needs_extra("train"):
    import numpy as np
    import torch
    from PIL import Image, ImageOps
    from torch import Tensor

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")


def read_image(path: str | Path, size: tuple[int, int] | None = None) -> Tensor:
    """An image file as uint8 RGB ``[3, H, W]``.

    Grey, palette, transparent and 16-bit images are converted. The EXIF orientation is applied, except where ``size``
    says that the annotations were made on the pixels as they are stored.

    Args:
        path: the image file.
        size: (height, width) that the annotations state, in pixels.

    Raises:
        DataError: missing, empty, truncated or not an image, or of another size than ``size``.
    """
    path = Path(path)
    try:
        with Image.open(path) as stored:
            stored.load()
            as_stored = size is not None and (stored.height, stored.width) == tuple(size)
            upright = stored if as_stored else ImageOps.exif_transpose(stored)
            pixels = _rgb(upright)
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, ValueError, ...
        raise DataError(path, _reason_unreadable(path, error)) from None
    if size is not None and pixels.shape[:2] != tuple(size):
        found, stated = f"{pixels.shape[1]}x{pixels.shape[0]}", f"{size[1]}x{size[0]}"
        raise DataError(path, f"is {found} pixels, but its annotation says {stated}")
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def read_image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) in pixels after EXIF orientation, from the header alone; raises DataError as `read_image`."""
    path = Path(path)
    try:
        with Image.open(path) as stored:
            turned = stored.getexif().get(0x0112, 1) >= 5  # orientations 5 to 8 swap height and width
            return (stored.width, stored.height) if turned else (stored.height, stored.width)
    except Exception as error:
        raise DataError(path, _reason_unreadable(path, error)) from None


def list_images(paths: str | Path | Iterable[str | Path]) -> list[Path]:
    """Files as given, folders replaced by the images directly in them in name order.

    Raises:
        DataError: a path does not exist, or a folder holds no image.
    """
    paths = [paths] if isinstance(paths, (str, Path)) else list(paths)
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            named = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in IMAGE_SUFFIXES)
            inside = [entry for entry in named if not entry.is_dir()]
            if not inside:
                raise DataError(path, f"holds no image ({', '.join(IMAGE_SUFFIXES)})")
            found.extend(inside)
        elif path.exists():
            found.append(path)
        else:
            raise DataError(path, "no such file or folder")
    return found


def _rgb(image: Image.Image) -> np.ndarray:
    """uint8 [H, W, 3]."""
    if image.mode.startswith("I") or image.mode == "F":  # Pillow would clip 16-bit values at 255
        grey = np.asarray(image, dtype=np.float32)
        top = 65535.0 if grey.max(initial=0) > 255 else 255.0
        return np.repeat((grey * (255.0 / top)).clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
    return np.array(image.convert("RGB"))


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
