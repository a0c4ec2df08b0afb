"""COCO metrics against published values and against pycocotools."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from requirements import SHARED_DATA, require

from retina_ops.data import CocoDetection, DataError, DataWarning, write_json
from retina_ops.evaluation import CocoEvaluator, evaluate, evaluate_detections, plot_precision_recall

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
FIXTURES = SHARED_DATA / "evaluator_fixtures"


@pytest.mark.parametrize("name", ["coco_val2014_100", "padilla_sampled"])
def test_reproduces_published_values(name: str) -> None:
    require(FIXTURES.is_dir(), "../shared/data/evaluator_fixtures")
    expected = json.loads((FIXTURES / name / "expected.json").read_text())
    metrics = evaluate_detections(FIXTURES / name / "gt.json", FIXTURES / name / "dt.json")
    for key in NAMES:
        assert metrics[key] == pytest.approx(expected["expected"][key], abs=1e-6), key
        assert metrics[key] == pytest.approx(expected["pycocotools"][key], abs=1e-12), key


def random_case(seed: int, images: int = 12, classes: int = 4) -> tuple[dict, list[dict]]:
    """Ground truth of all sizes with crowds and mask areas; detections around it, doubles, ties and strays."""
    rng = np.random.default_rng(seed)
    truth: dict = {
        "images": [{"id": 7 * i + 3, "width": 640, "height": 480} for i in range(images)],
        "categories": [{"id": 5 * k + 2, "name": f"class {k}"} for k in range(classes + 1)],  # the last has no object
        "annotations": [],
    }
    found = []
    for image in truth["images"][:-1]:  # one image without objects
        for _ in range(rng.integers(0, 12)):
            side = np.exp(rng.uniform(np.log(8), np.log(300), 2))
            corner = rng.uniform(0, 300, 2)
            box = [*corner, *side]
            category = 5 * int(rng.integers(classes)) + 2
            truth["annotations"].append(
                {
                    "id": len(truth["annotations"]) + 1,
                    "image_id": image["id"],
                    "category_id": category,
                    "bbox": [float(v) for v in box],
                    "area": float(side.prod() * rng.uniform(0.4, 1.0)),
                    "iscrowd": int(rng.random() < 0.15),
                }
            )
            for _ in range(rng.integers(0, 4)):
                moved = np.array(box) + rng.normal(0, 0.08, 4) * np.tile(side, 2)
                moved[2:] = moved[2:].clip(1)
                found.append(
                    {
                        "image_id": image["id"],
                        "category_id": category if rng.random() < 0.85 else 2,
                        "bbox": [float(v) for v in moved],
                        "score": float(rng.integers(1, 12) / 12),  # with ties
                    }
                )
    for _ in range(150):  # more than 100 on one image
        image_id = int(rng.choice([truth["images"][0]["id"], truth["images"][-1]["id"]]))
        box = [float(v) for v in rng.uniform(1, 200, 4)]
        found.append({"image_id": image_id, "category_id": 2, "bbox": box, "score": float(rng.random())})
    return truth, found


def oracle(truth: dict, found: list[dict], category: int | None = None) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO()
        reference.dataset = copy.deepcopy(truth)
        reference.dataset.setdefault("info", {})
        reference.createIndex()
        run = COCOeval(reference, reference.loadRes(copy.deepcopy(found)), "bbox")
        if category is not None:
            run.params.catIds = [category]
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run.stats.tolist()


@pytest.mark.parametrize("seed", range(6))
def test_matches_pycocotools(seed: int) -> None:
    truth, found = random_case(seed)
    before = copy.deepcopy((truth, found))
    metrics = evaluate_detections(truth, found)
    assert (truth, found) == before  # the caller's objects are not changed
    for key, value in zip(NAMES, oracle(truth, found), strict=True):
        assert (metrics[key] if metrics[key] is not None else -1) == pytest.approx(value, abs=1e-12), key
    for category in truth["categories"]:
        row = metrics["per_class"][category["name"]]
        expected = oracle(truth, found, category["id"])
        for key, value in zip(NAMES[:6], expected[:6], strict=True):
            assert (row[key] if row[key] is not None else -1) == pytest.approx(value, abs=1e-12), (category, key)
        assert (row["AR100"] if row["AR100"] is not None else -1) == pytest.approx(expected[8], abs=1e-12)


def test_some_images_only() -> None:
    truth, found = random_case(11)
    chosen = [entry["id"] for entry in truth["images"][:5]]
    part = {
        **truth,
        "images": truth["images"][:5],
        "annotations": [entry for entry in truth["annotations"] if entry["image_id"] in chosen],
    }
    expected = evaluate_detections(part, [entry for entry in found if entry["image_id"] in chosen])
    assert evaluate_detections(truth, found, image_ids=chosen) == expected
    assert expected["images"] == 5 and expected["AP"] != evaluate_detections(truth, found)["AP"]


def test_annotation_id_zero_counts() -> None:
    box = [10.0, 10.0, 50.0, 50.0]
    truth = {
        "images": [{"id": 0}],
        "categories": [{"id": 0, "name": "zero"}],
        "annotations": [{"id": 0, "image_id": 0, "category_id": 0, "bbox": box}],
    }
    metrics = evaluate_detections(truth, [{"image_id": 0, "category_id": 0, "bbox": box, "score": 0.5}])
    assert metrics["AP"] == pytest.approx(1.0)  # pycocotools says 0 here: it takes the id 0 for "unmatched"


def test_nothing_detected_and_nothing_there(tmp_path: Path) -> None:
    truth, found = random_case(1)
    metrics = evaluate_detections(truth, [])
    assert metrics["AP"] == metrics["AR100"] == 0.0 and metrics["detections"] == 0
    assert metrics["per_class"]["class 4"]["AP"] is None  # no ground truth of this class
    truth["annotations"] = []
    metrics = evaluate_detections(truth, found)
    assert all(metrics[key] is None for key in NAMES) and metrics["ground_truths"] == 0
    file = write_json(tmp_path / "metrics.json", metrics)
    assert json.loads(file.read_text())["AP"] is None
    assert evaluate(truth, found).precision_recall == {}


def test_files(tmp_path: Path) -> None:
    truth, found = random_case(2)
    files = write_json(tmp_path / "gt.json", truth), write_json(tmp_path / "dt.json", found)
    assert evaluate_detections(*files) == evaluate_detections(truth, found)


def test_precision_recall_curves(tmp_path: Path) -> None:
    truth, found = random_case(3)
    evaluation = evaluate(truth, found)
    assert set(evaluation.precision_recall) == {"class 0", "class 1", "class 2", "class 3", "mean"}
    for name, curve in evaluation.precision_recall.items():
        row = evaluation.metrics if name == "mean" else evaluation.metrics["per_class"][name]
        assert np.mean(curve.precision) == pytest.approx(row["AP50"])
        assert curve.recall[0] == 0 and curve.recall[-1] == 1 and len(curve.score) == 101
        assert np.all(np.diff(curve.precision) <= 1e-12)
    drawn = plot_precision_recall(evaluation.precision_recall, tmp_path / "plots" / "pr.png")
    empty = plot_precision_recall({}, tmp_path / "empty.png")
    assert drawn.read_bytes().startswith(b"\x89PNG") and drawn.stat().st_size > empty.stat().st_size


def test_equal_class_names_are_told_apart() -> None:
    truth, found = random_case(4)
    truth["categories"][1]["name"] = truth["categories"][0]["name"]
    names = list(evaluate_detections(truth, found)["per_class"])
    assert names[:2] == ["class 0 (2)", "class 0 (7)"]


@pytest.mark.parametrize(("name", "expected"), [({}, "5"), ({"name": 8}, "8"), ({"name": "x"}, "x")])
def test_names_of_categories(name: dict, expected: str) -> None:
    box = {"image_id": 1, "category_id": 5, "bbox": [1, 2, 30, 40]}
    truth = {"images": [{"id": 1}], "categories": [{"id": 5, **name}], "annotations": [box]}
    assert list(evaluate_detections(truth, [{**box, "score": 0.5}])["per_class"]) == [expected]
    with pytest.raises(DataError, match="a category must have an integer id and a name"):
        evaluate_detections({**truth, "categories": [{"id": 5, "name": None}]}, [])


GOOD = {"image_id": 3, "category_id": 2, "bbox": [1, 2, 3, 4], "score": 0.5}
BAD_DETECTIONS = {
    "not a list": ({"a": 1}, "expected a list, got dict"),
    "unknown image": ([GOOD, {**GOOD, "image_id": 99}], "detection 2 is of image 99"),
    "unknown category": (
        [{**GOOD, "category_id": 1}],
        "detection 1 has category id 1, which",
    ),
    "no score": ([{k: v for k, v in GOOD.items() if k != "score"}], "must have a finite score, got None"),
    "NaN score": ([{**GOOD, "score": float("nan")}], "must have a finite score, got nan"),
    "short box": ([{**GOOD, "bbox": [1, 2, 3]}], r"must have a bbox \[x, y, width, height\]"),
    "infinite box": ([{**GOOD, "bbox": [1, 2, 3, float("inf")]}], "is not finite numbers"),
    "a number": ([3], "detection 1 must be an object, got 3"),
}


@pytest.mark.parametrize("content, reason", BAD_DETECTIONS.values(), ids=BAD_DETECTIONS)
def test_rejects_bad_detections(tmp_path: Path, content, reason: str) -> None:
    truth, _ = random_case(5)
    file = tmp_path / "dt.json"
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"dt\.json: .*{reason}") as caught:
        evaluate_detections(truth, file)
    assert "\n" not in str(caught.value)


def test_rejects_bad_ground_truth(tmp_path: Path) -> None:
    truth, found = random_case(5)
    with pytest.raises(DataError, match=r"gone\.json: no such file"):
        evaluate_detections(tmp_path / "gone.json", found)
    with pytest.raises(DataError, match='it has no list "categories"'):
        evaluate_detections({"images": [{"id": 1}], "annotations": []}, [])
    with pytest.raises(DataError, match="lists no images"):
        evaluate_detections({**truth, "images": []}, found)
    with pytest.raises(DataError, match="annotation 1 is of image 123456"):
        evaluate_detections({**truth, "annotations": [{**truth["annotations"][0], "image_id": 123456}]}, found)
    with pytest.raises(DataError, match="does not list image -5"):
        evaluate_detections(truth, found, image_ids=[-5])


@pytest.mark.parametrize("box", [[10, 10, -5, 8], [float("nan"), 0, 4, 4], [0, 0, float("inf"), 4]])
def test_impossible_boxes_are_left_out_and_counted(tmp_path: Path, box: list[float]) -> None:
    """By the evaluation of a file as by a data set that reads the same file: one parser."""
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    good, bad = ({"image_id": 1, "category_id": 1, "bbox": each} for each in ([4, 4, 20, 20], box))
    truth = {
        "images": [{"id": 1, "file_name": "a.png", "height": 64, "width": 64}],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [{"id": 1, **good}, {"id": 2, **bad}],
    }
    file = tmp_path / "truth.json"
    file.write_text(json.dumps(truth))
    found = [{**good, "score": 0.5}]
    with pytest.warns(DataWarning, match="left out 1 of 2 boxes"):
        assert evaluate_detections(file, found)["AP"] == pytest.approx(1.0)
    with pytest.warns(DataWarning, match="1 without an area"):
        dataset = CocoDetection(file, tmp_path)
    evaluator = CocoEvaluator(dataset)
    boxes = torch.tensor([[4.0, 4.0, 24.0, 24.0]])
    evaluator.update([{"image_id": 1}], [{"boxes": boxes, "scores": torch.ones(1), "labels": torch.zeros(1).long()}])
    assert evaluator.compute()["AP"] == pytest.approx(1.0)


# --- options ----------------------------------------------------------------------------------------------------------


def many_objects(count: int) -> tuple[dict, list[dict]]:
    """One image of `count` objects of one class, each found perfectly; and an image of another class."""
    boxes = [[float(12 * (i % 40)), float(12 * (i // 40)), 10.0, 10.0] for i in range(count)]
    truth = {
        "images": [{"id": 1, "width": 500, "height": 500}, {"id": 2, "width": 500, "height": 500}],
        "categories": [{"id": 1, "name": "cell"}, {"id": 2, "name": "dust"}],
        "annotations": [
            {"id": i + 1, "image_id": 1, "category_id": 1, "bbox": box, "area": 100.0, "iscrowd": 0}
            for i, box in enumerate(boxes)
        ],
    }
    found = [{"image_id": 1, "category_id": 1, "bbox": box, "score": 1 - i / 1000} for i, box in enumerate(boxes)]
    return truth, found


def test_a_limit_that_cuts_ground_truth_is_said() -> None:
    truth, found = many_objects(400)
    with pytest.warns(
        DataWarning, match=r"1 of 2 images have more than 100 objects of a class \(up to 400\).*set max_det"
    ):
        assert evaluate_detections(truth, found)["AP"] == pytest.approx(26 / 101)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics = evaluate_detections(truth, found, max_detections=400)
        assert metrics["AP"] == metrics["AR400"] == metrics["per_class"]["cell"]["AR400"] == 1.0
        assert metrics["AR10"] == pytest.approx(10 / 400) and "AR100" not in metrics
        evaluator = CocoEvaluator(truth, max_detections=400)
        boxes = torch.tensor([entry["bbox"] for entry in found])
        boxes[:, 2:] += boxes[:, :2]
        labels = torch.zeros(400, dtype=torch.int64)
        scores = torch.tensor([entry["score"] for entry in found])
        evaluator.update([{"image_id": 1}], [{"boxes": boxes, "scores": scores, "labels": labels}])
        assert evaluator.compute()["AP"] == pytest.approx(1.0)
    truth["annotations"][0]["iscrowd"] = 1
    truth["annotations"] = truth["annotations"][:101]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate_detections(truth, found[:101])  # 100 objects and a crowd


@pytest.mark.parametrize(("limit", "names"), [(1, ["AR1"]), (7, ["AR1", "AR7"]), (10, ["AR1", "AR10"]), (250, None)])
def test_max_detections_equals_pycocotools(limit: int, names: list[str] | None) -> None:
    truth, found = random_case(5)
    metrics = evaluate_detections(truth, found, max_detections=limit)
    assert [key for key in metrics if key[2:].isdigit() and key[:2] == "AR"] == (names or ["AR1", "AR10", "AR250"])
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO()
        reference.dataset = copy.deepcopy(truth)
        reference.createIndex()
        run = COCOeval(reference, reference.loadRes(copy.deepcopy(found)), "bbox")
        run.params.maxDets = [limit]
        run.evaluate()
        run.accumulate()
    precision, recall = run.eval["precision"][..., 0, 0], run.eval["recall"][..., 0, 0]
    assert metrics["AP"] == pytest.approx(precision[precision > -1].mean(), abs=1e-12)
    assert metrics[f"AR{limit}"] == pytest.approx(recall[recall > -1].mean(), abs=1e-12)


def test_iou_thresholds_equal_pycocotools() -> None:
    truth, found = random_case(6)
    every, few = evaluate(truth, found), evaluate(truth, found, iou_thresholds=[0.75, 0.3])
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO()
        reference.dataset = copy.deepcopy(truth)
        reference.createIndex()
        run = COCOeval(reference, reference.loadRes(copy.deepcopy(found)), "bbox")
        run.params.iouThrs = np.array([0.3, 0.75])
        run.evaluate()
        run.accumulate()
    precision = run.eval["precision"][..., 0, -1]
    assert few.metrics["AP"] == pytest.approx(precision[precision > -1].mean(), abs=1e-12)
    assert few.metrics["AP50"] is None and few.metrics["AP75"] == pytest.approx(every.metrics["AP75"], abs=1e-12)
    at_lowest = precision[0][precision[0] > -1].mean()
    assert np.mean(few.precision_recall["mean"].precision) == pytest.approx(at_lowest)
    again = evaluate_detections(truth, found, iou_thresholds=[0.5 + 0.05 * step for step in range(10)])
    assert all(again[name] == pytest.approx(every.metrics[name], abs=1e-12) for name in NAMES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_detections": 0}, "max_detections must be at least 1, got 0"),
        ({"iou_thresholds": []}, r"iou_thresholds must be at least one number in \(0, 1\], got \[\]"),
        ({"iou_thresholds": [0.5, 1.5]}, r"in \(0, 1\], got \[0\.5, 1\.5\]"),
        ({"iou_thresholds": [float("nan")]}, r"in \(0, 1\], got \[nan\]"),
    ],
)
def test_rejects_bad_options(options: dict, message: str) -> None:
    truth, found = many_objects(3)
    with pytest.raises(ValueError, match=message):
        evaluate_detections(truth, found, **options)
