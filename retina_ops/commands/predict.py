"""`retina-ops predict`."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Any

import torch

from ..data.drawing import draw_detections, to_picture
from ..errors import needs_extra
from ..files import NewNames
from ..images import list_images
from ..inference import predict_files
from ..models import load_model
from ..output_folder import OutputFolder
from ..settings import Range
from ..training.distributed import resolve_device
from ..training.progress import progress_bar
from .options import parse

with needs_extra("train"):
    import tyro

DETECTIONS = "detections.json"


@dataclass
class PredictOptions:
    """Detect objects in images. Writes annotated PNG files and the detections as COCO JSON, image by image.

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
    """Predicts, writes the results of each image, and prints how many there are."""
    options = parse(PredictOptions, "predict", arguments)
    if not options.images:
        raise ValueError("no images are given: name image files or folders of images")
    files = list_images(options.images)
    output = OutputFolder(options.output, "predict", inputs=[*files, options.weights])
    names = NewNames(".png")
    pictures = {index: names.add(path.name) for index, path in enumerate(files)} if options.draw else {}
    output.check([DETECTIONS, *pictures.values()])
    model = load_model(options.weights, resolve_device(options.device)).to(memory_format=torch.channels_last)
    found = predict_files(
        model,
        files,
        threshold=options.threshold,
        classes=options.classes or None,
        batch_size=options.batch_size,
        with_images=options.draw,
    )
    first = next(found, None)
    if first is None:
        raise ValueError(f"none of the {len(files)} images can be read")
    read = detections = 0
    with output.json_list(DETECTIONS) as written, progress_bar("predicting") as progress:
        for read, result in enumerate(chain([first], found), start=1):
            entries = _coco_entries(read, result, model.categories)
            written.add(entries)
            detections += len(entries)
            if options.draw:
                _draw(result, model.categories, output, pictures[result["index"]])
            progress(read, len(files))
    print(f"{detections} detections in {read} images: {output.folder / DETECTIONS}")


def _draw(result: dict[str, Any], categories: list[dict[str, Any]], output: OutputFolder, name: str) -> None:
    names = [category["name"] for category in categories]
    drawn = draw_detections(result["image"], result["boxes"], result["labels"], names, result["scores"])
    with output.writing(name) as temporary:
        to_picture(drawn).save(temporary, format="PNG")


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
