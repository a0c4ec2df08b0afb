"""Small data sets on disk for the tests of `retina_ops.data`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 64, 48


def write_image(path: Path, width: int = WIDTH, height: int = HEIGHT, seed: int = 0) -> Path:
    """An image file of random pixels, which compress badly, as those of photographs do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def coco_content() -> dict[str, Any]:
    """Three images with unordered ids, and three categories with unordered ids that have gaps."""
    return {
        "images": [
            {"id": 30, "file_name": "c.png", "width": WIDTH, "height": HEIGHT},
            {"id": 10, "file_name": "a.png", "width": WIDTH, "height": HEIGHT},
            {"id": 20, "file_name": "b.png", "width": WIDTH, "height": HEIGHT},
        ],
        "annotations": [
            {"id": 1, "image_id": 10, "category_id": 7, "bbox": [4, 5, 20, 10], "area": 150.5, "iscrowd": 0},
            {"id": 2, "image_id": 30, "category_id": 3, "bbox": [0, 0, 64, 48], "area": 3072, "iscrowd": 1},
            {"id": 3, "image_id": 10, "category_id": 90, "bbox": [30.5, 1.25, 2, 40]},
        ],
        "categories": [{"id": 90, "name": "kite"}, {"id": 3, "name": "car"}, {"id": 7, "name": "dog"}],
    }


def write_coco_folder(folder: Path, content: Any = None) -> Path:
    """Writes images to ``folder/images``, and ``folder/annotations/train.json``. Returns the annotation file."""
    for seed, name in enumerate("abc"):
        write_image(folder / "images" / f"{name}.png", seed=seed)
    file = folder / "annotations" / "train.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(coco_content() if content is None else content))
    return file


def voc_object(name: str, box: tuple[float, float, float, float], difficult: int = 0) -> str:
    corners = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{corners}</bndbox></object>"


def write_voc_folder(folder: Path, objects: dict[str, list[str]] | None = None) -> Path:
    """Writes a Pascal VOC folder with a train list. ``objects`` has the XML elements of each image's objects."""
    if objects is None:
        objects = {
            "2007_000001": [voc_object("dog", (1, 1, 64, 48)), voc_object("person", (11, 6, 20, 25), difficult=1)],
            "2007_000002": [voc_object("cat", (5, 5, 14, 24))],
        }
    for seed, (stem, entries) in enumerate(objects.items()):
        write_image(folder / "JPEGImages" / f"{stem}.jpg", seed=seed)
        size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
        xml = f"<annotation><filename>{stem}.jpg</filename>{size}{''.join(entries)}</annotation>"
        (folder / "Annotations").mkdir(exist_ok=True)
        (folder / "Annotations" / f"{stem}.xml").write_text(xml)
    (folder / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
    (folder / "ImageSets" / "Main" / "train.txt").write_text("".join(f"{stem}\n" for stem in objects))
    return folder
