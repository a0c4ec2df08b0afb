"""Faster R-CNN in studies: it trains, is evaluated with the data set's labels, and writes what a run writes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from training.runs import small_config, write_digits

from retina_ops.data import open_dataset
from retina_ops.study.two_stage import FasterRcnn, train_faster_rcnn
from retina_ops.training import TrainConfig
from retina_ops.training.log import read_metrics


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    folder = write_digits(tmp_path_factory.mktemp("digits"), 4)
    config = small_config(folder, epochs=100, max_steps=30, batch_size=4, ema_decay=0.5, validate_every=20)
    config.data.test = str(folder / "annotations" / "val.json")
    config.optimizer.lr = 3e-3
    return config


def test_run(config: TrainConfig, tmp_path: Path) -> None:
    """The loss falls, and validations are at the epochs asked for and at the end. A second run gives the same."""
    metrics = train_faster_rcnn(config, tmp_path / "run")
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [line["step"] for line in lines if line["kind"] == "val"] == [20, 30]
    losses = [line["loss"] for line in lines if line["kind"] == "train"]
    assert losses[-1] < losses[0] and metrics["steps"] == 30 and metrics["images"] == 4
    best = max(line["AP"] for line in lines if line["kind"] == "val")
    assert metrics["AP"] == pytest.approx(best, abs=1e-9)  # the test set is the validation set here
    again = train_faster_rcnn(config, tmp_path / "again")
    assert again["AP"] == metrics["AP"]


def test_labels_are_those_of_the_data_set(config: TrainConfig) -> None:
    """The box predictor is asked for label + 1, and detections are given as label."""
    dataset = open_dataset(config.data.train, split="val")
    model = FasterRcnn(config.model, 10)
    image, target = dataset[0]
    seen = {}

    def record(module: torch.nn.Module, inputs: tuple[object, ...]) -> None:
        seen["labels"] = inputs[3]  # of the RoI heads: features, proposals, sizes, targets

    model.detector.roi_heads.register_forward_pre_hook(record)
    model.train()([image], [target])
    assert torch.equal(seen["labels"][0]["labels"], target["labels"] + 1)
    model.eval().detector.roi_heads.score_thresh = 0.0
    with torch.no_grad():
        found = model([image])[0]
    assert len(found["labels"]) and found["labels"].min() >= 0 and found["labels"].max() <= 9
