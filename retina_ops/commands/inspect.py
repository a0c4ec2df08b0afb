"""`retina-ops inspect`."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from ..data.inspection import inspect_dataset
from ..data.opening import open_dataset
from ..errors import needs_extra
from ..models import ModelConfig
from ..models.anchors import anchors_of_image, default_anchor_generator
from ..settings import Range, read_toml
from ..training import TrainConfig
from ..training.progress import progress_bar
from .options import parse

with needs_extra("train"):
    import tyro


@dataclass
class InspectOptions:
    """Inspect a data set before training: ground truth, class counts, box sizes, and how well the anchors fit.

    Attributes:
        data: COCO .json file, Pascal VOC folder or list, or digits.
        images: folder of the images of a COCO file; if empty, it is searched beside the file.
        split: split of a data set folder.
        output: folder for summary.json, the plots and the drawn images.
        config: TOML file of a training run; its model is used.
        model: the model whose anchors are matched with the boxes.
        pictures: number of images to draw.
        exif: the frame of the boxes where images have an EXIF orientation: "upright"; "stored", the pixels as they are
            in the file; or "auto", by the sizes that the annotations state.
        on_bad_annotation: "error" stops at an annotation that cannot be used; "skip" leaves such annotations out and
            counts them.
        on_bad_image: "error" stops at an image that cannot be read; "skip" leaves such images out and counts them.
    """

    data: str
    images: str = ""
    split: str = "train"
    output: str = "runs/inspect"
    config: str = ""
    model: ModelConfig = field(default_factory=ModelConfig)
    pictures: Annotated[int, Range(0)] = 16
    exif: Literal["auto", "upright", "stored"] = "auto"
    on_bad_image: Literal["error", "skip"] = "error"
    on_bad_annotation: Literal["error", "skip"] = "error"


def run(arguments: list[str]) -> None:
    """Inspects the data set, and prints the summary."""
    known = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    known.add_argument("--config", default="")
    source = known.parse_known_args(arguments)[0].config
    configured = read_toml(source, TrainConfig).model if source else ModelConfig()
    options = parse(InspectOptions, "inspect", arguments, default=InspectOptions(data=tyro.MISSING, model=configured))
    model = options.model
    generator = default_anchor_generator(model.base_sizes, model.anchor_scales, model.aspect_ratios)
    dataset = open_dataset(
        options.data,
        options.images or None,
        split=options.split,
        on_bad_image=options.on_bad_image,
        on_bad_annotation=options.on_bad_annotation,
        exif=options.exif,
    )
    if dataset.layout:
        print(f"{options.data}: taken as {dataset.layout}", file=sys.stderr)
    with progress_bar("matching anchors") as progress:
        summary = inspect_dataset(
            dataset,
            lambda height, width: anchors_of_image(generator, (height, width), model.min_size, model.max_size),
            options.output,
            fg_iou_thresh=model.loss.fg_iou_thresh,
            bg_iou_thresh=model.loss.bg_iou_thresh,
            pictures=options.pictures,
            progress=progress,
        )
    print(_text(summary))
    print(f"pictures and plots: {options.output}")


def _text(summary: dict[str, Any]) -> str:
    sizes, fit, anchors = summary["box_sizes"], summary["best_anchor_iou"], summary["anchors_per_image"]
    lines = [
        f"{summary['name']}: {summary['images']} images, {summary['boxes']} boxes "
        f"({sizes['small']} small, {sizes['medium']} medium, {sizes['large']} large), "
        f"{summary['crowd_boxes']} crowd regions, {summary['images_without_boxes']} images without a box",
    ]
    width = max(map(len, summary["classes"]))
    for name, row in summary["classes"].items():
        lines.append(
            f"  {name:<{width}}  {row['boxes']:>7} boxes in {row['images']:>6} images, median side "
            f"{row['median_size']}, mean best-anchor IoU {row['mean_best_iou']}"
        )
    lines.append(f"IoU with the best anchor, per box: mean {fit['mean']}, 10th percentile {fit['p10']}")
    lines.append(
        f"anchors per image: {anchors['positive']} positive ({anchors['fewest_positive']} to "
        f"{anchors['most_positive']}), {anchors['ignored']} ignored, {anchors['negative']} negative"
    )
    return "\n".join([*lines, *(f"note: {remark}" for remark in summary["remarks"])])
