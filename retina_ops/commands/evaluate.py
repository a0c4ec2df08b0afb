"""`retina-ops evaluate`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch

from ..data.dataset import DetectionDataset
from ..data.export import ground_truth_of
from ..data.opening import open_dataset
from ..evaluation import Evaluation, evaluate, plot_precision_recall
from ..evaluation.inference import detect_dataset
from ..files import write_json
from ..models import load_model
from ..settings import Range
from ..training.distributed import World, joined_world
from ..training.precision import autocast, resolve_precision
from ..training.progress import progress_bar
from .options import metrics_table, output_folder, parse


@dataclass
class EvaluateOptions:
    """Compute COCO metrics of a model on a data set, or of a file of detections.

    Attributes:
        data: COCO .json file, Pascal VOC folder or list, or digits.
        weights: weights of the model, or their folder.
        detections: COCO JSON file of detections, instead of a model.
        images: folder of the images of a COCO file; if empty, it is searched beside the file.
        split: split of a data set folder.
        output: folder for metrics.json, detections.json and precision_recall.png.
        batch_size: images per forward pass.
        workers: processes that load images; 0 loads them in the main process.
        precision: type that convolutions compute in; auto: bf16 where the hardware has it.
        device: cpu, cuda or cuda:1; auto: CUDA if available.
        max_detections: the best so many detections of each image and class count.
        iou_thresholds: IoUs over which AP and AR are averaged; if empty, 0.50 to 0.95 in steps of 0.05.
        on_bad_image: "error" stops at an image that cannot be read; "skip" leaves such images out and counts them.
    """

    data: str
    weights: str = ""
    detections: str = ""
    images: str = ""
    split: str = "test"
    output: str = "runs/evaluate"
    batch_size: Annotated[int, Range(1)] = 8
    workers: Annotated[int, Range(0, 1024)] = 0
    precision: Literal["fp32", "bf16", "fp16", "auto"] = "fp32"
    device: str = "auto"
    max_detections: Annotated[int, Range(1)] = 100
    iou_thresholds: tuple[float, ...] = ()
    on_bad_image: Literal["error", "skip"] = "error"


def run(arguments: list[str]) -> None:
    """Evaluates, and prints a table of the metrics."""
    options = parse(EvaluateOptions, "evaluate", arguments)
    if bool(options.weights) == bool(options.detections):
        raise ValueError("give either --weights (of a model) or --detections (a file), not both")
    if options.detections:
        is_file = Path(options.data).suffix == ".json"
        truth = options.data if is_file else ground_truth_of(open_dataset(options.data, split=options.split))
        evaluation = evaluate(
            truth,
            options.detections,
            iou_thresholds=options.iou_thresholds or None,
            max_detections=options.max_detections,
        )
        _report(evaluation, output_folder(options.output))
        return
    with joined_world(options.device) as world:
        _evaluate_model(options, world)


def _evaluate_model(options: EvaluateOptions, world: World) -> None:
    model = load_model(options.weights, world.device).to(memory_format=torch.channels_last)
    dataset: DetectionDataset = open_dataset(
        options.data,
        options.images or None,
        split=options.split,
        categories=model.categories,
        on_bad_image=options.on_bad_image,
    )
    precision = resolve_precision(options.precision, world.device)
    with progress_bar(f"evaluating on {dataset.name}", enabled=world.is_main) as progress:
        evaluator = detect_dataset(
            model,
            dataset,
            batch_size=options.batch_size,
            workers=options.workers,
            rank=world.rank,
            world_size=world.size,
            context=lambda: autocast(precision, world.device),
            progress=progress,
        )
    evaluator.iou_thresholds, evaluator.max_detections = options.iou_thresholds or None, options.max_detections
    evaluator.compute()
    if world.is_main and evaluator.evaluation is not None:
        output = output_folder(options.output)
        write_json(output / "detections.json", evaluator.detections)
        _report(evaluator.evaluation, output)


def _report(evaluation: Evaluation, output: Path) -> None:
    write_json(output / "metrics.json", evaluation.metrics, indent=2)
    plot_precision_recall(evaluation.precision_recall, output / "precision_recall.png")
    counts = "  ".join(f"{evaluation.metrics[key]} {key}" for key in ("images", "ground_truths", "detections"))
    print(counts.replace("_", " "))
    print(metrics_table(evaluation.metrics))
