"""The range of pixel values is decided by their type, not by their content."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from retina_ops.data import DataError, read_image


def saved(path: Path, values: np.ndarray) -> Path:
    Image.fromarray(values).save(path)
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("largest", [0, 200, 255, 256, 300, 4095, 65535])
def test_16_bits(tmp_path: Path, largest: int, suffix: str) -> None:
    """Also where no value is above 255."""
    values = np.linspace(0, largest, 60 * 40).reshape(40, 60).astype(np.uint16)
    image = read_image(saved(tmp_path / f"a{suffix}", values))
    expected = torch.from_numpy((values / 257 + 0.5).astype(np.uint8))
    assert all(torch.equal(plane, expected) for plane in image)


@pytest.mark.parametrize(("maxval", "value"), [(65535, 200), (65535, 300), (1000, 300), (4095, 4095)])
def test_16_bit_pgm(tmp_path: Path, maxval: int, value: int) -> None:
    """Its header states the largest value."""
    pixels = np.full((4, 6), value, dtype=">u2").tobytes()
    (tmp_path / "a.pgm").write_bytes(f"P5\n6 4\n{maxval}\n".encode() + pixels)
    expected = int(value * 255 / maxval + 0.5)
    assert (read_image(tmp_path / "a.pgm").int() - expected).abs().max() <= 1


def test_8_bits(tmp_path: Path) -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert torch.equal(read_image(saved(tmp_path / "a.png", values))[1], torch.from_numpy(values))


def test_floating(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 48, dtype=np.float32).reshape(6, 8)
    image = read_image(saved(tmp_path / "a.tif", values))
    assert torch.equal(image[2], torch.from_numpy((values * 255 + 0.5).astype(np.uint8)))


@pytest.mark.parametrize("value", [1.5, -0.1, float("nan"), 255.0])
def test_floating_out_of_range(tmp_path: Path, value: float) -> None:
    path = saved(tmp_path / "a.tif", np.full((4, 4), value, dtype=np.float32))
    with pytest.raises(DataError, match=r"floating pixels are not in 0\.\.1: convert it to 8 or 16 bits"):
        read_image(path)


def test_32_bit_integers(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.tif", np.full((4, 4), 100, dtype=np.int32))
    with pytest.raises(DataError, match="32-bit integers, whose range is unknown: convert it to 8 or 16 bits"):
        read_image(path)
