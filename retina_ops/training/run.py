"""A complete run: output folder, training, and an evaluation of the weights that were kept."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ..errors import DataError, needs_extra
from ..evaluation.detections import load_detections, load_ground_truth
from ..evaluation.inference import detect_dataset
from ..evaluation.plots import plot_precision_recall
from ..evaluation.report import image_loader, write_evaluation_report
from ..files import write_json, write_text
from ..models.weights import load_model
from ..settings import to_toml
from .checkpoint import CHECKPOINT, load_checkpoint
from .config import TrainConfig
from .datasets import RunDatasets, open_run_datasets
from .distributed import World, joined_world
from .log import METRICS, RunLog
from .plots import plot_run
from .trainer import BEST, Trainer

with needs_extra("train"):
    import torch

CONFIG = "config.toml"
REPORT = "report.html"


def train(config: TrainConfig, output: str | Path, *, resume: bool = False) -> dict[str, Any]:
    """Trains a RetinaNet.

    Under `torchrun`, every process calls this. It writes ``best/`` (weights and their ``config.json``), ``last.pt`` (to
    resume from), ``config.toml``, ``metrics.jsonl``, ``metrics.json``, ``detections.json``, ``precision_recall.png``,
    ``loss.png`` and ``report.html`` with its numbers in ``report.json``.

    Args:
        config: see `TrainConfig`.
        output: folder of the run. Without ``resume``, it must not contain a run.
        resume: continue the run in ``output``.

    Returns:
        COCO metrics of the best weights on the test set, or on the validation set if there is no test set, with
        ``split``, ``minutes`` (of training and validation), ``epochs`` and ``steps``.

    Raises:
        DataError: the data or the weights cannot be used.
        ValueError: a setting is wrong, or the output folder contains a run.
        TrainingError: the loss is no longer finite.
    """
    started = time.monotonic()
    config.check()
    output = Path(output)
    with joined_world(config.device) as world:
        datasets = open_run_datasets(config.data)
        position = load_checkpoint(output)["position"] if resume else None
        if position is None and any((output / name).exists() for name in (CHECKPOINT, METRICS, BEST)):
            raise ValueError(f"{output} already holds a run: choose another --output, or continue it with --resume")
        world.barrier()
        is_new = not output.exists()
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(output, f"cannot be an output folder ({error.strerror})") from None
        keep = position["step"] if position else None
        log = RunLog(output, is_main=world.is_main, tensorboard=config.tensorboard, keep_steps=keep)
        try:
            return _train(config, datasets, output, world, log, resume, started)
        except BaseException:
            if world.is_main and not (output / CHECKPOINT).exists():  # there is nothing to resume
                for name in (CONFIG, METRICS):
                    (output / name).unlink(missing_ok=True)
                if is_new and not any(output.iterdir()):
                    output.rmdir()
            raise
        finally:
            log.close()


def _train(
    config: TrainConfig,
    datasets: RunDatasets,
    output: Path,
    world: World,
    log: RunLog,
    resume: bool,
    started: float,
) -> dict[str, Any]:
    trainer = Trainer(config, datasets, output, world, log, resume=resume, started=started)
    if world.is_main:
        write_text(output / CONFIG, to_toml(config))
    processes = f", {world.size} processes" if world.size > 1 else ""
    log.say(
        f"{config.model.architecture}, {len(datasets.train)} images, {len(datasets.categories)} classes, "
        f"{world.device}, {trainer.precision}{processes}"
    )
    if datasets.train.layout:
        log.say(f"{config.data.train}: taken as {datasets.train.layout}")
    if datasets.val is None:
        log.say("no validation set: the weights of the last step are kept")
    trainer.run()
    minutes = trainer.minutes
    world.barrier()
    split = "test" if datasets.test is not None else "val"
    chosen = datasets.test if datasets.test is not None else datasets.val
    result: dict[str, Any] = {"split": split} if chosen is not None else {}
    if chosen is not None:
        result |= _evaluate_best(output, world, log, chosen, config.batch_size)
    result |= {"minutes": round(minutes, 2), "epochs": round(trainer.epochs_done, 3), "steps": trainer.step}
    if world.is_main:
        if chosen is not None:
            log.record(split if split == "test" else "chosen", trainer.step, AP=result["AP"], AP50=result["AP50"])
        write_json(output / "metrics.json", result, indent=2)
        plot_run(output / METRICS, output / "loss.png")
    return result


def _evaluate_best(output: Path, world: World, log: RunLog, dataset: Any, batch_size: int) -> dict[str, Any]:
    """Metrics in float32, equal to those of ``retina-ops evaluate`` for the same weights."""
    model = load_model(output / BEST, world.device).to(memory_format=torch.channels_last)
    with log.progress(f"evaluating on {dataset.name}", len(dataset)) as progress:
        evaluator = detect_dataset(
            model, dataset, batch_size=batch_size, rank=world.rank, world_size=world.size, progress=progress
        )
    metrics = evaluator.compute()
    if world.is_main and evaluator.evaluation is not None:
        write_json(output / "detections.json", evaluator.detections)
        truth = load_ground_truth(evaluator.ground_truth)
        write_evaluation_report(
            truth,
            load_detections(evaluator.detections, truth),
            metrics,
            output / REPORT,
            title=f"{output.name} on {dataset.name}",
            load_image=image_loader(dataset),
        )
        plot_precision_recall(evaluator.evaluation.precision_recall, output / "precision_recall.png")
    return metrics
