"""Images with an EXIF orientation: their boxes stay on the right pixels in training, evaluation, cache and writers."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor

from retina_ops.data import DataError, DataWarning, open_dataset, read_image, write_coco
from retina_ops.data.cache import CachedDataset
from retina_ops.images import read_header, read_image_size

ORIENTATIONS = range(2, 9)
SIDES = {"wide": (40, 100), "square": (64, 64)}  # (height, width) upright
MARK = (10, 6, 22, 16)  # a white box on the upright image: x1, y1, x2, y2


def write_turned(path: Path, orientation: int, upright: tuple[int, int]) -> tuple[int, int]:
    """An image with a white box at MARK once it is upright, stored so that `orientation` makes it upright.

    Returns:
        (height, width) as stored.
    """
    pixels = np.zeros((*upright, 3), np.uint8)
    x1, y1, x2, y2 = MARK
    pixels[y1:y2, x1:x2] = 255
    for transpose in (None, *Image.Transpose):  # the one that the orientation undoes
        stored = Image.fromarray(pixels)
        if transpose is not None:
            stored = stored.transpose(transpose)
        exif = stored.getexif()
        exif[0x0112] = orientation
        stored.save(path, exif=exif, **({"quality": 100} if path.suffix == ".jpg" else {}))
        with Image.open(path) as again:
            turned = np.asarray(ImageOps.exif_transpose(again).convert("RGB"))
        if turned.shape == pixels.shape and np.abs(turned.astype(int) - pixels).mean() < 3:
            return stored.height, stored.width
    raise AssertionError(orientation)


def stored_mark(orientation: int, stored: tuple[int, int], path: Path) -> list[int]:
    """[x, y, w, h] of the white box on the pixels as they are stored."""
    with Image.open(path) as image:
        image.load()
        ys, xs = np.nonzero(np.asarray(image.convert("L")) > 128)
    return [int(xs.min()), int(ys.min()), int(np.ptp(xs)) + 1, int(np.ptp(ys)) + 1]


UPRIGHT_MARK = [MARK[0], MARK[1], MARK[2] - MARK[0], MARK[3] - MARK[1]]


def write_set(folder: Path, images: list[dict[str, Any]], boxes: list[list[int]]) -> Path:
    content = {
        "images": [{"id": number, **entry} for number, entry in enumerate(images, start=1)],
        "categories": [{"id": 1, "name": "mark"}],
        "annotations": [
            {"id": number, "image_id": number, "category_id": 1, "bbox": box, "iscrowd": 0}
            for number, box in enumerate(boxes, start=1)
        ],
    }
    path = folder / "annotations.json"
    path.write_text(json.dumps(content))
    return path


def contrast(image: Tensor, box: Tensor) -> float:
    """The mean inside the box minus the mean outside, of 0..255."""
    x1, y1, x2, y2 = box.round().int().tolist()
    inside = torch.zeros(image.shape[-2:], dtype=torch.bool)
    inside[y1:y2, x1:x2] = True
    grey = image.float().mean(0)
    return (grey[inside].mean() - grey[~inside].mean()).item()


def assert_on_the_mark(dataset: Any) -> None:
    for index in range(len(dataset)):
        image, target = dataset[index]
        assert image.shape[-2:] == dataset.image_size(index)
        assert contrast(image, target["boxes"][0]) > 200, index


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("frame", ["upright", "stored"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("shape", SIDES)
def test_the_option_decides(tmp_path: Path, shape: str, orientation: int, frame: str, suffix: str) -> None:
    """With and without a stated size."""
    path = tmp_path / f"a{suffix}"
    stored = write_turned(path, orientation, SIDES[shape])
    box = UPRIGHT_MARK if frame == "upright" else stored_mark(orientation, stored, path)
    height, width = SIDES[shape] if frame == "upright" else stored
    for size in ({"height": height, "width": width}, {}):
        file = write_set(tmp_path, [{"file_name": path.name, **size}], [box])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert_on_the_mark(open_dataset(file, exif=frame))  # type: ignore[arg-type]


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("frame", ["upright", "stored"])
def test_the_stated_size_decides(tmp_path: Path, orientation: int, frame: str) -> None:
    path = tmp_path / "a.png"
    stored = write_turned(path, orientation, SIDES["wide"])
    box = UPRIGHT_MARK if frame == "upright" else stored_mark(orientation, stored, path)
    height, width = SIDES["wide"] if frame == "upright" else stored
    file = write_set(tmp_path, [{"file_name": "a.png", "height": height, "width": width}], [box])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_on_the_mark(open_dataset(file))


@pytest.mark.parametrize(("shape", "orientation"), [("wide", 2), ("wide", 3), ("wide", 4), ("square", 6)])
@pytest.mark.parametrize("stated", [True, False])
def test_undecidable_is_upright_and_warns_once(tmp_path: Path, shape: str, orientation: int, stated: bool) -> None:
    """As for prediction, which has no annotations."""
    for name in ("a.png", "b.png"):
        write_turned(tmp_path / name, orientation, SIDES[shape])
    size = dict(zip(("height", "width"), SIDES[shape], strict=True)) if stated else {}
    file = write_set(tmp_path, [{"file_name": name, **size} for name in ("a.png", "b.png")], [UPRIGHT_MARK] * 2)
    with pytest.warns(
        DataWarning, match=r"of 2 images looked at, 2 have an EXIF orientation \(the first: a.png\)"
    ) as found:
        dataset = open_dataset(file)
        assert_on_the_mark(dataset)
    assert len(found) == 1
    assert torch.equal(dataset.load_image(0), read_image(tmp_path / "a.png"))


def test_other_images_decide(tmp_path: Path) -> None:
    """Three images say that this tool annotates stored pixels; the others, which do not tell, follow them."""
    boxes, images = [], []
    telling = [("a.png", 6, "wide"), ("d.png", 8, "wide"), ("e.png", 5, "wide")]
    for name, orientation, shape in [*telling, ("b.png", 3, "wide"), ("c.png", 8, "square")]:
        stored = write_turned(tmp_path / name, orientation, SIDES[shape])
        boxes.append(stored_mark(orientation, stored, tmp_path / name))
        images.append({"file_name": name, "height": stored[0], "width": stored[1]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_on_the_mark(open_dataset(write_set(tmp_path, images, boxes)))


def test_a_single_image_does_not_decide_for_others(tmp_path: Path) -> None:
    """The others are upright, and it is said."""
    stored = write_turned(tmp_path / "a.png", 6, SIDES["wide"])
    write_turned(tmp_path / "b.png", 3, SIDES["wide"])
    sizes = (stored, SIDES["wide"])
    images = [
        {"file_name": name, "height": height, "width": width}
        for name, (height, width) in zip(("a.png", "b.png"), sizes, strict=True)
    ]
    boxes = [stored_mark(6, stored, tmp_path / "a.png"), UPRIGHT_MARK]
    with pytest.warns(DataWarning, match=r"1 have an EXIF orientation \(the first: b\.png\)"):
        assert_on_the_mark(open_dataset(write_set(tmp_path, images, boxes)))


def test_images_without_orientation_say_nothing(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    file = write_set(tmp_path, [{"file_name": "a.png"}], [UPRIGHT_MARK])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_dataset(file)


@pytest.mark.parametrize("frame", ["upright", "stored"])
def test_cache_and_writer_keep_the_frame(tmp_path: Path, frame: str) -> None:
    path = tmp_path / "a.png"
    stored = write_turned(path, 6, SIDES["wide"])
    box = UPRIGHT_MARK if frame == "upright" else stored_mark(6, stored, path)
    dataset = open_dataset(write_set(tmp_path, [{"file_name": "a.png"}], [box]), exif=frame)  # type: ignore[arg-type]
    assert_on_the_mark(CachedDataset(dataset))
    assert_on_the_mark(CachedDataset(dataset, 80, 400))
    write_coco(dataset, tmp_path / "written", "all")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_on_the_mark(open_dataset(tmp_path / "written" / "annotations" / "all.json"))


def test_voc(tmp_path: Path) -> None:
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (tmp_path / folder).mkdir(parents=True)
    stored = write_turned(tmp_path / "JPEGImages" / "a.png", 6, SIDES["wide"])
    x, y, w, h = stored_mark(6, stored, tmp_path / "JPEGImages" / "a.png")
    (tmp_path / "Annotations" / "a.xml").write_text(
        f"<annotation><filename>a.png</filename><object><name>mark</name><bndbox><xmin>{x + 1}</xmin>"
        f"<ymin>{y + 1}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object></annotation>"
    )
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("a\n")
    assert_on_the_mark(open_dataset(tmp_path, exif="stored"))


def test_wrong_option(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_turned(path, 6, SIDES["wide"])
    file = write_set(tmp_path, [{"file_name": "a.png", "height": 40, "width": 100}], [UPRIGHT_MARK])
    with pytest.raises(DataError, match="is 40x100 pixels, but its annotation says 100x40"):
        open_dataset(file, exif="stored")[0]
    with pytest.raises(ValueError, match='exif must be "auto", "upright" or "stored", got \'sideways\''):
        open_dataset(file, exif="sideways")  # type: ignore[arg-type]


@pytest.mark.parametrize("orientation", [0, 9, 6000])
def test_unknown_orientations_are_none(tmp_path: Path, orientation: int) -> None:
    image = Image.new("RGB", (30, 20))
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.jpg", exif=exif)
    assert read_header(tmp_path / "a.jpg").orientation == 1
    assert read_image_size(tmp_path / "a.jpg") == (20, 30) and read_image(tmp_path / "a.jpg").shape == (3, 20, 30)
