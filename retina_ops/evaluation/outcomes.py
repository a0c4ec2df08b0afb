"""What became of each detection and of each object: hits, misses, and the kinds of false alarms.

Matching is COCO's at one IoU threshold: in each image and class, detections choose in the order of their scores the
free object of the highest IoU. The kinds of false alarms are those of Hoiem et al. 2012, "Diagnosing Error in Object
Detectors".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from .. import box_iou
from ..coco_format import Json
from ..errors import needs_extra

with needs_extra("train"):
    import numpy as np
    import torch

Kind = Literal["hit", "duplicate", "wrong class", "poorly placed", "background", "ignored"]
FALSE_ALARMS: tuple[Kind, ...] = ("duplicate", "wrong class", "poorly placed", "background")
HIT_IOU = 0.5
NEAR_IOU = 0.1  # IoU from which a box without a hit is poorly placed rather than on the background


@dataclass(frozen=True)
class Detection:
    """A detection and what became of it.

    Attributes:
        image_id, category_id, score: as detected.
        box: (x1, y1, x2, y2) in pixels.
        kind: ``"hit"``; ``"duplicate"``: its object has a hit of a higher score; ``"wrong class"``: it is on an object
            of another class; ``"poorly placed"``: its IoU with an object of its class is between 0.1 and 0.5;
            ``"background"``: none of these; ``"ignored"``: in a crowd region.
        iou: with the object that decides the kind; 0 for none.
        object: index of this object in `Outcomes.objects`; -1 for none.
    """

    image_id: int
    category_id: int
    score: float
    box: tuple[float, float, float, float]
    kind: Kind
    iou: float
    object: int


@dataclass(frozen=True)
class GroundTruthObject:
    """An object and what became of it.

    Attributes:
        image_id, category_id: as annotated.
        box: (x1, y1, x2, y2) in pixels.
        score: of the detection that hit it; None for a miss.
    """

    image_id: int
    category_id: int
    box: tuple[float, float, float, float]
    score: float | None

    def as_missed(self) -> GroundTruthObject:
        return replace(self, score=None)


@dataclass(frozen=True)
class Outcomes:
    """All detections, by descending score, and all objects without crowds."""

    detections: list[Detection]
    objects: list[GroundTruthObject]

    def at(self, threshold: float) -> Outcomes:
        """The outcomes of the detections from a score on. Matching does not depend on detections of lower scores."""
        detections = [detection for detection in self.detections if detection.score >= threshold]
        objects = [
            item if item.score is not None and item.score >= threshold else item.as_missed() for item in self.objects
        ]
        return Outcomes(detections, objects)


def outcomes_of(truth: Json, found: Sequence[Json], *, hit_iou: float = HIT_IOU) -> Outcomes:
    """What became of each detection and object.

    Args:
        truth: ground truth as `load_ground_truth` gives it.
        found: detections as `load_detections` gives them.
        hit_iou: IoU from which a detection hits an object of its class.
    """
    annotations, by_image = defaultdict(list), defaultdict(list)
    for entry in truth["annotations"]:
        annotations[entry["image_id"]].append(entry)
    for entry in found:
        by_image[entry["image_id"]].append(entry)
    detections: list[Detection] = []
    objects: list[GroundTruthObject] = []
    for image in truth["images"]:
        objects_of_image = [entry for entry in annotations[image["id"]] if not entry["iscrowd"]]
        crowds = [entry for entry in annotations[image["id"]] if entry["iscrowd"]]
        ordered = sorted(by_image[image["id"]], key=lambda entry: -entry["score"])
        kinds = _outcomes_of_image(objects_of_image, crowds, ordered, hit_iou)
        scores: dict[int, float] = {}
        for entry, (kind, iou, index) in zip(ordered, kinds, strict=True):
            number = len(objects) + index if index >= 0 else -1
            if kind == "hit":
                scores[index] = entry["score"]
            detections.append(
                Detection(image["id"], entry["category_id"], entry["score"], _corners(entry["bbox"]), kind, iou, number)
            )
        objects += [
            GroundTruthObject(image["id"], entry["category_id"], _corners(entry["bbox"]), scores.get(index))
            for index, entry in enumerate(objects_of_image)
        ]
    detections.sort(key=lambda detection: -detection.score)
    return Outcomes(detections, objects)


def _outcomes_of_image(
    objects: Sequence[Json], crowds: Sequence[Json], ordered: Sequence[Json], hit_iou: float
) -> list[tuple[Kind, float, int]]:
    """For each detection, by descending score: its kind, the IoU and the index of the object that decide it."""
    boxes = _tensor([entry["bbox"] for entry in ordered])
    iou = box_iou(boxes, _tensor([entry["bbox"] for entry in objects])).numpy()
    inside = _share_inside(boxes, _tensor([entry["bbox"] for entry in crowds]))
    classes = np.array([entry["category_id"] for entry in objects])
    crowd_classes = np.array([entry["category_id"] for entry in crowds])
    is_taken = np.zeros(len(objects), dtype=bool)
    results: list[tuple[Kind, float, int]] = []
    for row, entry in enumerate(ordered):
        same = classes == entry["category_id"]
        free = np.where(same & ~is_taken, iou[row], -1.0)
        best = int(free.argmax()) if len(objects) else -1
        if best >= 0 and free[best] >= hit_iou:
            is_taken[best] = True
            results.append(("hit", float(free[best]), best))
        elif ((crowd_classes == entry["category_id"]) & (inside[row] >= hit_iou)).any():
            results.append(("ignored", 0.0, -1))
        else:
            results.append(_false_alarm(iou[row], same, hit_iou))
    return results


def _false_alarm(iou: Any, same: Any, hit_iou: float) -> tuple[Kind, float, int]:
    rules: tuple[tuple[Kind, Any, float], ...] = (
        ("duplicate", np.where(same, iou, -1.0), hit_iou),
        ("wrong class", np.where(same, -1.0, iou), hit_iou),
        ("poorly placed", np.where(same, iou, -1.0), NEAR_IOU),
    )
    for kind, values, least in rules:
        if len(values) and values.max() >= least:
            return kind, float(values.max()), int(values.argmax())
    return "background", 0.0, -1


def _share_inside(boxes: torch.Tensor, regions: torch.Tensor) -> Any:
    """The share of each box's area inside each region, ``[boxes, regions]``; 0 for boxes without area."""
    low = torch.maximum(boxes[:, None, :2], regions[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], regions[None, :, 2:])
    area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)[:, None]
    share: Any = ((high - low).clamp(min=0).prod(dim=2) / area.clamp(min=1e-12)).numpy()
    return share


def _tensor(boxes: Sequence[Sequence[float]]) -> torch.Tensor:
    return torch.tensor([_corners(box) for box in boxes], dtype=torch.float64).reshape(-1, 4)


def _corners(box: Sequence[float]) -> tuple[float, float, float, float]:
    x, y, w, h = box
    return x, y, x + w, y + h


# --- what a report shows ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ScoreCurve:
    """Precision, recall and F1 of a class over the score threshold. The thresholds are its detections' scores, falling.

    ``best`` is the index of the highest F1, the first one of equal; -1 without detections.
    """

    thresholds: list[float]
    precision: list[float]
    recall: list[float]
    f1: list[float]
    best: int


def score_curves(outcomes: Outcomes, category_ids: Sequence[int]) -> dict[int, ScoreCurve]:
    """The curve of each class that has objects. Detections in crowd regions do not count."""
    objects: dict[int, int] = defaultdict(int)
    for item in outcomes.objects:
        objects[item.category_id] += 1
    curves = {}
    for category_id in category_ids:
        if not objects[category_id]:
            continue
        counted = [d for d in outcomes.detections if d.category_id == category_id and d.kind != "ignored"]
        hits = np.cumsum([detection.kind == "hit" for detection in counted])
        scores = np.array([detection.score for detection in counted])
        last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)) if len(scores) else np.array([], dtype=int)
        precision, recall = hits[last] / (last + 1), hits[last] / objects[category_id]
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        best = int(f1.argmax()) if len(f1) else -1
        curves[category_id] = ScoreCurve(scores[last].tolist(), precision.tolist(), recall.tolist(), f1.tolist(), best)
    return curves


def confusion_matrix(outcomes: Outcomes, category_ids: Sequence[int]) -> list[list[int]]:
    """Counts by class of the object (rows) and of the detection (columns). The last row and column are the background.

    A hit counts on the diagonal, a detection of the wrong class in its object's row, all other false alarms in the last
    row. A missed object counts in the last column, unless a detection of the wrong class is on it.
    """
    place = {category_id: index for index, category_id in enumerate(category_ids)}
    background = len(place)
    matrix = [[0] * (background + 1) for _ in range(background + 1)]
    confused = set()
    for detection in outcomes.detections:
        if detection.kind == "ignored":
            continue
        row = background
        if detection.kind in ("hit", "wrong class"):
            row = place[outcomes.objects[detection.object].category_id]
            if detection.kind == "wrong class":
                confused.add(detection.object)
        matrix[row][place[detection.category_id]] += 1
    for index, item in enumerate(outcomes.objects):
        if item.score is None and index not in confused:
            matrix[place[item.category_id]][background] += 1
    return matrix
