"""Complete runs: they learn, end at their limits, are resumed exactly, and write correct files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from training.runs import small_config, write_digits

from retina_ops.data import DataError
from retina_ops.models import LossOptions, load_model
from retina_ops.settings import read_toml, to_toml
from retina_ops.training import OptimizerConfig, ScheduleConfig, TrainConfig, Trainer, TrainingError, train
from retina_ops.training.checkpoint import load_checkpoint
from retina_ops.training.log import read_metrics


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def one_epoch(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Path:
    """The folder of a run of one epoch. Tests that change it make a copy."""
    folder = tmp_path_factory.mktemp("one_epoch")
    train(small_config(digits, epochs=1), folder)
    return folder


def three_epochs(digits: Path) -> TrainConfig:
    """A run that saves its state after each of 12 steps."""
    return small_config(digits, epochs=3, batch_size=2, ema_decay=0.9, save_minutes=1e-9)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Path:
    """The folder of a complete run of `three_epochs`."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    train(three_epochs(digits), folder)
    return folder


def test_learns_scenes_by_heart(tmp_path: Path) -> None:
    scenes = write_digits(tmp_path / "scenes", 4)
    config = small_config(scenes, epochs=100, validate_every=50, ema_decay=0.9, precision="auto")
    config.data.cache = True
    config.optimizer.lr = 3e-3
    tmp_path = tmp_path / "run"
    metrics = train(config, tmp_path)
    assert metrics["AP50"] > 0.6 and metrics["split"] == "val" and metrics["steps"] == 100
    lines = read_metrics(tmp_path / "metrics.jsonl")
    losses = [line["loss"] for line in lines if line["kind"] == "train"]
    assert losses[-1] < losses[0] / 2
    assert {path.name for path in tmp_path.iterdir()} == {
        "best", "config.toml", "detections.json", "last.pt", "loss.png", "metrics.json", "metrics.jsonl",
        "precision_recall.png", "previous.pt", "report.html", "report.json",
    }  # fmt: skip
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    assert read_toml(tmp_path / "config.toml", TrainConfig) == config
    validated = [line for line in lines if line["kind"] == "val"]
    best = max(validated, key=lambda line: line["AP"])
    chosen = json.loads((tmp_path / "best" / "config.json").read_text())["training"]
    assert chosen["step"] == best["step"] and chosen["validation"]["AP"] == best["AP"]
    assert [category["name"] for category in load_model(tmp_path / "best").categories] == list("0123456789")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder)["model"]


def assert_equal(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


@pytest.mark.parametrize("where", ["epoch", "batch"])
def test_resumes_exactly(
    tmp_path: Path, digits: Path, uninterrupted: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Weights, average and metrics of an interrupted and an uninterrupted run are bitwise equal."""
    config = three_epochs(digits)
    stop_at = 4 if where == "epoch" else 6
    backward = Trainer._backward

    def interrupted(self: Trainer, *arguments: Any) -> Any:
        if self.step == stop_at:
            raise KeyboardInterrupt
        return backward(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_backward", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path)
    position = load_checkpoint(tmp_path)["position"]
    assert (position["epoch"], position["batch"]) == ((1, 0) if where == "epoch" else (1, 2))
    with pytest.raises(ValueError, match="already holds a run"):
        train(config, tmp_path)
    train(config, tmp_path, resume=True)
    assert_equal(weights(uninterrupted), weights(tmp_path))
    assert_equal(*(load_checkpoint(folder)["ema"] for folder in (uninterrupted, tmp_path)))
    logs = [read_metrics(folder / "metrics.jsonl") for folder in (uninterrupted, tmp_path)]
    validations = [[(line["step"], line["AP"]) for line in log if line["kind"] == "val"] for log in logs]
    assert validations[0] == validations[1] and len(validations[0]) == 3


def test_resumes_with_more_epochs_and_rejects_another_model(tmp_path: Path, digits: Path, one_epoch: Path) -> None:
    shutil.copytree(one_epoch, tmp_path, dirs_exist_ok=True)
    metrics = train(small_config(digits, epochs=2), tmp_path, resume=True)
    assert metrics["epochs"] == 2 and metrics["steps"] == 4
    other = small_config(digits, epochs=3)
    other.model.fpn_channels = 64
    with pytest.raises(ValueError, match="another model or optimizer"):
        train(other, tmp_path, resume=True)
    with pytest.raises(ValueError, match="ema_decay"):
        train(small_config(digits, epochs=3, ema_decay=0.5), tmp_path, resume=True)
    with pytest.raises(DataError, match="there is no run to resume"):
        train(other, tmp_path / "none", resume=True)
    (tmp_path / "last.pt").write_bytes(b"PK\x03\x04 not a checkpoint")
    with pytest.raises(DataError, match=r"last\.pt: not a checkpoint that can be read"):
        train(other, tmp_path, resume=True)


def test_time_limit_and_patience_end_a_run(tmp_path: Path, digits: Path) -> None:
    limited = train(small_config(digits, epochs=10**6, max_minutes=0.07), tmp_path / "time")
    assert 0 < limited["steps"] < 10**5
    lines = read_metrics(tmp_path / "time" / "metrics.jsonl")
    assert lines[-2]["kind"] == "val" and lines[-2]["step"] == limited["steps"]
    patient = small_config(digits, epochs=50, patience=2)
    patient.optimizer.lr = 1e-12  # the AP does not change
    assert train(patient, tmp_path / "patience")["epochs"] == 3


def test_accumulation_equals_a_larger_batch(tmp_path: Path, digits: Path) -> None:
    """Two accumulated batches of 4 images, with losses normalized per image, give the update of one batch of 8."""
    sgd = OptimizerConfig(name="sgd", lr=0.1, clip_norm=0.0)
    for name, batch, accumulate in (("large", 8, 1), ("small", 4, 2)):
        config = small_config(digits, epochs=2, batch_size=batch, optimizer=sgd, validate_every=0)
        config.model.loss = LossOptions(normalization="image")
        sgd.accumulate = accumulate
        assert train(config, tmp_path / name)["steps"] == 2
    large, small = weights(tmp_path / "large"), weights(tmp_path / "small")
    start = weights_at_start(small_config(digits))
    for key, value in large.items():
        torch.testing.assert_close(small[key], value, rtol=1e-4, atol=1e-5, msg=key)
    moved = max(float((value - start[key]).abs().max()) for key, value in large.items())
    assert moved > 1e-2


def weights_at_start(config: TrainConfig) -> dict[str, torch.Tensor]:
    from retina_ops.models import build_model

    torch.manual_seed(config.seed)
    categories = [{"id": i, "name": str(i)} for i in range(10)]
    return build_model(config.model, categories).state_dict()


def test_other_weights_and_frozen_stages(
    tmp_path: Path, digits: Path, one_epoch: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = json.loads((digits / "annotations/train.json").read_text())
    content["categories"].append({"id": 77, "name": "none"})
    more = digits / "annotations/more.json"
    more.write_text(json.dumps(content))
    config = small_config(digits, epochs=1, weights=str(one_epoch / "best"), freeze=3)
    config.data.train, config.data.images = str(more), str(digits / "images/train")
    train(config, tmp_path)
    assert "renewed: head.classification_head.cls_logits.bias" in capfd.readouterr().err
    first, second = load_model(one_epoch / "best").state_dict(), weights(tmp_path)
    frozen = [name for name in first if name.startswith(("backbone.body.conv1", "backbone.body.layer1."))]
    frozen += [name for name in first if name.startswith("backbone.body.layer2.")]
    assert frozen and all(torch.equal(first[name], second[name]) for name in frozen)
    trained = [name for name in first if name.startswith(("backbone.body.layer3.", "backbone.fpn."))]
    assert trained and not any(torch.equal(first[name], second[name]) for name in trained if "weight" in name)
    assert second["head.classification_head.cls_logits.bias"].shape[0] == 9 * 11
    # Without a validation set, the weights of the last step are kept.
    assert_equal(load_model(tmp_path / "best").state_dict(), second)


def test_loss_that_is_not_finite_is_an_error(tmp_path: Path, digits: Path) -> None:
    config = small_config(digits, epochs=40)
    config.optimizer = OptimizerConfig(name="sgd", lr=1e20, clip_norm=0.0)
    with pytest.raises(
        TrainingError, match=r"loss is (nan|inf) at step \d+ in epoch \d+: decrease optimizer.lr"
    ) as raised:
        train(config, tmp_path)
    assert "\n" not in str(raised.value)


def test_half_precision_with_loss_scaling(tmp_path: Path, digits: Path) -> None:
    config = small_config(digits, epochs=1, precision="fp16")
    config.model.min_size = config.model.max_size = 64  # float16 convolutions are slow on CPUs
    metrics = train(config, tmp_path)
    assert metrics["steps"] == 2
    assert load_checkpoint(tmp_path)["scaler"]["scale"] > 0


def torchrun(processes: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`retina-ops` on several processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command += ["-m", "retina_ops", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_two_processes_equal_one(tmp_path: Path, digits: Path) -> None:
    """torchrun with 2 x 4 images gives the updates of 1 x 8 images: the loss is normalized over both processes.

    Only one process writes files.
    """
    config = small_config(digits, epochs=2, batch_size=8, validate_every=2)
    config.optimizer = OptimizerConfig(name="sgd", lr=0.1, clip_norm=1.0)
    train(config, tmp_path / "one")
    config.batch_size = 4
    (tmp_path / "two.toml").write_text(to_toml(config))
    run = torchrun(2, "train", "--config", str(tmp_path / "two.toml"), "--output", str(tmp_path / "two"))
    assert run.returncode == 0, run.stderr[-3000:]
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-4, msg=name)
    kinds = [line["kind"] for line in read_metrics(tmp_path / "two" / "metrics.jsonl")]
    assert kinds.count("val") == 1 and kinds.count("train") == 2
    metrics = [json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "two")]
    assert metrics[1]["images"] == 8 and metrics[1]["AP"] == pytest.approx(metrics[0]["AP"], abs=0.02)
    # Process 0 alone prints the table; the losses logged are the means over both processes.
    assert run.stdout.count("all classes") == 1 and run.stdout.count("weights:") == 1
    logs = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("one", "two")]
    for single, double in zip(*([line for line in log if line["kind"] == "train"] for log in logs), strict=True):
        assert double["step"] == single["step"] and double["lr"] == pytest.approx(single["lr"])
        assert double["loss"] == pytest.approx(single["loss"], rel=1e-3)


def test_resumes_on_another_number_of_processes(tmp_path: Path, digits: Path) -> None:
    """With the same images per update the run goes on at the same image; otherwise it is refused with one line."""
    config = small_config(digits, epochs=3, batch_size=4, validate_every=0)
    config.optimizer = OptimizerConfig(name="sgd", lr=0.01, clip_norm=1.0)
    config.schedule = ScheduleConfig(name="step", milestones=(), warmup_steps=0)  # independent of the number of epochs
    train(config, tmp_path / "whole")
    config.epochs = 1
    train(config, tmp_path / "parts")
    before = (tmp_path / "parts" / "config.toml").read_text()
    resumed = ("train", "--resume", "--output", str(tmp_path / "parts"), "--epochs", "3")
    refused = torchrun(2, *resumed)
    assert refused.returncode != 0
    assert (
        "takes 4 images per update (4 per batch, 1 process), now it would take 8 images per update (4 per batch, "
        "2 processes): with 2 processes use --batch-size 2 --optimizer.accumulate 1"
    ) in refused.stderr
    assert (tmp_path / "parts" / "config.toml").read_text() == before
    run = torchrun(2, *resumed, "--batch-size", "2")
    assert run.returncode == 0, run.stderr[-3000:]
    whole, parts = (load_checkpoint(tmp_path / name) for name in ("whole", "parts"))
    assert whole["position"]["step"] == parts["position"]["step"] == 6
    for name, value in whole["model"].items():
        torch.testing.assert_close(parts["model"][name], value, rtol=1e-3, atol=1e-4, msg=name)


def test_a_warm_up_longer_than_the_run_is_shortened(
    tmp_path: Path, digits: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = small_config(digits, epochs=2, schedule=ScheduleConfig(warmup_steps=500), validate_every=0)
    config.data.train, config.data.images = str(digits / "annotations/train.json"), str(digits / "images/train")
    train(config, tmp_path)
    assert "schedule.warmup_steps is 500, but the run has 4 updates: the warm-up is shortened" in capfd.readouterr().err
    rates = [line["lr"] for line in read_metrics(tmp_path / "metrics.jsonl") if line["kind"] == "train"]
    assert max(rates) > config.optimizer.lr / 4


def test_a_time_limit_without_a_validation_set(tmp_path: Path, digits: Path) -> None:
    config = small_config(digits, epochs=10**6, max_minutes=0.0001)
    config.data.train, config.data.images = str(digits / "annotations/train.json"), str(digits / "images/train")
    assert train(config, tmp_path)["steps"] == 1
    assert (tmp_path / "loss.png").is_file() and [e["step"] for e in read_metrics(tmp_path / "metrics.jsonl")] == [1]


def test_other_default_device_and_dtype(tmp_path: Path, digits: Path) -> None:
    """As a program may have set them for its own tensors."""
    config = small_config(digits, epochs=1)
    train(config, tmp_path / "plain")
    try:
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        train(config, tmp_path / "changed")
        found = load_model(tmp_path / "changed" / "best").predict(digits / "images/val", threshold=0)
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert_equal(weights(tmp_path / "plain"), weights(tmp_path / "changed"))
    assert len(found) == 8 and found[0]["boxes"].device.type == "cpu"
