"""Every number of every setting has a range, checked before anything runs, and values must fit together."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest

from retina_ops.cli import main
from retina_ops.commands.demo import DemoOptions
from retina_ops.commands.evaluate import EvaluateOptions
from retina_ops.commands.inspect import InspectOptions
from retina_ops.commands.predict import PredictOptions
from retina_ops.commands.train import TrainOptions
from retina_ops.data.transforms import AugmentationConfig
from retina_ops.models import LossOptions, ModelConfig, build_model
from retina_ops.models.postprocess import PostprocessOptions
from retina_ops.settings import Range, check_settings, from_plain

COMMANDS = (TrainOptions, EvaluateOptions, PredictOptions, InspectOptions, DemoOptions)


def numbers(kind: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, type) of every number in a settings dataclass, with the types of lists and options looked through."""
    for item in fields(kind):
        hint = get_type_hints(kind, include_extras=True)[item.name]
        yield from numbers_of(hint, f"{path}{item.name}")


def numbers_of(hint: Any, path: str) -> Iterator[tuple[str, Any]]:
    if is_dataclass(hint):
        yield from numbers(hint, f"{path}.")
    elif hint in (int, float) or (get_origin(hint) is Annotated and get_args(hint)[0] in (int, float)):
        yield path, hint
    elif get_origin(hint) is not Annotated:
        for inner in get_args(hint):
            yield from numbers_of(inner, path)


@pytest.mark.parametrize("options", [*COMMANDS, PostprocessOptions], ids=lambda kind: kind.__name__)
def test_every_number_has_a_range(options: type) -> None:
    found = dict(numbers(options))
    without = [path for path, hint in found.items() if not any(isinstance(e, Range) for e in get_args(hint))]
    assert found and without == []


def values_outside(hint: Any) -> list[Any]:
    limits = next(each for each in get_args(hint) if isinstance(each, Range))
    kind = get_args(hint)[0]
    outside = [kind(limits.low - 1), *([kind(limits.high + 1)] if limits.high < math.inf else [])]
    return outside + ([math.nan, math.inf] if kind is float else [])


def test_every_value_outside_its_range_is_refused() -> None:
    for path, hint in numbers(TrainOptions):
        for value in values_outside(hint):
            names = path.split(".")
            item: Any = value
            if names[-1] in ("base_sizes", "aspect_ratios", "milestones", "shortest_sizes", "zoom"):
                item = [value] * 5 if names[-1] == "base_sizes" else [value] * 2
            plain: Any = item
            for name in reversed(names):
                plain = {name: plain}
            with pytest.raises(ValueError, match=f"{path.split('.')[-1]} must be"):
                from_plain(TrainOptions, plain)


COMBINATIONS = [
    ({"max_size": 700}, "max_size must be at least min_size, 800, got 700"),
    ({"fpn_channels": 33, "head_norm": True}, "fpn_channels must fit the GroupNorm of the head, got 33"),
    ({"fpn_channels": 40, "architecture": "retinanet_resnet50_fpn_v2"}, "fpn_channels must fit the GroupNorm"),
    ({"weights_backbone": "IMAGENET1K_V9"}, "weights_backbone must be of retinanet_resnet50_fpn (IMAGENET1K_V1,"),
    ({"weights_backbone": "DEFAULT", "architecture": "retinanet_small_fpn"}, "weights_backbone must be of"),
    ({"norm": "layer"}, "norm must be batch, frozen_batch, group or empty, got 'layer'"),
    ({"base_sizes": (32.0, 64.0)}, "base_sizes must be 5 numbers"),
    ({"aspect_ratios": ()}, "aspect_ratios must have at least one number"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), COMBINATIONS)
def test_values_that_do_not_fit_together(changes: dict[str, Any], message: str) -> None:
    config = ModelConfig(**changes)
    for check in (config.check, lambda: build_model(config, [{"id": 1, "name": "a"}], pretrained=False)):
        with pytest.raises(ValueError) as error:
            check()
        assert str(error.value).startswith(message)
    with pytest.raises(ValueError) as error:
        check_settings(TrainOptions(model=config))
    assert str(error.value).startswith(f"model.{message}")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fg_iou_thresh": 2}, r"fg_iou_thresh must be in \[0, 1\], got 2"),
        ({"bg_iou_thresh": 0.6}, "bg_iou_thresh must be at most fg_iou_thresh, 0.5, got 0.6"),
        ({"alpha": -0.5}, r"alpha must be in \[0, 1\], or -1 for none, got -0.5"),
        ({"gamma": -1}, "gamma must be at least 0, got -1"),
        ({"box_loss_weight": -1}, "box_loss_weight must be at least 0"),
        ({"box_loss": "l3"}, "box_loss must be one of"),
    ],
)
def test_loss_options(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LossOptions(**changes)
    assert LossOptions(alpha=-1).alpha == -1


def test_postprocess_options_and_augmentation() -> None:
    for changes in ({"score_thresh": 2}, {"nms_thresh": -1}, {"detections_per_img": -1}, {"topk_candidates": 1.5}):
        with pytest.raises(ValueError, match=f"{next(iter(changes))} must be"):
            PostprocessOptions(**changes)  # type: ignore[arg-type]
    assert PostprocessOptions(detections_per_img=None).detections_per_img is None
    with pytest.raises(ValueError, match="zoom must be"):
        AugmentationConfig(zoom=(0.0, 1.0))


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train --data.train digits --model.loss.box-loss-weight -1", "model.loss.box_loss_weight must be at least 0"),
        ("train --data.train digits --model.min-size 0", "model.min_size must be in [1, 16384], got 0"),
        ("train --data.train digits --model.max-size 100", "model.max_size must be at least min_size, 800, got 100"),
        ("train --data.train digits --schedule.final-factor -5", "schedule.final_factor must be in [0, 1], got -5"),
        ("train --data.train digits --optimizer.lr inf", "optimizer.lr must be"),
        ("inspect --data digits --model.min-size 100000", "model.min_size must be in [1, 16384], got 100000"),
        ("inspect --data digits --model.base-sizes 0 1 2 3 4", "model.base_sizes must be in [1, 16384], got 0"),
        ("predict x.png --weights w --batch-size 0", "batch_size must be at least 1, got 0"),
    ],
)
def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, message: str) -> None:
    assert main([*command.split(), "--output", str(tmp_path / "out")]) == 1
    *before, line = capsys.readouterr().err.splitlines()
    assert not before and message in line, line
    assert not (tmp_path / "out").exists()
