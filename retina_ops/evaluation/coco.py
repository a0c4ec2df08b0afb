"""COCO's average precision and recall for boxes, computed by faster-coco-eval.

AP averages precision over 101 recall points, IoU thresholds 0.50 to 0.95 in steps of 0.05, and the classes that have
ground truth. Small, medium and large split at areas of 32^2 and 96^2 pixels, by the published ``area``. Crowd regions
match any number of detections, which then count neither as right nor as wrong. Where COCO's tools print -1 (no ground
truth of that kind) the metrics hold None, which is ``null`` in JSON.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..coco_format import Json
from ..errors import DataError, DataWarning, needs_extra
from .detections import load_detections, load_ground_truth

with needs_extra("train"):
    import numpy as np
    from faster_coco_eval.core.coco import COCO
    from faster_coco_eval.core.faster_eval_api import COCOeval_faster

Metrics = dict[str, Any]
_ALL, _SMALL, _MEDIUM, _LARGE = range(4)  # positions of the area ranges
IOU_THRESHOLDS = tuple(0.5 + 0.05 * step for step in range(10))
MAX_DETECTIONS = 100  # COCO's limit of detections per image and class


@dataclass(frozen=True)
class PrecisionRecall:
    """A precision-recall curve at IoU 0.5: 101 points each, in ascending recall.

    ``precision`` is the envelope (the best at this recall or beyond), 0 past the last recall reached; ``score`` is
    the confidence at which a recall is reached.
    """

    recall: list[float]
    precision: list[float]
    score: list[float]


@dataclass(frozen=True)
class Evaluation:
    """``metrics`` as `evaluate_detections` returns them; ``precision_recall`` by class name, and ``"mean"`` of all."""

    metrics: Metrics
    precision_recall: dict[str, PrecisionRecall]


def evaluate_detections(
    ground_truth: str | Path | Json,
    detections: str | Path | Sequence[Json],
    *,
    image_ids: Iterable[int] | None = None,
    iou_thresholds: Sequence[float] | None = None,
    max_detections: int = MAX_DETECTIONS,
) -> Metrics:
    """COCO box metrics of detections.

    Args:
        ground_truth: COCO JSON file or dict.
        detections: COCO JSON file or list: image_id, original category_id, bbox [x, y, w, h] in pixels, score.
        image_ids: evaluate these images only.
        iou_thresholds: IoUs, in (0, 1], over which AP and AR are averaged; default 0.50 to 0.95 in steps of 0.05.
        max_detections: the best so many detections of each image and class count; COCO's 100 by default. A
            `DataWarning` says where an image has more objects of a class.

    Returns:
        AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl: floats in 0..1, or None where there is no
        ground truth of that kind, or no such IoU threshold; ``per_class``: name -> AP, AP50, AP75, APs, APm, APl,
        AR100, category_id, ground_truths (without crowds), detections; ``images``, ``ground_truths``, ``detections``:
        counts. With another ``max_detections``, such as 400, AR100 is called AR400; AR1 and AR10 are left out where
        they would be above it.

    Raises:
        DataError: an input is missing or malformed, or names an unknown image or category.
        ValueError: no IoU thresholds or one outside (0, 1]; ``max_detections`` below 1.
    """
    options = {"iou_thresholds": iou_thresholds, "max_detections": max_detections}
    return evaluate(ground_truth, detections, image_ids=image_ids, **options).metrics  # type: ignore[arg-type]


def evaluate(
    ground_truth: str | Path | Json,
    detections: str | Path | Sequence[Json],
    *,
    image_ids: Iterable[int] | None = None,
    iou_thresholds: Sequence[float] | None = None,
    max_detections: int = MAX_DETECTIONS,
) -> Evaluation:
    """`evaluate_detections` with the precision-recall curves of the same pass.

    The curves are those at IoU 0.5, or at the lowest threshold where 0.5 is none of them.
    """
    thresholds, limits = _checked_options(iou_thresholds, max_detections)
    truth = load_ground_truth(ground_truth)
    found = load_detections(detections, truth)
    if image_ids is not None:
        truth, found = _restrict(truth, found, set(image_ids))
    _warn_of_limit(truth, max_detections)
    truth["categories"] = sorted(truth["categories"], key=lambda category: category["id"])
    reference = COCO(truth)
    run = COCOeval_faster(reference, reference.loadRes(found), iouType="bbox", print_function=_silent)
    run.params.maxDets = limits
    if iou_thresholds is not None:
        run.params.iouThrs = np.asarray(thresholds)
    run.evaluate()
    run.accumulate()
    precision = np.asarray(run.eval["precision"])  # [IoU, recall, class, area, detections per image]
    recall = np.asarray(run.eval["recall"])  # [IoU, class, area, detections per image]
    scores = np.asarray(run.eval["scores"]).reshape(precision.shape)
    metrics = _average_precision(precision[..., -1], thresholds) | _average_recall(recall, limits)
    names = _unique_names(truth["categories"])
    objects = Counter(entry["category_id"] for entry in truth["annotations"] if not entry["iscrowd"])
    detected = Counter(entry["category_id"] for entry in found)
    metrics["per_class"] = {
        name: _average_precision(precision[:, :, index, :, -1], thresholds)
        | {
            f"AR{max_detections}": _mean(recall[:, index, _ALL, -1]),
            "category_id": category["id"],
            "ground_truths": objects[category["id"]],
            "detections": detected[category["id"]],
        }
        for index, (name, category) in enumerate(zip(names, truth["categories"], strict=True))
    }
    metrics["images"] = len(truth["images"])
    metrics["ground_truths"] = sum(objects.values())
    metrics["detections"] = len(found)
    at = _position(thresholds, 0.5) or 0
    curves = _curves(names, precision[at, :, :, _ALL, -1], scores[at, :, :, _ALL, -1])
    return Evaluation(metrics, curves)


def _checked_options(iou_thresholds: Sequence[float] | None, max_detections: int) -> tuple[list[float], list[int]]:
    """IoU thresholds in ascending order, and the limits of detections per image for which recall is computed."""
    thresholds = sorted(IOU_THRESHOLDS if iou_thresholds is None else map(float, iou_thresholds))
    if not thresholds or not all(0 < threshold <= 1 for threshold in thresholds):
        raise ValueError(f"iou_thresholds must be at least one number in (0, 1], got {iou_thresholds}")
    if max_detections < 1:
        raise ValueError(f"max_detections must be at least 1, got {max_detections}")
    return thresholds, sorted({limit for limit in (1, 10) if limit < max_detections} | {max_detections})


def _warn_of_limit(truth: Json, max_detections: int) -> None:
    """Warns where perfect detections could not find every object."""
    found = Counter((entry["image_id"], entry["category_id"]) for entry in truth["annotations"] if not entry["iscrowd"])
    cut = {image for (image, _), count in found.items() if count > max_detections}
    if cut:
        warnings.warn(
            f"{len(cut)} of {len(truth['images'])} images have more than {max_detections} objects of a class (up to "
            f"{max(found.values())}), and detections beyond {max_detections} do not count: set max_detections",
            DataWarning,
            stacklevel=3,
        )


def _position(thresholds: Sequence[float], wanted: float) -> int | None:
    return next((i for i, threshold in enumerate(thresholds) if abs(threshold - wanted) < 1e-9), None)


def _average_precision(precision: np.ndarray, thresholds: Sequence[float]) -> Metrics:
    """From [IoU, recall, ..., area]."""
    everything = precision[..., _ALL]
    at_50, at_75 = _position(thresholds, 0.5), _position(thresholds, 0.75)
    return {
        "AP": _mean(everything),
        "AP50": None if at_50 is None else _mean(everything[at_50]),
        "AP75": None if at_75 is None else _mean(everything[at_75]),
        "APs": _mean(precision[..., _SMALL]),
        "APm": _mean(precision[..., _MEDIUM]),
        "APl": _mean(precision[..., _LARGE]),
    }


def _average_recall(recall: np.ndarray, limits: Sequence[int]) -> Metrics:
    """From [IoU, class, area, detections per image]."""
    return {
        **{f"AR{limit}": _mean(recall[:, :, _ALL, place]) for place, limit in enumerate(limits)},
        "ARs": _mean(recall[:, :, _SMALL, -1]),
        "ARm": _mean(recall[:, :, _MEDIUM, -1]),
        "ARl": _mean(recall[:, :, _LARGE, -1]),
    }


def _curves(names: list[str], precision: np.ndarray, scores: np.ndarray) -> dict[str, PrecisionRecall]:
    """From [recall, class] arrays; classes without ground truth (-1) have no curve."""
    recall = np.linspace(0.0, 1.0, len(precision))
    known = np.any(precision > -1, axis=0)
    curves = {
        name: PrecisionRecall(recall.tolist(), precision[:, index].tolist(), scores[:, index].tolist())
        for index, name in enumerate(names)
        if known[index]
    }
    if known.any():
        mean_precision, mean_score = precision[:, known].mean(axis=1), scores[:, known].mean(axis=1)
        curves["mean"] = PrecisionRecall(recall.tolist(), mean_precision.tolist(), mean_score.tolist())
    return curves


def _restrict(truth: Json, found: list[Json], image_ids: set[int]) -> tuple[Json, list[Json]]:
    unknown = image_ids - {entry["id"] for entry in truth["images"]}
    if unknown or not image_ids:
        reason = f"does not list image {min(unknown)}" if unknown else "no image was chosen"
        raise DataError("ground truth", reason)
    restricted = {
        "images": [entry for entry in truth["images"] if entry["id"] in image_ids],
        "annotations": [entry for entry in truth["annotations"] if entry["image_id"] in image_ids],
        "categories": truth["categories"],
    }
    return restricted, [entry for entry in found if entry["image_id"] in image_ids]


def _unique_names(categories: Sequence[Json]) -> list[str]:
    names = [category["name"] for category in categories]
    return [
        name if names.count(name) == 1 and name != "mean" else f"{name} ({category['id']})"
        for name, category in zip(names, categories, strict=True)
    ]


def _mean(values: np.ndarray) -> float | None:
    known = values[values > -1]
    return float(known.mean()) if known.size else None


def _silent(*_: Any) -> None:
    """faster-coco-eval reports its steps through this."""
