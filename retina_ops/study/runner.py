"""Trains the runs of an experiment that are not finished."""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..errors import needs_extra
from ..files import read_json, write_json
from ..training import TrainConfig, train
from ..training.checkpoint import CHECKPOINT, PREVIOUS
from ..training.log import METRICS as LOG
from ..training.log import read_metrics
from ..training.resuming import BEST
from .experiment import Budget, Experiment, Run, StudyData
from .two_stage import train_faster_rcnn

with needs_extra("train"):
    import torch

METRICS, MEASURED, COST = "metrics.json", "measured.json", "cost.json"


def run_folder(folder: Path, run: Run, seed: int) -> Path:
    """Where a run with a seed is, in the folder of its experiment and data set."""
    return folder / run.name / f"seed-{seed}"


def planned_runs(experiment: Experiment, data: StudyData, budget: Budget, folder: Path) -> list[Run]:
    """The runs that are known by now: later ones may depend on the results of earlier ones."""
    runs: dict[str, Run] = {}
    known: set[str] = set()
    finished: dict[str, float] = {}
    while True:
        for run in experiment.runs(data, budget, finished):
            if run.name not in runs or runs[run.name].seeds < run.seeds:
                runs[run.name] = run
        finished = {
            name: read_json(path)["validation_AP"]
            for name, run in runs.items()
            if (path := run_folder(folder, run, 0) / COST).is_file()
        }
        if set(runs) | set(finished) == known:
            return list(runs.values())
        known = set(runs) | set(finished)


def pending(experiment: Experiment, data: StudyData, budget: Budget, folder: Path) -> Iterator[tuple[Run, int]]:
    """The runs and seeds that are not finished, as long as there are any. The first seeds of all runs come first."""
    while True:
        runs = planned_runs(experiment, data, budget, folder)
        missing = [
            (run, seed)
            for seed in range(max((run.seeds for run in runs), default=0))
            for run in runs
            if seed < run.seeds and not (run_folder(folder, run, seed) / COST).is_file()
        ]
        if not missing:
            return
        yield missing[0]


def run_study(
    experiment: Experiment,
    data: StudyData,
    budget: Budget,
    output: str | Path,
    *,
    say: Callable[[str], None] = print,
) -> Path:
    """Trains and measures all runs of an experiment on a data set. Finished runs are kept, interrupted ones go on.

    Args:
        experiment, data, budget: what to run.
        output: the runs are in ``<output>/<experiment>-<data>-<budget>/<run>/seed-<n>``.
        say: is given one line per run.

    Returns:
        The folder of the runs.
    """
    folder = Path(output) / f"{experiment.name}-{data.name}-{budget.name}"
    for run, seed in pending(experiment, data, budget, folder):
        target, config = run_folder(folder, run, seed), run.with_seed(seed)
        if run.starts_from:
            start = folder / run.starts_from / f"seed-{seed}"
            config.weights = str(start / BEST)
            if not (start / BEST).exists():  # only its results were kept: it is trained again, and this run after it
                shutil.rmtree(start)
                continue
        say(f"{experiment.name} on {data.name}: {run.name}, seed {seed}")
        _train(run, config, target)
        if experiment.measure is not None:
            write_json(target / MEASURED, experiment.measure(target, config))
        # Written last: a run that has this file is finished.
        write_json(target / COST, _cost(target), indent=2)
        for name in (CHECKPOINT, PREVIOUS):
            (target / name).unlink(missing_ok=True)
    return folder


def _train(run: Run, config: TrainConfig, target: Path) -> None:
    if (target / METRICS).is_file():
        return
    if run.detector == "faster_rcnn":
        train_faster_rcnn(config, target)
        return
    train(config, target, resume=any((target / name).is_file() for name in (CHECKPOINT, PREVIOUS)))


def _cost(target: Path) -> dict[str, Any]:
    """What the table needs of a run besides its metrics, and where it ran."""
    lines = read_metrics(target / LOG)
    validations = [line for line in lines if line["kind"] == "val"]
    speeds = sorted(line["images_per_second"] for line in lines if line["kind"] == "train")
    return {
        "validation_AP": max((line["AP"] or 0.0 for line in validations), default=0.0),
        "images_per_second": speeds[len(speeds) // 2] if speeds else None,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else _processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "finished": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def _processor() -> str:
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return f"{capabilities.get('cpu_name', platform.machine())}, {os.cpu_count()} cores"
