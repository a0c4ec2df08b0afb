"""Random changes of annotation files are read or rejected with one line. The examples in docstrings run."""

from __future__ import annotations

import copy
import doctest
import importlib
import json
import random
import warnings
from pathlib import Path

import pytest
from dataset_samples import coco_content, write_coco_folder, write_image

from retina_ops.data import CocoDetection, DataError, ground_truth_of, read_image
from retina_ops.evaluation import evaluate_detections

STRANGE = [None, True, -1, 0, 3, 1e308, float("nan"), float("inf"), 10**400, "", "x", [], [1], {}, {"id": 3}]
DETECTIONS = [
    {"image_id": 10, "category_id": 7, "bbox": [4, 5, 20, 10], "score": 0.9},
    {"image_id": 30, "category_id": 3, "bbox": [0, 0, 64, 48], "score": 0.5},
]


def mutate(content, rng: random.Random):
    """A copy in which one value, at any depth, is replaced or removed."""
    content = copy.deepcopy(content)
    place = content
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return content
        key = rng.choice(keys)
        deeper = isinstance(place[key], (dict, list)) and place[key]
        if deeper and rng.random() < 0.85:
            place = place[key]
        elif rng.random() < 0.2:
            del place[key]
            return content
        else:
            place[key] = rng.choice(STRANGE)
            return content


@pytest.mark.parametrize("seed", range(4))
def test_mutated_annotations(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    file = write_coco_folder(tmp_path)
    refused = 0
    for _ in range(400):
        file.write_text(json.dumps(mutate(coco_content(), rng)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                dataset = CocoDetection(file)
                for index in range(len(dataset)):
                    dataset[index]
                evaluate_detections(ground_truth_of(dataset), [])
            except DataError as error:
                assert "\n" not in str(error) and len(error.reason) > 10
                refused += 1
    assert 20 < refused < 400


def test_mutated_detections(tmp_path: Path) -> None:
    rng = random.Random(7)
    refused = 0
    for _ in range(400):
        try:
            evaluate_detections(coco_content(), mutate(DETECTIONS, rng))
        except DataError as error:
            assert "\n" not in str(error)
            refused += 1
    assert 20 < refused < 400


def test_damaged_images(tmp_path: Path) -> None:
    rng = random.Random(1)
    for suffix in ("png", "jpg", "webp", "gif"):
        whole = write_image(tmp_path / f"a.{suffix}").read_bytes()
        for _ in range(80):
            damaged = bytearray(whole[: rng.randrange(len(whole))] if rng.random() < 0.5 else whole)
            for _ in range(rng.randrange(1, 6)):
                if damaged:
                    damaged[rng.randrange(min(len(damaged), 200))] = rng.randrange(256)
            path = tmp_path / f"b.{suffix}"
            path.write_bytes(damaged)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    assert read_image(path).shape[0] == 3
                except DataError as error:
                    assert str(error).startswith(f"{path}: ") and "\n" not in str(error)


@pytest.mark.parametrize("module", ["data.opening", "data.transforms", "evaluation.evaluator"])
def test_docstring_examples(module: str) -> None:
    outcome = doctest.testmod(importlib.import_module(f"retina_ops.{module}"))
    assert outcome.attempted > 0 and outcome.failed == 0
