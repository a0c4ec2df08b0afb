"""`retina-ops evaluate`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch

from ..coco_format import Json
from ..data.dataset import Category, DetectionDataset
from ..data.export import ground_truth_of
from ..data.loading import worker_failures_in_one_line
from ..data.opening import open_dataset
from ..evaluation import Evaluation, evaluate, plot_precision_recall
from ..evaluation.detections import load_detections, load_ground_truth
from ..evaluation.inference import detect_dataset
from ..evaluation.report import image_loader, write_evaluation_report
from ..models import load_model
from ..output_folder import OutputFolder
from ..settings import Range
from ..training.distributed import World, joined_world
from ..training.precision import autocast, resolve_precision
from ..training.progress import progress_bar
from .options import metrics_table, parse


@dataclass
class EvaluateOptions:
    """Compute COCO metrics of a model on a data set, or of a file of detections.

    Attributes:
        data: COCO .json file, Pascal VOC folder or list, or digits.
        weights: weights of the model, or their folder.
        detections: COCO JSON file of detections, instead of a model.
        images: folder of the images of a COCO file; if empty, it is searched beside the file.
        split: split of a data set folder.
        report: HTML file of the report: curves, thresholds, confusions, the worst and best images. Its numbers are
            written beside it as JSON. If empty, none.
        output: folder for metrics.json, detections.json and precision_recall.png.
        batch_size: images per forward pass.
        workers: processes that load images; 0 loads them in the main process.
        precision: type that convolutions compute in; auto: bf16 where the hardware has it.
        device: cpu, cuda or cuda:1; auto: CUDA if available.
        exif: the frame of the boxes where images have an EXIF orientation: "upright"; "stored", the pixels as they are
            in the file; or "auto", by the sizes that the annotations state.
        on_bad_annotation: "error" stops at an annotation that cannot be used; "skip" leaves such annotations out and
            counts them.
        max_detections: the best so many detections of each image and class count.
        iou_thresholds: IoUs over which AP and AR are averaged; if empty, 0.50 to 0.95 in steps of 0.05.
        on_bad_image: "error" stops at an image that cannot be read; "skip" leaves such images out and counts them.
    """

    data: str
    weights: str = ""
    detections: str = ""
    images: str = ""
    split: str = "test"
    report: str = ""
    output: str = "runs/evaluate"
    batch_size: Annotated[int, Range(1)] = 8
    workers: Annotated[int, Range(0, 1024)] = 0
    precision: Literal["fp32", "bf16", "fp16", "auto"] = "fp32"
    device: str = "auto"
    exif: Literal["auto", "upright", "stored"] = "auto"
    max_detections: Annotated[int, Range(1)] = 100
    iou_thresholds: tuple[Annotated[float, Range(0, 1)], ...] = ()
    on_bad_image: Literal["error", "skip"] = "error"
    on_bad_annotation: Literal["error", "skip"] = "error"


def run(arguments: list[str]) -> None:
    """Evaluates, and prints a table of the metrics."""
    options = parse(EvaluateOptions, "evaluate", arguments)
    if bool(options.weights) == bool(options.detections):
        raise ValueError("give either --weights (of a model) or --detections (a file), not both")
    inputs = [options.data, options.weights, options.detections]
    output = OutputFolder(options.output, "evaluate", inputs=[path for path in inputs if path])
    output.check(["metrics.json", "precision_recall.png", *([] if options.detections else ["detections.json"])])
    if options.report:
        _report_folder(options).check(_report_names(options))
    if options.detections:
        is_file = Path(options.data).suffix == ".json"
        dataset = None if is_file and not options.report else _open(options)
        truth = load_ground_truth(options.data if dataset is None or is_file else ground_truth_of(dataset))
        found = load_detections(options.detections, truth)
        evaluation = evaluate(
            truth,
            found,
            iou_thresholds=options.iou_thresholds or None,
            max_detections=options.max_detections,
        )
        _write(evaluation, output)
        if options.report and dataset is not None:
            _write_report(options, truth, found, evaluation, dataset)
        return
    with joined_world(options.device) as world, worker_failures_in_one_line():
        _evaluate_model(options, world, output)


def _evaluate_model(options: EvaluateOptions, world: World, output: OutputFolder) -> None:
    model = load_model(options.weights, world.device).to(memory_format=torch.channels_last)
    dataset = _open(options, model.categories)
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
        output.write_json("detections.json", evaluator.detections)
        _write(evaluator.evaluation, output)
        if options.report:
            truth = load_ground_truth(evaluator.ground_truth)
            found = load_detections(evaluator.detections, truth)
            _write_report(options, truth, found, evaluator.evaluation, dataset)


def _open(options: EvaluateOptions, categories: list[Category] | None = None) -> DetectionDataset:
    dataset = open_dataset(
        options.data,
        options.images or None,
        split=options.split,
        categories=categories,
        on_bad_image=options.on_bad_image,
        on_bad_annotation=options.on_bad_annotation,
        exif=options.exif,
        allow_empty=True,
    )
    if dataset.layout:
        print(f"{options.data}: taken as {dataset.layout}", file=sys.stderr)
    return dataset


def _report_folder(options: EvaluateOptions) -> OutputFolder:
    inputs = [path for path in (options.data, options.weights, options.detections) if path]
    return OutputFolder(Path(options.report).parent, "evaluate", inputs=inputs, option="--report")


def _report_names(options: EvaluateOptions) -> tuple[str, str]:
    page = Path(options.report)
    return page.name, page.with_suffix(".json").name


def _write_report(
    options: EvaluateOptions, truth: Json, found: list[Json], evaluation: Evaluation, dataset: DetectionDataset
) -> None:
    folder, (page, numbers) = _report_folder(options), _report_names(options)
    title = f"{options.weights or Path(options.detections).name} on {dataset.name}"
    with folder.writing(page) as page_file, folder.writing(numbers) as numbers_file:
        write_evaluation_report(
            truth, found, evaluation.metrics, page_file, numbers_file, title=title, load_image=image_loader(dataset)
        )
    print(f"report: {options.report}")


def _write(evaluation: Evaluation, output: OutputFolder) -> None:
    output.write_json("metrics.json", evaluation.metrics, indent=2)
    with output.writing("precision_recall.png") as temporary:
        plot_precision_recall(evaluation.precision_recall, temporary)
    counts = "  ".join(f"{evaluation.metrics[key]} {key}" for key in ("images", "ground_truths", "detections"))
    print(counts.replace("_", " "))
    if not evaluation.metrics["ground_truths"]:
        print(f"no objects are annotated: there is nothing to compare with; the detections are in {output.folder}")
        return
    print(metrics_table(evaluation.metrics))
