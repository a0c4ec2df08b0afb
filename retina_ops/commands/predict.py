"""`retina-ops predict`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..data.drawing import draw_detections, save_png
from ..errors import needs_extra
from ..files import write_json
from ..images import list_images
from ..inference import predict_files
from ..models import load_model
from ..training.distributed import resolve_device
from .options import output_folder, parse, progress_bar

with needs_extra("train"):
    import tyro


@dataclass
class PredictOptions:
    """Detections in images: annotated PNGs and a COCO JSON file.

    Attributes:
        images: image files, or folders of them.
        weights: of the model, or their folder.
        output: folder for the pictures and detections.json.
        threshold: detections with a lower score are left out.
        classes: names of the classes wanted; none named: all.
        batch_size: images that pass through the model together.
        device: cpu, cuda, cuda:1; auto: CUDA where there is one.
        draw: write the annotated pictures.
    """

    images: tyro.conf.Positional[tuple[str, ...]]
    weights: str
    output: str = "runs/predict"
    threshold: float = 0.5
    classes: tuple[str, ...] = ()
    batch_size: int = 4
    device: str = "auto"
    draw: bool = True


def run(arguments: list[str]) -> None:
    """Predicts, writes, and prints a line an image."""
    options = parse(PredictOptions, "predict", arguments)
    if not options.images:
        raise ValueError("name the images or folders to look at")
    model = load_model(options.weights, resolve_device(options.device)).to(memory_format=torch.channels_last)
    files = list_images(options.images)
    detections: list[dict[str, Any]] = []
    used: set[str] = set()
    found = predict_files(
        model,
        files,
        threshold=options.threshold,
        classes=options.classes or None,
        batch_size=options.batch_size,
        with_images=options.draw,
    )
    read = 0
    with progress_bar("predicting") as progress:
        for read, result in enumerate(found, start=1):
            detections += _coco_entries(read, result, model.categories)
            if options.draw:
                target = output_folder(options.output) / f"{_unused(result['path'].stem, used)}.png"
                names = [category["name"] for category in model.categories]
                save_png(
                    draw_detections(result["image"], result["boxes"], result["labels"], names, result["scores"]), target
                )
            progress(read, len(files))
    if not read:
        raise ValueError(f"none of the {len(files)} images can be read")
    path = write_json(output_folder(options.output) / "detections.json", detections)
    print(f"{len(detections)} detections in {read} images: {path}")


def _coco_entries(image_id: int, result: dict[str, Any], categories: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """COCO results, with two keys more for readers: images have no published id here, so they are numbered."""
    rows = zip(result["boxes"].double().tolist(), result["scores"].tolist(), result["labels"].tolist(), strict=True)
    return [
        {
            "image_id": image_id,
            "file_name": str(result["path"]),
            "category_id": categories[label]["id"],
            "category_name": categories[label]["name"],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": score,
        }
        for (x1, y1, x2, y2), score, label in rows
    ]


def _unused(stem: str, used: set[str]) -> str:
    """The name, numbered where two folders have an image of that name."""
    name, number = stem, 1
    while name in used:
        number += 1
        name = f"{stem}-{number}"
    used.add(name)
    return str(Path(name))
