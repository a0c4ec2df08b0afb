"""What an experiment is: a question, and the training runs that answer it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..training import TrainConfig

Value = str | int | float


@dataclass(frozen=True)
class Budget:
    """How long runs are. Budgets are counted in updates, so that a slow machine gives the same numbers.

    Attributes:
        name: on the command line.
        steps: updates of each run.
        seeds: runs of each setting in experiments that compare closely; others have one.
    """

    name: str
    steps: int
    seeds: int


BUDGETS = {budget.name: budget for budget in (Budget("small", 100, 1), Budget("full", 1500, 3))}


@dataclass(frozen=True)
class StudyData:
    """The data sets of a study.

    Attributes:
        name: ``"digits"`` or ``"bccd"``.
        train, val, test: as in `DataConfig`.
    """

    name: str
    train: str
    val: str
    test: str


DIGITS = StudyData("digits", "digits", "digits", "digits")


def bccd(folder: str | Path) -> StudyData:
    """Blood cells, from a folder with ``annotations/{train,val,test}.json``."""
    annotations = Path(folder) / "annotations"
    return StudyData("bccd", *(str(annotations / f"{split}.json") for split in ("train", "val", "test")))


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        name: of its folder. Runs of one name are one run, with the larger number of seeds.
        labels: what distinguishes it, the columns of the table: ``{"gamma": 2.0, "alpha": 0.25}``.
        config: its settings, as `retina-ops train` takes them.
        seeds: how many seeds it is run with.
        starts_from: name of a run, whose best weights with the same seed this one starts from; empty: none.
        detector: ``"retinanet"``, or ``"faster_rcnn"`` for torchvision's two-stage detector.
    """

    name: str
    labels: Mapping[str, Value]
    config: TrainConfig
    seeds: int = 1
    starts_from: str = ""
    detector: str = "retinanet"

    def with_seed(self, seed: int) -> TrainConfig:
        return replace(self.config, seed=seed)


# Validation AP of the finished runs with seed 0, by name.
Finished = Mapping[str, float]


@dataclass(frozen=True)
class Experiment:
    """A question to the paper.

    Attributes:
        letter: its place in the list.
        name: on the command line.
        question: one line.
        paper: what the paper says, with the place.
        runs: the runs, from the data, the budget and the finished runs. It is asked again after each run, so that later
            runs may depend on earlier ones. Finished runs are listed as well.
        data: names of the data sets that it is run on.
        measure: what is measured on a finished run's folder besides COCO metrics, for its JSON; None for nothing.
        plot: draws what was measured, from the finished runs as `results.RunResult`; None for nothing.
        x: the label on the plot's axis.
        line: the label that tells the plot's lines apart.
    """

    letter: str
    name: str
    question: str
    paper: str
    runs: Callable[[StudyData, Budget, Finished], Sequence[Run]]
    data: tuple[str, ...] = ("digits",)
    measure: Callable[[Path, TrainConfig], dict[str, Any]] | None = None
    plot: Callable[[Any, Sequence[Any]], None] | None = None
    x: str = ""
    line: str = ""
