"""`retina-ops train`."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..settings import read_toml, to_toml
from ..training import TrainConfig, train
from ..training.distributed import is_main_process
from ..training.resuming import config_of_run
from .options import metrics_table, parse


@dataclass
class TrainOptions(TrainConfig):
    """Train a RetinaNet on a COCO or Pascal VOC data set. For several processes: torchrun ... -m retina_ops train.

    Attributes:
        output: folder for the weights, checkpoint, configuration, metrics and plots of the run.
        config: TOML file of settings. Options on the command line override it.
        print_config: print all settings as TOML, without training.
        resume: continue the run in the output folder, with its settings.
    """

    output: str = "runs/train"
    config: str = ""
    print_config: bool = False
    resume: bool = False


# tyro takes the help from the docstring of the class itself, but most options are inherited.
TrainOptions.__doc__ = f"{TrainOptions.__doc__}\n{(TrainConfig.__doc__ or '').partition('Attributes:')[2]}"


def run(arguments: list[str]) -> None:
    """Trains, with the settings of ``--config`` and of the command line, and prints the metrics."""
    known = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    known.add_argument("--config", default="")
    known.add_argument("--output", default=TrainOptions.output)
    known.add_argument("--resume", action="store_true")
    early = known.parse_known_args(arguments)[0]
    if early.config:
        base = read_toml(early.config, TrainConfig)
    else:
        base = config_of_run(Path(early.output)) if early.resume else TrainConfig()
    options = parse(TrainOptions, "train", arguments, default=TrainOptions(**_fields(base)))
    config = TrainConfig(**_fields(options))
    if options.print_config:
        print(to_toml(config), end="")
        return
    metrics = train(config, options.output, resume=options.resume)
    if not is_main_process():
        return
    if "AP" in metrics:
        print(f"{metrics['split']}: {metrics['images']} images, {metrics['minutes']} minutes of training")
        print(metrics_table(metrics))
    print(f"weights: {Path(options.output) / 'best' / 'model.safetensors'}")


def _fields(config: TrainConfig) -> dict[str, Any]:
    return {item.name: getattr(config, item.name) for item in fields(TrainConfig)}
