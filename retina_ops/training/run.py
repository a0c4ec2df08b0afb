"""A complete run: output folder, training, and an evaluation of the weights that were kept."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from .._defaults import standard_defaults
from ..data.loading import worker_failures_in_one_line
from ..errors import DataError, needs_extra
from ..evaluation.detections import load_detections, load_ground_truth
from ..evaluation.inference import detect_dataset
from ..evaluation.plots import plot_precision_recall
from ..evaluation.report import image_loader, write_evaluation_report
from ..files import write_json
from ..models.weights import load_model
from .checkpoint import load_checkpoint
from .config import TrainConfig
from .datasets import RunDatasets, open_run_datasets
from .distributed import World, joined_world
from .lock import locked
from .log import METRICS, RunLog
from .plots import plot_run
from .resuming import BEST, prepare_folder, remove_begun_run
from .stopping import StopRequested
from .trainer import Trainer, TrainingError

with needs_extra("train"):
    import torch

REPORT = "report.html"


@standard_defaults()
def train(config: TrainConfig, output: str | Path, *, resume: bool = False) -> dict[str, Any]:
    """Trains a RetinaNet.

    Under `torchrun`, every process calls this. It writes ``best/`` (weights and their ``config.json``), ``last.pt`` (to
    resume from), ``previous.pt`` (the checkpoint before), ``config.toml``, ``metrics.jsonl``, ``metrics.json``,
    ``detections.json``, ``precision_recall.png``, ``loss.png`` and ``report.html`` with its numbers in ``report.json``.

    Args:
        config: see `TrainConfig`.
        output: folder of the run. Without ``resume``, it must not contain a run.
        resume: continue the run in ``output``.

    SIGINT and SIGTERM end the run after the current update, once its state is saved.

    Returns:
        COCO metrics of the best weights on the test set, or on the validation set if there is no test set, with
        ``split``, ``minutes`` (of training and validation), ``epochs`` and ``steps``.

    Raises:
        DataError: the data or the weights cannot be used.
        ValueError: a setting is wrong, or the output folder contains a run.
        TrainingError: the loss is no longer finite.
        WorkerError: a process that loads images died.
        OSError: a file cannot be written. The last checkpoint is as it was.
        KeyboardInterrupt: after SIGINT; SystemExit with status 143 after SIGTERM.
    """
    started = time.monotonic()
    config.check()
    output = Path(output)
    with joined_world(config.device) as world, worker_failures_in_one_line():
        datasets = open_run_datasets(config.data)
        with _run_folder(output, world, resume=resume) as remark:
            log = RunLog(output, is_main=world.is_main, tensorboard=config.tensorboard)
            if remark:
                log.say(remark)
            try:
                return _train(config, datasets, output, world, log, resume, started)
            finally:
                log.close()


@contextmanager
def _run_folder(output: Path, world: World, *, resume: bool) -> Iterator[str | None]:
    """Creates and locks the folder of a run; the main process does it for all. Yields what `prepare_folder` returns.

    A run that fails before its first update leaves the folder as it was.
    """
    is_new = not output.exists()
    with ExitStack() as stack:
        problem: Exception | None = None
        remark = None
        if world.is_main:
            try:
                if resume and is_new:
                    raise DataError(output, "no such folder: there is no run to resume")
                _create(output)
                stack.enter_context(locked(output))
                remark = prepare_folder(output, resume=resume)
                if resume:
                    load_checkpoint(output)
            except (DataError, ValueError, OSError) as error:
                problem = error
        if world.share(problem is not None):
            if is_new and world.is_main and output.is_dir():
                output.rmdir()
            raise problem or TrainingError("process 0 cannot start the run; its message says why")
        try:
            yield remark
        finally:
            if is_new and world.is_main and not any(output.iterdir()):
                output.rmdir()


def _create(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(output, f"cannot be an output folder ({error.strerror})") from None


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
    if resume:
        log.keep(trainer.step, trainer.validated)
    processes = f", {world.size} processes" if world.size > 1 else ""
    log.say(
        f"{config.model.architecture}, {len(datasets.train)} images, {len(datasets.categories)} classes, "
        f"{world.device}, {trainer.precision}{processes}"
    )
    if datasets.train.layout:
        log.say(f"{config.data.train}: taken as {datasets.train.layout}")
    if datasets.val is None:
        log.say("no validation set: the weights of the last step are kept")
    try:
        if not resume:
            trainer.save()  # from here on, the run can be resumed
        trainer.run()
    except Exception:
        if not resume and trainer.step == 0 and world.is_main:
            remove_begun_run(output)
        raise
    minutes = trainer.minutes
    world.barrier()
    split = "test" if datasets.test is not None else "val"
    chosen = datasets.test if datasets.test is not None else datasets.val
    result: dict[str, Any] = {"split": split} if chosen is not None else {}
    try:
        with trainer.stop:
            if chosen is not None:
                result |= _evaluate_best(output, trainer, log, chosen)
            result |= {"minutes": round(minutes, 2), "epochs": round(trainer.epochs_done, 3), "steps": trainer.step}
            if world.is_main:
                if chosen is not None:
                    kind = split if split == "test" else "chosen"
                    log.record(kind, trainer.step, AP=result["AP"], AP50=result["AP50"])
                write_json(output / "metrics.json", result, indent=2)
                plot_run(output / METRICS, output / "loss.png")
    except StopRequested as request:
        trainer.end(request.number)
    return result


def _evaluate_best(output: Path, trainer: Trainer, log: RunLog, dataset: Any) -> dict[str, Any]:
    """Metrics in float32, equal to those of ``retina-ops evaluate`` for the same weights."""
    world, batch_size = trainer.world, trainer.config.batch_size
    model = load_model(output / BEST, world.device).to(memory_format=torch.channels_last)
    with log.progress(f"evaluating on {dataset.name}", len(dataset)) as bar:

        def progress(done: int, total: int) -> None:
            trainer.stop.check()
            bar(done, total)

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
            (output / REPORT).with_suffix(".json"),
            title=f"{output.name} on {dataset.name}",
            load_image=image_loader(dataset),
        )
        plot_precision_recall(evaluator.evaluation.precision_recall, output / "precision_recall.png")
    return metrics
