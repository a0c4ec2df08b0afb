"""The evaluation report: one HTML file for a person, and the same numbers as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..coco_format import Json
from ..data.dataset import DetectionDataset
from ..errors import needs_extra
from ..files import write_json
from . import report_plots as plots
from .coco import Metrics
from .outcomes import FALSE_ALARMS, HIT_IOU, Outcomes, ScoreCurve, confusion_matrix, outcomes_of, score_curves
from .page import Page
from .report_images import draw_outcome, outcomes_by_image

with needs_extra("train"):
    from torch import Tensor

IOUS = (0.5, 0.75, 0.9)  # of the precision-recall curves
IMAGES = 6  # of the worst and of the best
_SUMMARY = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100")


def image_loader(dataset: DetectionDataset) -> Callable[[int], Tensor]:
    """A function of an image's id that loads it from a data set."""
    places = {dataset.image_id(index): index for index in range(len(dataset))}
    return lambda image_id: dataset.load_image(places[image_id])


def write_evaluation_report(
    truth: Json,
    found: Sequence[Json],
    metrics: Metrics,
    path: str | Path,
    numbers_path: str | Path,
    *,
    title: str = "Evaluation",
    load_image: Callable[[int], Tensor] | None = None,
) -> Path:
    """Writes the report of an evaluation, and its numbers as JSON.

    The page has the metrics; precision, recall and F1 per class with the best score threshold; scores of right and
    wrong detections; what is confused with what; accuracy over object size; the kinds of false alarms; the worst and
    the best images; classes and sizes of objects against detections. It refers to no other file.

    Args:
        truth: ground truth as `load_ground_truth` gives it.
        found: detections as `load_detections` gives them.
        metrics: of `retina_ops.evaluation.evaluate_detections`.
        path: of the page.
        numbers_path: of the JSON file.
        title: of the page.
        load_image: the image of an id, uint8 ``[3, H, W]``. None: a page without images.

    Returns:
        The path.
    """
    names = {row["category_id"]: name for name, row in metrics["per_class"].items()}  # unique
    outcomes = outcomes_of(truth, found, hit_iou=HIT_IOU)
    curves = score_curves(outcomes, list(names))
    thresholds = {key: curve.thresholds[curve.best] for key, curve in curves.items() if curve.best >= 0}
    chosen = _from_thresholds(outcomes, thresholds)
    numbers = _numbers(metrics, names, curves, outcomes, chosen)
    page = Page(title)
    _metrics_section(page, metrics, numbers)
    _curves_section(page, truth, found, names, outcomes, curves)
    _errors_section(page, names, chosen, numbers)
    if load_image is not None:
        _images_section(page, names, chosen, load_image)
    _data_section(page, names, outcomes, chosen)
    write_json(numbers_path, numbers, indent=1)
    return page.write(path)


def _from_thresholds(outcomes: Outcomes, thresholds: dict[int, float]) -> Outcomes:
    """The outcomes of the detections from their class's best threshold on."""
    never = float("inf")
    detections = [item for item in outcomes.detections if item.score >= thresholds.get(item.category_id, never)]
    objects = [
        item if item.score is not None and item.score >= thresholds.get(item.category_id, never) else item.as_missed()
        for item in outcomes.objects
    ]
    return Outcomes(detections, objects)


def _numbers(
    metrics: Metrics, names: dict[int, str], curves: dict[int, ScoreCurve], outcomes: Outcomes, chosen: Outcomes
) -> dict[str, Any]:
    classes = []
    for key, name in names.items():
        curve = curves.get(key)
        row: dict[str, Any] = {"category_id": key, "name": name}
        row |= {"objects": sum(item.category_id == key for item in outcomes.objects)}
        has_best = curve is not None and curve.best >= 0
        for field in ("thresholds", "precision", "recall", "f1"):
            value = getattr(curve, field)[curve.best] if curve is not None and has_best else None
            row["best_threshold" if field == "thresholds" else field] = value
        classes.append(row)
    kinds = Counter(item.kind for item in chosen.detections)
    return {
        "metrics": metrics,
        "hit_iou": HIT_IOU,
        "classes": classes,
        "false_alarms": {kind: kinds[kind] for kind in FALSE_ALARMS},
        "hits": kinds["hit"],
        "missed": sum(item.score is None for item in chosen.objects),
        "confusion": {"category_ids": list(names), "counts": confusion_matrix(chosen, list(names))},
    }


def _metrics_section(page: Page, metrics: Metrics, numbers: dict[str, Any]) -> None:
    page.paragraph(
        f"{metrics['images']:,} images, {metrics['ground_truths']:,} objects, {metrics['detections']:,} detections."
    )
    page.table(_SUMMARY, [[metrics[name] for name in _SUMMARY]])
    page.heading("Classes")
    page.paragraph(
        f"AP as COCO defines it. The best threshold is the score from which F1 at IoU {HIT_IOU:g} is highest on this "
        "data; precision, recall and F1 are those from it on. Choose it on validation data, not on test data."
    )
    by_id = {row["category_id"]: row for row in metrics["per_class"].values()}
    page.table(
        ("class", "objects", "AP", "AP50", "best threshold", "precision", "recall", "F1"),
        [
            [
                row["name"], row["objects"], by_id[row["category_id"]]["AP"], by_id[row["category_id"]]["AP50"],
                row["best_threshold"], row["precision"], row["recall"], row["f1"],
            ]
            for row in numbers["classes"]
        ],
    )  # fmt: skip


def _curves_section(
    page: Page, truth: Json, found: Sequence[Json], names: dict[int, str], outcomes: Outcomes,
    curves: dict[int, ScoreCurve],
) -> None:  # fmt: skip
    page.heading("Precision, recall and thresholds")
    by_iou = {}
    for iou in IOUS:
        at_iou = curves if iou == HIT_IOU else score_curves(outcomes_of(truth, found, hit_iou=iou), list(names))
        by_iou[iou] = {names[key]: curve for key, curve in at_iou.items()}
    page.plot(plots.precision_recall(by_iou), "Precision over recall, for three IoUs from which a detection is a hit.")
    page.plot(
        plots.f1_over_threshold(by_iou[HIT_IOU]), f"F1 at IoU {HIT_IOU:g} over the score threshold; dots mark the best."
    )
    page.plot(plots.score_histogram(outcomes), f"Scores of right and wrong detections at IoU {HIT_IOU:g}.")


def _errors_section(page: Page, names: dict[int, str], chosen: Outcomes, numbers: dict[str, Any]) -> None:
    page.heading("Errors from the best thresholds on")
    page.table(
        ("hits", "missed objects", *FALSE_ALARMS),
        [[numbers["hits"], numbers["missed"], *(numbers["false_alarms"][kind] for kind in FALSE_ALARMS)]],
    )
    page.paragraph(
        "duplicate: its object has a hit of a higher score. wrong class: on an object of another class. poorly placed: "
        "IoU from 0.1 with an object of its class. background: none of these."
    )
    page.plot(
        plots.confusion(numbers["confusion"]["counts"], list(names.values())),
        "What is confused with what. The last row has false alarms, the last column missed objects.",
    )
    page.plot(plots.recall_over_size(chosen), "The share of objects that are found, over their size.")


def _images_section(page: Page, names: dict[int, str], chosen: Outcomes, load_image: Callable[[int], Tensor]) -> None:
    images = outcomes_by_image(chosen)
    worst = [image for image in images if image.errors][:IMAGES]
    best = [image for image in reversed(images) if image.objects and image not in worst][:IMAGES]
    for heading, some in (("Worst images", worst), ("Best images", best)):
        if not some:
            continue
        page.heading(heading)
        page.paragraph(
            "Green: hit. Yellow: missed object. Red: false alarm on the background. Orange: wrong class. Blue: poorly "
            "placed. Violet: duplicate."
        )
        page.pictures(
            [
                (
                    draw_outcome(load_image(image.image_id), image, names),
                    f"image {image.image_id}: {len(image.objects)} objects, {image.missed} missed, "
                    f"{image.false_alarms} false alarms",
                )
                for image in some
            ]
        )


def _data_section(page: Page, names: dict[int, str], outcomes: Outcomes, chosen: Outcomes) -> None:
    page.heading("Data against detections")
    objects = Counter(item.category_id for item in outcomes.objects)
    detections = Counter(item.category_id for item in chosen.detections)
    page.plot(
        plots.class_counts(
            {name: objects[key] for key, name in names.items()}, {name: detections[key] for key, name in names.items()}
        ),
        "Objects and detections per class, from the best thresholds on.",
    )
    page.plot(plots.sizes(chosen), "Sizes of objects and of detections, from the best thresholds on.")
