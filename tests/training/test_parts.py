"""Parts of a run: settings, schedule, optimizer, moving average, precision, devices, log."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from retina_ops.data import DataError
from retina_ops.settings import from_plain, read_toml, to_plain, to_toml
from retina_ops.training import OptimizerConfig, ScheduleConfig, TrainConfig
from retina_ops.training.distributed import joined_world, resolve_device
from retina_ops.training.ema import averaged_model
from retina_ops.training.log import RunLog, read_metrics
from retina_ops.training.optimizer import build_optimizer
from retina_ops.training.precision import autocast, resolve_precision
from retina_ops.training.schedule import lr_factor


def test_settings_round_trip(tmp_path: Path) -> None:
    config = TrainConfig(epochs=3, ema_decay=0.5)
    config.model.base_sizes = (1.5, 2.0)
    config.data.on_bad_image = "skip"
    (tmp_path / "c.toml").write_text(to_toml(config))
    assert read_toml(tmp_path / "c.toml", TrainConfig) == config
    assert from_plain(TrainConfig, json.loads(json.dumps(to_plain(config)))) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", "unknown setting 'epoch'; known are data"),
        ("[optimizer]\nrate = 3", "unknown setting 'optimizer.rate'"),
        ("epochs = 'x'", "epochs must be an integer, got 'x'"),
        ("epochs = true", "epochs must be an integer, got True"),
        ("epochs = 0", "epochs must be at least 1, got 0"),
        ("[optimizer]\nlr = -1", "optimizer.lr must be at least 1e-12, got -1.0"),
        ("[augmentation]\nshortest_sizes = [64, 0]", "augmentation.shortest_sizes must be at least 1, got 0"),
        ("seed = 1.5", "seed must be an integer"),
        ("tensorboard = 1", "tensorboard must be true or false"),
        ("precision = 'fp8'", "precision must be one of auto, fp32, bf16, fp16, got 'fp8'"),
        ("[model]\nbase_sizes = 3", "model.base_sizes must be a list"),
        ("[model]\nbase_sizes = ['a']", "model.base_sizes must be a number, got 'a'"),
        ("[augmentation]\nzoom = [1]", "augmentation.zoom must have 2 values"),
        ("[augmentation]\nzoom = [2, 1]", "zoom must be a range"),
        ("model = 1", "model must be a table, got 1"),
        ("[model.loss]\nbox_loss = 'l2'", "box_loss must be one of"),
        ("epochs = ", "is not TOML"),
    ],
)
def test_settings_refuse(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(DataError) as raised:
        read_toml(path, TrainConfig)
    assert str(raised.value).startswith(f"{path}: ") and message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_old_names_in_files_are_read_with_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[model.loss]\nfg_iou = 0.6\nbox_weight = 2\n")
    with pytest.warns(FutureWarning) as caught:
        config = read_toml(path, TrainConfig)
    assert (config.model.loss.fg_iou_thresh, config.model.loss.box_loss_weight) == (0.6, 2.0)
    assert [str(warning.message).partition(";")[0] for warning in caught] == [
        "model.loss: fg_iou is now fg_iou_thresh",
        "model.loss: box_weight is now box_loss_weight",
    ]


def test_settings_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_toml(tmp_path / "none.toml", TrainConfig)
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="not UTF-8"):
        read_toml(tmp_path / "bytes.toml", TrainConfig)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"epochs": 2.0}, "epochs must be an integer, got 2.0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"ema_decay": 1.0}, r"ema_decay must be in \[0, 0.999999\], got 1.0"),
        ({"freeze": 6}, r"freeze must be in \[0, 5\], got 6"),
        ({"max_minutes": -1.0}, "max_minutes must be at least 0, got -1.0"),
        ({"schedule": ScheduleConfig(milestones=(0.5, 0.2))}, "schedule.milestones must be in ascending order"),
        ({"schedule": ScheduleConfig(milestones=(0.5, 2.0))}, r"schedule.milestones must be in \[0, 1\], got 2.0"),
        ({"optimizer": OptimizerConfig(lr=float("nan"))}, "optimizer.lr must be at least 1e-12, got nan"),
        ({"optimizer": OptimizerConfig(accumulate=0)}, "optimizer.accumulate must be at least 1, got 0"),
        ({}, "data.train is empty"),
    ],
)
def test_config_check(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(**change).check()  # type: ignore[arg-type]


def test_cosine() -> None:
    config = ScheduleConfig(warmup_steps=4, final_factor=0.1)
    assert lr_factor(config, 0, 0.0) == pytest.approx(1 / 5)
    assert lr_factor(config, 3, 0.0) == pytest.approx(4 / 5)
    assert lr_factor(config, 4, 0.0) == 1
    assert lr_factor(config, 100, 0.5) == pytest.approx(0.1 + 0.9 * 0.5)
    assert lr_factor(config, 100, 0.25) == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 4)))
    assert lr_factor(config, 100, 1.0) == lr_factor(config, 100, 1.7) == pytest.approx(0.1)


def test_step_schedule() -> None:
    config = ScheduleConfig(name="step", warmup_steps=0, milestones=(0.5, 0.8), step_factor=0.1)
    factors = [lr_factor(config, 10, progress) for progress in (0, 0.49, 0.5, 0.79, 0.8, 1)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_norms_and_biases_are_not_decayed(name: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.GroupNorm(4, 8), nn.Linear(8, 2))
    model[2].requires_grad_(False)
    optimizer = build_optimizer(model, OptimizerConfig(name=name, weight_decay=0.3))  # type: ignore[arg-type]
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay == {
        id(model[0].weight): 0.3,
        id(model[0].bias): 0.0,
        id(model[1].weight): 0.0,
        id(model[1].bias): 0.0,
    }
    with pytest.raises(ValueError, match="nothing to train"):
        build_optimizer(model.requires_grad_(False), OptimizerConfig())


def test_averaged_model() -> None:
    """Equal to the recurrence, for a weight, a buffer and a counter, before and after the decay is reached."""
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = averaged_model(model, 0.5)
    expected = None
    for step in range(12):
        with torch.no_grad():
            model[0].weight.fill_(float(step))
            model[1].running_mean.fill_(float(-step))
            model[1].num_batches_tracked.fill_(step)
        average.update_parameters(model)
        # The first update copies. Update t has the decay (1 + t) / (10 + t), at most 0.5.
        keep = 0.0 if expected is None else min(0.5, (1 + step) / (10 + step))
        expected = step if expected is None else keep * expected + (1 - keep) * step
    assert average.module[0].weight[0, 0].item() == pytest.approx(expected)
    assert average.module[1].running_mean[0].item() == pytest.approx(-expected)
    assert average.module[1].num_batches_tracked.item() == 11


def test_precision() -> None:
    cpu = torch.device("cpu")
    assert resolve_precision("fp16", cpu) == "fp16"
    assert resolve_precision("auto", cpu) in ("bf16", "fp32")
    product = {}
    for name in ("fp32", "bf16", "fp16"):
        with autocast(name, cpu):
            product[name] = (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
    assert product == {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def test_devices() -> None:
    assert resolve_device("cpu").type == "cpu"
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ValueError, match="device must be auto, cpu, cuda or cuda:N, got 'gpu'"):
        resolve_device("gpu")
    with pytest.raises(ValueError, match="does not exist"):
        resolve_device("cuda:99")


def test_world_of_one() -> None:
    with joined_world("cpu") as world:
        assert world.is_main and world.size == 1 and world.share(2.5) == 2.5
        world.barrier()


def test_log(tmp_path: Path) -> None:
    log = RunLog(tmp_path, is_main=True)
    for step in (1, 2, 3):
        log.record("train", step, loss=0.5)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "tr')  # cut off by a crash
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3]
    resumed = RunLog(tmp_path, is_main=True)
    resumed.keep(2, 1)
    resumed.record("val", 2, AP=0.1)
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [(line["kind"], line["step"]) for line in lines] == [("train", 1), ("train", 2), ("val", 2)]
    RunLog(tmp_path, is_main=False).record("val", 9)
    assert read_metrics(tmp_path / "metrics.jsonl") == lines
