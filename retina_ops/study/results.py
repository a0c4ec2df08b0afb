"""Results of an experiment, read from the folders of its runs: `StudyResults`."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import read_json
from ..training.log import METRICS as LOG
from ..training.log import read_metrics
from .experiment import Budget, Experiment, StudyData, Value
from .runner import COST, MEASURED, METRICS, planned_runs, run_folder

SHOWN = ("AP", "AP50", "AP75")
FLAT_WITHIN = 0.01  # AP


@dataclass(frozen=True)
class SeedResult:
    """One finished run.

    Attributes:
        seed: of the run.
        metrics: COCO metrics of the best weights on the test set; ``steps``, ``minutes``.
        curve: (update, AP) of each validation.
        cost: speed and hardware.
        measured: what the experiment measured; None for nothing.
    """

    seed: int
    metrics: dict[str, Any]
    curve: list[tuple[int, float]]
    cost: dict[str, Any]
    measured: dict[str, Any] | None

    @property
    def is_flat(self) -> bool | None:
        """Whether the last third of the validations gained at most `FLAT_WITHIN`; None with fewer than three."""
        if len(self.curve) < 3:
            return None
        aps = [ap for _, ap in self.curve]
        return max(aps) - max(aps[: -(len(aps) // 3)]) <= FLAT_WITHIN


@dataclass(frozen=True)
class RunResult:
    """A run with all its seeds.

    Attributes:
        name, labels: of the `Run`.
        seeds: the finished ones.
        planned: how many there will be.
    """

    name: str
    labels: dict[str, Value]
    seeds: list[SeedResult]
    planned: int

    def mean(self, metric: str) -> float:
        return statistics.fmean(result.metrics[metric] or 0.0 for result in self.seeds)

    def spread(self, metric: str) -> float | None:
        """The sample standard deviation over the seeds; None for one seed."""
        values = [result.metrics[metric] or 0.0 for result in self.seeds]
        return statistics.stdev(values) if len(values) > 1 else None

    @property
    def is_flat(self) -> bool | None:
        flat = [result.is_flat for result in self.seeds]
        return None if None in flat else all(flat)


@dataclass(frozen=True)
class StudyResults:
    """All finished runs of an experiment on a data set."""

    experiment: Experiment
    data: StudyData
    budget: Budget
    runs: Sequence[RunResult]

    @classmethod
    def read(cls, experiment: Experiment, data: StudyData, budget: Budget, folder: Path) -> StudyResults:
        """From the folder that `run_study` returns. Runs without a finished seed are left out."""
        results = []
        for run in planned_runs(experiment, data, budget, folder):
            seeds = [
                seed_result
                for seed in range(run.seeds)
                if (seed_result := _read_seed(run_folder(folder, run, seed), seed)) is not None
            ]
            if seeds:
                results.append(RunResult(run.name, dict(run.labels), seeds, run.seeds))
        return cls(experiment, data, budget, results)

    def rows(self) -> list[dict[str, Any]]:
        """The table: labels, mean and spread of the metrics, seeds, and whether the validation AP was flat."""
        rows = []
        for run in self.runs:
            row: dict[str, Any] = dict(run.labels)
            for metric in SHOWN:
                row[metric] = run.mean(metric)
                row[f"{metric} spread"] = run.spread(metric)
            row |= {"seeds": len(run.seeds), "flat": run.is_flat}
            rows.append(row)
        return rows

    def to_dict(self) -> dict[str, Any]:
        """For ``study.json``."""
        return {
            "experiment": self.experiment.name,
            "letter": self.experiment.letter,
            "question": self.experiment.question,
            "paper": self.experiment.paper,
            "data": self.data.name,
            "budget": {"name": self.budget.name, "steps": self.budget.steps, "seeds": self.budget.seeds},
            "command": f"retina-ops study {self.experiment.name} --budget {self.budget.name}",
            "hours": round(sum(seed.metrics["minutes"] for run in self.runs for seed in run.seeds) / 60, 3),
            "table": self.rows(),
            "runs": [
                {
                    "name": run.name,
                    "labels": run.labels,
                    "seeds": [
                        {
                            "seed": seed.seed,
                            **{key: value for key, value in seed.metrics.items() if not isinstance(value, dict)},
                            "curve": seed.curve,
                            **seed.cost,
                            **({} if seed.measured is None else {"measured": seed.measured}),
                        }
                        for seed in run.seeds
                    ],
                }
                for run in self.runs
            ],
        }

    def markdown(self) -> str:
        """The table in Markdown."""
        labels = list(dict.fromkeys(label for run in self.runs for label in run.labels))
        lines = [
            "| " + " | ".join([*labels, *SHOWN, "seeds", "validation AP flat"]) + " |",
            "|" + "---|" * (len(labels) + len(SHOWN) + 2),
        ]
        for row in self.rows():
            cells = [_text(row.get(label, "")) for label in labels]
            for metric in SHOWN:
                spread = row[f"{metric} spread"]
                cells.append(f"{100 * row[metric]:.1f}" + ("" if spread is None else f" ± {100 * spread:.1f}"))
            flat = {True: "yes", False: "no", None: "not shown: fewer than three validations"}[row["flat"]]
            lines.append("| " + " | ".join([*cells, str(row["seeds"]), flat]) + " |")
        return "\n".join(lines) + "\n"


def _text(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _read_seed(folder: Path, seed: int) -> SeedResult | None:
    if not (folder / COST).is_file():
        return None
    lines = read_metrics(folder / LOG)
    return SeedResult(
        seed,
        read_json(folder / METRICS),
        [(line["step"], line["AP"] or 0.0) for line in lines if line["kind"] == "val"],
        read_json(folder / COST),
        read_json(folder / MEASURED) if (folder / MEASURED).is_file() else None,
    )
