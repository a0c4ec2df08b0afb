"""`retina-ops study`."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from ..errors import needs_extra
from ..files import write_json, write_text
from ..settings import Range
from ..study import BUDGETS, EXPERIMENTS, StudyData, StudyResults, run_study
from ..study.experiment import DIGITS, bccd
from ..study.report import write_report
from .options import output_folder, parse

with needs_extra("train"):
    import tyro


@dataclass
class StudyOptions:
    """Run experiments of the focal loss paper: train what is missing, and write tables, plots and a report.

    Attributes:
        names: experiments; "all" for every one. --list names them.
        output: folder of the runs and of the results. Finished runs in it are kept, interrupted ones go on.
        budget: small: 100 updates per run, for a look; full: 1,500 updates, three seeds where results are close.
        seeds: seeds of the runs that are compared closely; 0: as the budget says.
        bccd: folder of the blood-cell photographs with annotations/{train,val,test}.json; if empty, the experiments
            run on digits scenes only.
        list: print the experiments and end.
        report_only: train nothing; write the results of the finished runs.
    """

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    output: str = "runs/study"
    budget: Literal["small", "full"] = "small"
    seeds: Annotated[int, Range(0, 100)] = 0
    bccd: str = ""
    list: bool = False
    report_only: bool = False


def run(arguments: list[str]) -> None:
    """Runs the experiments one after another. The results are written after each."""
    options = parse(StudyOptions, "study", arguments)
    if options.list:
        for experiment in EXPERIMENTS.values():
            print(f"({experiment.letter}) {experiment.name:<14} {experiment.question}")
        return
    names = list(EXPERIMENTS) if options.names == ("all",) else list(options.names)
    unknown = [name for name in names if name not in EXPERIMENTS]
    if unknown or not names:
        got = f"unknown experiment {unknown[0]!r}" if unknown else "no experiment is named"
        raise ValueError(f"{got}; known are {', '.join(EXPERIMENTS)}, all")
    budget = BUDGETS[options.budget]
    if options.seeds:
        budget = replace(budget, seeds=options.seeds)
    output = output_folder(options.output)
    for name in names:
        experiment = EXPERIMENTS[name]
        for data in _data_of(experiment.data, options.bccd):
            folder = output / f"{name}-{data.name}-{budget.name}"
            if not options.report_only:
                run_study(experiment, data, budget, output, say=lambda line: print(line, file=sys.stderr))
            study = StudyResults.read(experiment, data, budget, folder)
            if not study.runs:
                print(f"{name} on {data.name}: no run is finished")
                continue
            write_json(folder / "study.json", study.to_dict(), indent=1)
            write_text(folder / "table.md", study.markdown())
            write_report([study], folder / "report.html")
            print(f"({experiment.letter}) {name} on {data.name}, {budget.steps} updates per run\n{study.markdown()}")
            print(f"written: {folder}/report.html, study.json, table.md")


def _data_of(names: tuple[str, ...], blood_cells: str) -> list[StudyData]:
    """The data sets of an experiment that are there."""
    sets = [DIGITS] if "digits" in names else []
    if "bccd" in names and blood_cells:
        if not Path(blood_cells, "annotations", "train.json").is_file():
            raise ValueError(f"--bccd {blood_cells}: no annotations/train.json in this folder")
        sets.append(bccd(blood_cells))
    return sets
