"""`retina-ops predict`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import torch

from ..data.drawing import draw_detections, save_png
from ..errors import needs_extra
from ..files import write_json
from ..images import list_images
from ..inference import predict_files
from ..models import load_model
from ..settings import Range
from ..training.distributed import resolve_device
from ..training.progress import progress_bar
from .options import output_folder, parse

with needs_extra("train"):
    import tyro


@dataclass
class PredictOptions:
    """Detect objects in images. Writes annotated PNG files and the detections as COCO JSON.

    Attributes:
        images: image files, or folders of images.
        weights: weights of the model, or their folder.
        output: folder for the annotated pictures and detections.json.
        threshold: smallest score of the detections to return.
        classes: names of the classes to return; if empty, all classes.
        batch_size: images per forward pass.
        device: cpu, cuda or cuda:1; auto: CUDA if available.
        draw: write the annotated pictures.
    """

    images: tyro.conf.Positional[tuple[str, ...]]
    weights: str
    output: str = "runs/predict"
    threshold: Annotated[float, Range(0, 1)] = 0.5
    classes: tuple[str, ...] = ()
    batch_size: Annotated[int, Range(1)] = 4
    device: str = "auto"
    draw: bool = True


def run(arguments: list[str]) -> None:
    """Predicts, writes the results, and prints how many there are."""
    options = parse(PredictOptions, "predict", arguments)
    if not options.images:
        raise ValueError("no images are given: name image files or folders of images")
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
    """COCO results with file and category names. Images have no id in annotations, so they are numbered from 1."""
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
    """The stem, with a number if another image has the same stem. It is added to ``used``."""
    name, number = stem, 1
    while name in used:
        number += 1
        name = f"{stem}-{number}"
    used.add(name)
    return name
