"""`CocoEvaluator`: labels to original ids, batches, several processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from retina_ops.data.digits import DigitScenes
from retina_ops.evaluation import CocoEvaluator, coco_detections, evaluate_detections, ground_truth_of

ROOT = Path(__file__).resolve().parents[2]


def noisy_predictions(target: dict) -> dict[str, Tensor]:
    """A detector that is right most of the time, the same for the same image."""
    generator = torch.Generator().manual_seed(target["image_id"])
    boxes = target["boxes"] + torch.randn(target["boxes"].shape, generator=generator) * 1.5
    scores = torch.rand(len(boxes), generator=generator)
    labels = torch.where(scores < 0.2, (target["labels"] + 1) % 10, target["labels"])
    return {"boxes": boxes, "scores": scores, "labels": labels}


def test_equals_evaluation_of_files() -> None:
    scenes = DigitScenes("val", 20)
    evaluator = CocoEvaluator(scenes)
    targets = [scenes.target(index) for index in range(20)]
    predictions = [noisy_predictions(target) for target in targets]
    for start in (10, 0):  # in any order
        evaluator.update(targets[start : start + 10], predictions[start : start + 10])
    metrics = evaluator.compute()
    detections = coco_detections([t["image_id"] for t in targets], predictions, list(range(10)))
    assert metrics == evaluate_detections(ground_truth_of(scenes), json.loads(json.dumps(detections)))
    assert 0.2 < metrics["AP"] < 0.95 and metrics["images"] == 20
    assert evaluator.evaluation is not None and "mean" in evaluator.evaluation.precision_recall


def test_perfect_and_forgotten_images() -> None:
    scenes = DigitScenes("val", 6)
    evaluator, seen_only = CocoEvaluator(scenes), CocoEvaluator(scenes, seen_only=True)
    for index in range(3):
        target = scenes.target(index)
        exact = {**target, "scores": torch.ones(len(target["boxes"]))}
        evaluator.update([target], [exact])
        seen_only.update([target], [exact])
    assert seen_only.compute()["AP"] == pytest.approx(1.0)
    assert evaluator.compute()["AP"] < 0.9  # images without detections are missed objects
    evaluator.reset()
    assert evaluator.compute()["AP"] == 0.0 and evaluator.detections == []


def test_labels_become_original_ids() -> None:
    truth = {
        "images": [{"id": 8}],
        "categories": [{"id": 70, "name": "b"}, {"id": 9, "name": "a"}],
        "annotations": [{"id": 1, "image_id": 8, "category_id": 70, "bbox": [10, 20, 30, 40]}],
    }
    prediction = {"boxes": torch.tensor([[10.0, 20, 40, 60]]), "scores": torch.ones(1), "labels": torch.tensor([1])}
    evaluator = CocoEvaluator(truth)
    evaluator.update([{"image_id": torch.tensor([8])}], [prediction])
    assert evaluator.detections == [{"image_id": 8, "category_id": 70, "bbox": [10.0, 20.0, 30.0, 40.0], "score": 1.0}]
    assert evaluator.compute()["per_class"]["b"]["AP"] == pytest.approx(1.0)
    swapped = CocoEvaluator(truth, category_ids=[70, 9])
    swapped.update([{"image_id": 8}], [prediction])
    assert swapped.compute()["AP"] == 0.0


def test_clipped_training_boxes_do_not_change_the_ground_truth(bccd: Path) -> None:
    from retina_ops.data import open_dataset

    file = bccd / "annotations" / "test.json"
    dataset = open_dataset(file)
    evaluator = CocoEvaluator(dataset)
    targets = [dataset.target(index) for index in range(len(dataset))]
    predictions = []
    for target in targets:
        generator = torch.Generator().manual_seed(target["image_id"])
        boxes = target["boxes"] + torch.randn(target["boxes"].shape, generator=generator) * 6
        predictions.append({**target, "boxes": boxes, "scores": torch.rand(len(boxes), generator=generator)})
    evaluator.update(targets, predictions)
    metrics = evaluator.compute()
    assert metrics == evaluate_detections(file, evaluator.detections)
    assert metrics["ground_truths"] == 945 and 0.3 < metrics["AP"] < 0.99


PROCESS = """
import sys
import torch.distributed as dist
from retina_ops.data import shard_indices
from retina_ops.data.digits import DigitScenes
from retina_ops.files import write_json
from retina_ops.evaluation import CocoEvaluator
sys.path.insert(0, {tests!r})
from test_evaluator import noisy_predictions

rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://{store}", rank=rank, world_size=2)
scenes = DigitScenes("val", 9)
evaluator = CocoEvaluator(scenes)
for index in [*shard_indices(9, rank, 2), 0]:  # image 0 on both, as a sampler that pads does it
    target = scenes.target(index)
    evaluator.update([target], [noisy_predictions(target)])
write_json("{store}." + str(rank) + ".json", [evaluator.compute(), evaluator.detections])
dist.destroy_process_group()
"""


def test_gathers_over_processes(tmp_path: Path) -> None:
    store = tmp_path / "store"
    code = PROCESS.format(tests=str(Path(__file__).parent), store=store)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(rank)], cwd=tmp_path, env=environment, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
    results = [json.loads(Path(f"{store}.{rank}.json").read_text()) for rank in range(2)]
    assert results[0] == results[1]
    scenes = DigitScenes("val", 9)
    alone = CocoEvaluator(scenes)
    for index in range(9):
        target = scenes.target(index)
        alone.update([target], [noisy_predictions(target)])
    assert results[0][0] == json.loads(json.dumps(alone.compute()))
    assert results[0][1] == alone.detections
