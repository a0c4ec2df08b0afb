"""Hits, misses and the kinds of false alarms; what is counted from them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from retina_ops.evaluation import evaluate_detections
from retina_ops.evaluation.detections import load_detections, load_ground_truth
from retina_ops.evaluation.outcomes import confusion_matrix, outcomes_of, score_curves

CATEGORIES = [{"id": 3, "name": "cell"}, {"id": 7, "name": "platelet"}]


def outcomes(objects: list[dict[str, Any]], found: list[dict[str, Any]], images: int = 1) -> Any:
    truth = load_ground_truth(
        {
            "images": [{"id": image} for image in range(1, images + 1)],
            "categories": CATEGORIES,
            "annotations": [{"image_id": 1, "id": number, **entry} for number, entry in enumerate(objects, start=1)],
        }
    )
    detections = [{"image_id": 1, **entry} for entry in found]
    return outcomes_of(truth, load_detections(detections, truth))


def kinds(result: Any) -> list[str]:
    return [detection.kind for detection in result.detections]


def test_each_kind() -> None:
    cell, platelet = {"category_id": 3, "bbox": [0, 0, 10, 10]}, {"category_id": 7, "bbox": [40, 40, 10, 10]}
    crowd = {"category_id": 3, "bbox": [100, 100, 50, 50], "iscrowd": 1}
    result = outcomes(
        [cell, platelet, crowd],
        [
            {"category_id": 3, "bbox": [0, 0, 10, 9], "score": 0.9},
            {"category_id": 3, "bbox": [0, 0, 10, 10], "score": 0.8},  # a better box, but later
            {"category_id": 3, "bbox": [40, 40, 10, 10], "score": 0.7},
            {"category_id": 7, "bbox": [45, 45, 10, 10], "score": 0.6},  # IoU 25 / 175
            {"category_id": 7, "bbox": [70, 70, 10, 10], "score": 0.5},
            {"category_id": 3, "bbox": [110, 110, 20, 20], "score": 0.4},
            {"category_id": 7, "bbox": [110, 110, 20, 20], "score": 0.3},  # a crowd of another class
        ],
    )
    assert kinds(result) == [
        "hit", "duplicate", "wrong class", "poorly placed", "background", "ignored", "background",
    ]  # fmt: skip
    assert result.detections[0].iou == pytest.approx(0.9) and result.detections[3].iou == pytest.approx(25 / 175)
    assert [item.score for item in result.objects] == [0.9, None]
    assert [detection.object for detection in result.detections] == [0, 0, 1, 1, -1, -1, -1]


def test_a_better_free_object_is_taken() -> None:
    """The second detection is on both objects; the first one is taken, so it hits the other."""
    result = outcomes(
        [{"category_id": 3, "bbox": [0, 0, 10, 10]}, {"category_id": 3, "bbox": [2, 0, 10, 10]}],
        [
            {"category_id": 3, "bbox": [0, 0, 10, 10], "score": 0.9},
            {"category_id": 3, "bbox": [0, 0, 10, 10], "score": 0.8},
        ],
    )
    assert kinds(result) == ["hit", "hit"] and [item.score for item in result.objects] == [0.9, 0.8]


def test_threshold_leaves_the_others_as_they_are() -> None:
    """Outcomes from a score on are those of a file without the other detections."""
    truth, found = random_sets(5)
    for threshold in (0.0, 0.3, 0.8, 1.1):
        cut = outcomes_of(truth, found).at(threshold)
        expected = outcomes_of(truth, [entry for entry in found if entry["score"] >= threshold])
        assert cut == expected


def random_sets(seed: int) -> tuple[Any, Any]:
    """Ten images with objects of two classes, and detections near them."""
    generator = torch.Generator().manual_seed(seed)

    def boxes(count: int) -> torch.Tensor:
        corner = torch.rand(count, 2, generator=generator) * 80
        return torch.cat([corner, torch.rand(count, 2, generator=generator) * 30 + 5], dim=1)

    annotations, found = [], []
    for image in range(1, 11):
        objects = boxes(6)
        for box in objects.tolist():
            category = 3 if torch.rand((), generator=generator) < 0.6 else 7
            annotations.append({"image_id": image, "category_id": category, "bbox": box, "id": len(annotations) + 1})
        near = objects.repeat(2, 1) + torch.randn(12, 4, generator=generator) * 2
        for box in torch.cat([near.clamp(min=1), boxes(4)]).tolist():
            category = 3 if torch.rand((), generator=generator) < 0.6 else 7
            score = torch.rand((), generator=generator).item()
            found.append({"image_id": image, "category_id": category, "bbox": box, "score": score})
    truth = {"images": [{"id": n} for n in range(1, 11)], "categories": CATEGORIES, "annotations": annotations}
    ground_truth = load_ground_truth(truth)
    return ground_truth, load_detections(found, ground_truth)


@pytest.mark.parametrize("seed", range(5))
def test_recall_is_coco_s(seed: int) -> None:
    """The share of objects that are hit is COCO's recall at IoU 0.5, and precision at that recall follows."""
    truth, found = random_sets(seed)
    result = outcomes_of(truth, found)
    curves = score_curves(result, [3, 7])
    from faster_coco_eval.core.coco import COCO
    from faster_coco_eval.core.faster_eval_api import COCOeval_faster

    reference = COCO(truth)
    run = COCOeval_faster(reference, reference.loadRes(found), iouType="bbox", print_function=lambda *_: None)
    run.evaluate()
    run.accumulate()
    for place, category_id in enumerate((3, 7)):
        expected = run.eval["recall"].reshape(10, 2, 4, 3)[0, place, 0, -1]
        assert curves[category_id].recall[-1] == pytest.approx(expected)
    metrics = evaluate_detections(truth, found)
    hits = sum(detection.kind == "hit" for detection in result.detections)
    assert hits == sum(item.score is not None for item in result.objects)
    assert 0 < hits < metrics["ground_truths"]


def test_score_curve() -> None:
    result = outcomes(
        [{"category_id": 3, "bbox": [0, 0, 10, 10]}, {"category_id": 3, "bbox": [50, 0, 10, 10]}],
        [
            {"category_id": 3, "bbox": [0, 0, 10, 10], "score": 0.9},
            {"category_id": 3, "bbox": [90, 0, 10, 10], "score": 0.5},
            {"category_id": 3, "bbox": [50, 0, 10, 10], "score": 0.5},  # of the same score as the one before
            {"category_id": 3, "bbox": [90, 50, 10, 10], "score": 0.2},
        ],
    )
    curve = score_curves(result, [3, 7])[3]
    assert curve.thresholds == [0.9, 0.5, 0.2]
    assert curve.precision == pytest.approx([1, 2 / 3, 0.5]) and curve.recall == pytest.approx([0.5, 1, 1])
    assert curve.f1 == pytest.approx([2 / 3, 0.8, 2 / 3]) and curve.best == 1
    assert 7 not in score_curves(result, [3, 7])


def test_curve_without_detections() -> None:
    curve = score_curves(outcomes([{"category_id": 3, "bbox": [0, 0, 9, 9]}], []), [3])[3]
    assert (curve.thresholds, curve.best) == ([], -1)


def test_confusion_matrix() -> None:
    result = outcomes(
        [
            {"category_id": 3, "bbox": [0, 0, 10, 10]},
            {"category_id": 3, "bbox": [30, 0, 10, 10]},
            {"category_id": 7, "bbox": [60, 0, 10, 10]},
        ],
        [
            {"category_id": 3, "bbox": [0, 0, 10, 10], "score": 0.9},
            {"category_id": 3, "bbox": [0, 1, 10, 10], "score": 0.8},
            {"category_id": 7, "bbox": [30, 0, 10, 10], "score": 0.7},
        ],
    )
    assert confusion_matrix(result, [3, 7]) == [[1, 1, 0], [0, 0, 1], [1, 0, 0]]


def test_every_object_and_detection_counts_once() -> None:
    truth, found = random_sets(1)
    result = outcomes_of(truth, found)
    matrix = confusion_matrix(result, [3, 7])
    assert sum(map(sum, (row[:-1] for row in matrix))) == len(found)
    for place, category_id in enumerate((3, 7)):
        hits_and_misses = matrix[place][place] + matrix[place][-1]
        assert hits_and_misses <= sum(entry["category_id"] == category_id for entry in truth["annotations"])
