"""`retina-ops demo`: the whole package in a few minutes, without a download."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch

from ..data.digits import DigitScenes
from ..data.drawing import draw_detections, save_png
from ..data.transforms import AugmentationConfig
from ..models import LossOptions, ModelConfig, load_model
from ..settings import Range
from ..training import DataConfig, OptimizerConfig, ScheduleConfig, TrainConfig, train
from .options import metrics_table, output_folder, parse

SCENES, COLUMNS = 8, 4  # number of test scenes in the picture, and how many are side by side


@dataclass
class DemoOptions:
    """Train a small RetinaNet on digits scenes, evaluate it on unseen digits, and draw its detections.

    Attributes:
        output: folder for the weights, metrics.json, pictures and plots. It must not contain a run.
        minutes: minutes of training and validation.
        seed: seed of the weights and of the order of the images.
        device: cpu, cuda or cuda:1; auto: CUDA if available.
    """

    output: str = "runs/demo"
    minutes: Annotated[float, Range(0.01)] = 5.0
    seed: Annotated[int, Range(0, 2**62)] = 0
    device: str = "auto"


def demo_config(minutes: float, seed: int, device: str) -> TrainConfig:
    """The settings of the demo. ``retina-ops train --data.train digits`` has the same options."""
    return TrainConfig(
        data=DataConfig(train="digits", val="digits", test="digits", cache=True),
        model=ModelConfig(
            architecture="retinanet_small_fpn",
            min_size=256,
            max_size=256,
            fpn_channels=64,
            head_depth=2,
            head_norm=True,
            base_sizes=(16, 32, 64, 128, 256),
            aspect_ratios=(1.4,),  # digits are higher than wide
            detections_per_img=100,
            loss=LossOptions(normalization="batch"),
        ),
        augmentation=AugmentationConfig(horizontal_flip=0.0),  # a mirrored digit is not a digit
        optimizer=OptimizerConfig(name="adamw", lr=2e-3, weight_decay=0.05),
        schedule=ScheduleConfig(warmup_steps=100),
        epochs=1000,
        max_minutes=minutes,
        batch_size=8,
        ema_decay=0.998,
        validate_every=0,
        seed=seed,
        device=device,
    )


def run(arguments: list[str]) -> None:
    """Trains, evaluates and draws, and prints a command that uses the weights."""
    options = parse(DemoOptions, "demo", arguments)
    metrics = train(demo_config(options.minutes, options.seed, options.device), options.output)
    output = output_folder(options.output)
    weights = output / "best"
    scenes = _draw(weights, output)
    print(f"{metrics['images']} test scenes of unseen digits, {metrics['minutes']} minutes of training")
    print(metrics_table(metrics))
    print(f"written: {output}/metrics.json, detections.png, loss.png, precision_recall.png, {scenes.name}/")
    print("to detect digits in these scenes, or in your own images:")
    print(f"  retina-ops predict {scenes} --weights {weights} --output {output / 'predictions'}")


def _draw(weights: Path, output: Path) -> Path:
    """Writes some test scenes as images, and one picture of the detections in them. Returns the scenes' folder."""
    model = load_model(weights).to(memory_format=torch.channels_last)
    dataset = DigitScenes("test", SCENES)
    folder = output / "scenes"
    files = [save_png(dataset.load_image(index), folder / dataset.file_name(index)) for index in range(SCENES)]
    names = [category["name"] for category in model.categories]
    drawn = [
        draw_detections(dataset.load_image(index), found["boxes"], found["labels"], names, found["scores"])
        for index, found in enumerate(model.predict(files))
    ]
    rows = [torch.cat(drawn[start : start + COLUMNS], dim=2) for start in range(0, SCENES, COLUMNS)]
    save_png(torch.cat(rows, dim=1), output / "detections.png")
    return folder
